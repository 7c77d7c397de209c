r"""Meta-optimization as an optax transformation: Algorithm 7 of the paper.

Letters as in :mod:`metaopt.controllers.base` and :mod:`metaopt.rollout`; x_t are the parameters,
g_t the gradient, O the meta-optimizer. At step t, counted from 1 in each episode:

    if t >= H + L:   M <- O(M, gradient of the rollout's loss by M)
    x_{t+1} = (1 - delta) x_t - eta_t g_t - sum_h M[h] w_{t-h}

For lags, after each step the new M's controls for now *and* for the next rollout are computed in
one pass over the history, which leaves two passes a step: this one, and the inner products of the
meta-gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, DTypeLike, Float, Int, PyTree

from .arguments import (
    as_parameters,
    check_complex_dtype,
    check_flags,
    check_number,
    check_whole,
)
from .controllers.base import Controller
from .controllers.lags import ScalarLags
from .rollout import rollout_adjoints
from .steps import as_transformation, base_step, descend, disturb, init_disturbance, widened
from .xla.convolutions import with_fast_convolutions
from .xla.meshes import reshard
from .xla.precision import narrow, real_dtype, wide_dtype, widen
from .xla.rings import make_rings, read_rings, write_rings

ValueFn = Callable[[Any, Any], Any]


class MetaOptimizerState(NamedTuple):
    """State of :func:`meta_optimizer`."""

    count: Int[Array, ""]  # steps taken in this episode
    controller: Controller  # its weights are M
    memory: PyTree  # the controller's: what it keeps of past disturbances
    disturbance: PyTree  # state of the disturbance's transformation
    meta_state: PyTree  # state of O
    prepared: tuple[PyTree, ...]  # y_1 of the next rollout and its L - 1 controls, newest first;
    # empty where the controller does not keep controls
    rates: Float[Array, " rollout"]  # the last L base learning rates, eta_t in slot t mod L
    bases: PyTree  # rings of the last L base points, b_t in slot t mod L
    data: PyTree  # rings of the last L data, likewise; None where nothing is recorded


def meta_optimizer(
    value_fn: ValueFn,
    learning_rate: float | jax.Array | optax.Schedule,
    *,
    example: Any = None,
    fixed: bool = False,
    history: int | None = None,
    rollout: int = 2,
    weight_decay: float = 0.0,
    meta_optimizer: optax.GradientTransformation | None = None,
    controller: Controller | None = None,
    disturbance: optax.GradientTransformation | None = None,
    meta_every: int = 1,
    history_dtype: DTypeLike | None = None,
    episode_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn the update rule while training, by counterfactual rollouts over past gradients.

    .. math:: x_{t+1} = (1 - \delta) x_t - \eta_t g_t - \sum_{h=0}^{H-1} M_h \, w_{t-h}

    The updates go straight to ``optax.apply_updates``. ``update`` takes the datum whose gradient it
    is given: ``update(grads, state, params, datum=datum)``. The gradients must be those of
    ``value_fn``; transform them through ``disturbance``, not before. Other keywords of ``update``,
    say ``value``, reach ``disturbance`` and ``meta_optimizer``. To train with the learned
    controller afterwards, pass ``state.controller`` to :func:`~metaopt.frozen_control`.

    Costs 3 L - 1 gradient evaluations a step, 1 before step H + L and between updates of M. The
    state holds H + 3 L parameter-sized arrays and L recorded data (:class:`~metaopt.Averages`:
    K + 2 L arrays; :class:`~metaopt.DiagonalLags` have M itself and the state of O too). Jit with
    ``donate_argnums`` on the state, or XLA copies the history at every step.

    Args:
        value_fn: ``value_fn(params, datum)``, the loss. Its gradient must be the true one: rollouts
            rely on a symmetric Jacobian of it.
        learning_rate: eta: a number or an optax schedule.
        example: A datum, or its shapes and dtypes: rollouts longer than 1 record data.
        fixed: Whether the datum never changes; then none is recorded.
        history: H; by default that of the controller's weights, or 32 for lags without weights. 1
            for averages, which have no end. M is first updated at step H + L.
        rollout: L.
        weight_decay: delta, *not* scaled by the learning rate.
        meta_optimizer: O, any optax transformation; the paper's ``optax.adam(1e-4)`` by default.
        controller: The family, with weights to start from; the paper's scalar lags by default.
        disturbance: Any optax transformation that past gradients go through before the controller
            sees them, say ``optax.scale_by_adam()``; ``None`` leaves them as they are.
        meta_every: The number of steps from one update of M to the next.
        history_dtype: The dtype of the recorded disturbances, say ``jnp.bfloat16``; by default that
            of the parameters, float32 at least.
        episode_steps: The length of an episode, where it is known. One that ends before step H + L
            is refused: nothing would ever be learned.

    Raises:
        ValueError: An argument breaks its rule; or, from ``update``, the datum or the parameters
            are missing, or the datum has another shape than ``example``.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> def loss(x, datum):
        ...     return 0.5 * jnp.sum(datum * x**2)
        >>> tx = meta_optimizer(
        ...     loss, 0.01, fixed=True, history=4, meta_optimizer=optax.sgd(1e-4)
        ... )
        >>> x, curvatures = jnp.ones(2), jnp.array([1.0, 5.0])
        >>> state = tx.init(x)
        >>> @jax.jit
        ... def step(x, state):
        ...     gradient = jax.grad(loss)(x, curvatures)
        ...     updates, state = tx.update(gradient, state, x, datum=curvatures)
        ...     return optax.apply_updates(x, updates), state
        >>> for _ in range(20):
        ...     x, state = step(x, state)
        >>> bool(jnp.all(state.controller.weights > 0))  # longer steps would have helped
        True

    References:
        Nonconvex Meta-optimization for Deep Learning, Algorithms 4 and 7.
        Chen and Hazan, `A Nonstochastic Control Approach to Optimization
        <https://arxiv.org/abs/2301.07902>`_, 2023.
    """
    check_flags(fixed=fixed)
    start = ScalarLags() if controller is None else controller
    lags = start.history if history is None else history
    check_whole(history=lags, rollout=rollout, meta_every=meta_every)
    if not callable(value_fn):
        raise ValueError(
            f"`value_fn` must be a function of parameters and datum, got {value_fn!r}. "
            "`online_control` learns without one, `frozen_control` does not learn."
        )
    if episode_steps is not None and episode_steps < lags + rollout:
        raise ValueError(
            f"`episode_steps` must be at least `history` + `rollout`, {lags} + {rollout}, got "
            f"{episode_steps}: no rollout would ever have its past. Shorten `history`."
        )
    records = rollout > 1 and not fixed
    if records and example is None:
        raise ValueError(
            f"`example` must be given for a rollout of {rollout} on changing data: it says what "
            "has to be recorded. Give one datum, or say `fixed=True`."
        )
    expected = jax.eval_shape(lambda: example) if records else None
    outer = optax.with_extra_args_support(
        optax.adam(1e-4) if meta_optimizer is None else meta_optimizer
    )
    disturbing = as_transformation(disturbance)

    def init_fn(params: optax.Params) -> MetaOptimizerState:
        params = as_parameters(params)
        check_complex_dtype(history_dtype, params)
        ready = start.init(params, lags)
        return MetaOptimizerState(
            count=jnp.zeros((), jnp.int32),
            controller=ready,
            memory=ready.init_memory(params, rollout, history_dtype),
            disturbance=init_disturbance(disturbing, params),
            meta_state=outer.init(jax.tree.map(jnp.copy, ready.weights)),  # it may keep them
            prepared=tuple(_zeros(params) for _ in range(rollout if ready.keeps_controls else 0)),
            rates=jnp.zeros(rollout, real_dtype(params)),
            bases=make_rings(params, rollout, wide_dtype),
            data=make_rings(expected, rollout),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        datum: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MetaOptimizerState]:
        _check_update(params, datum, expected)
        if not jax.tree.leaves(updates):  # all parameters are masked
            return updates, state
        slope, point = widened(updates, params)
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        step = base_step(slope, point, rate, weight_decay)
        disturbance, disturbance_state = disturb(disturbing, state, slope, point, extra_args)
        since = state.count - (lags + rollout - 1)  # steps since t = H + L; t is the count + 1
        due = (since >= 0) & (jnp.remainder(since, meta_every) == 0)

        # The rollout's start and its controls are those of before the new disturbance.
        first, controls = _prepared(state, slope)
        memory = state.controller.observe(state.memory, disturbance)
        slot = jnp.remainder(state.count, rollout)
        rates, data = state.rates.at[slot].set(rate), _record(state.data, datum, slot)

        def gradient(place: Any, seen: Any) -> Any:
            slope = jax.grad(_checked_loss(value_fn))(narrow(place, params), seen)
            return jax.tree.map(reshard, widen(jax.tree.map(jnp.conj, slope)), place)

        def replay() -> list[Any]:
            ages = range(rollout - 1, 0, -1)  # in steps, the oldest first
            slots = [jnp.remainder(state.count - age, rollout) for age in ages]
            seen = [*(_recorded(data, slot, datum) for slot in slots), datum]
            past = [controls[age - 1] for age in ages]
            return rollout_adjoints(
                gradient, first, past, seen, [rates[slot] for slot in slots], weight_decay
            )

        if jax.default_backend() == "cpu":
            replay = with_fast_convolutions(replay)
        # Only the replay is skipped when nothing is due. The history stays outside the conditional:
        # inside, XLA copies all of it.
        adjoints = jax.lax.cond(due, replay, lambda: [_zeros(params)] * rollout)
        meta_slope = state.controller.meta_gradient(memory, adjoints)
        learned, meta_state = descend(outer, state, meta_slope, due, extra_args)

        count = rollout if learned.keeps_controls else 1
        found = [narrow(control, slope) for control in learned.controls(memory, count, slope)]
        bases = write_rings(state.bases, jax.tree.map(jnp.add, point, step), slot)
        prepared: tuple[Any, ...] = ()
        if learned.keeps_controls:
            oldest = read_rings(bases, jnp.remainder(state.count + 1, rollout), slope)
            prepared = jax.tree.map(jnp.subtract, oldest, found[-1]), *found[:-1]
        steps = narrow(jax.tree.map(jnp.subtract, step, found[0]), updates)
        return steps, MetaOptimizerState(
            count=state.count + 1,
            controller=learned,
            memory=memory,
            disturbance=disturbance_state,
            meta_state=meta_state,
            prepared=prepared,
            rates=rates,
            bases=bases,
            data=data,
        )

    # optax types a state as an array, or containers that it knows
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore


def _check_update(params: Any, datum: Any, expected: Any) -> None:
    if params is None:
        raise ValueError("`params` must be passed to update(): rollouts start from them.")
    if datum is None:
        raise ValueError(
            "`datum` must be passed to update(), the one whose gradient it is: "
            "update(grads, state, params, datum=datum). flax's TrainState.apply_gradients leaves "
            "it out."
        )
    if expected is None:
        return
    given = jax.eval_shape(lambda: datum)
    structures = jax.tree.structure(given), jax.tree.structure(expected)
    if structures[0] != structures[1]:
        raise ValueError(
            f"`datum` has the structure {structures[0]}, `example` has {structures[1]}."
        )
    for leaf, wanted in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"`datum` has an array {leaf.dtype}{list(leaf.shape)} where `example` has "
                f"{wanted.dtype}{list(wanted.shape)}."
            )


def _prepared(state: MetaOptimizerState, like: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return ``y_1 = b - u`` of L steps ago, and the controls since, newest first."""
    if state.prepared:
        return state.prepared[0], state.prepared[1:]
    rollout = len(state.rates)
    controls = state.controller.controls(state.memory, rollout, like)
    oldest = read_rings(state.bases, jnp.remainder(state.count, rollout), like)
    return jax.tree.map(jnp.subtract, oldest, controls[-1]), tuple(controls[:-1])


def _record(data: Any, datum: Any, slot: Any) -> Any:
    """Return the recorded data with ``datum`` in place of the oldest."""
    return None if data is None else write_rings(data, jax.tree.map(jnp.asarray, datum), slot)


def _recorded(data: Any, slot: Any, datum: Any) -> Any:
    """Return the datum in a slot; the present one where nothing is recorded."""
    return datum if data is None else read_rings(data, slot, jax.tree.map(jnp.asarray, datum))


def _checked_loss(value_fn: ValueFn) -> ValueFn:
    """Return ``value_fn``, with errors that explain why there is no loss."""

    def loss(params: Any, datum: Any) -> Any:
        try:
            value = value_fn(params, datum)
        except Exception as error:
            if not any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked))):
                raise
            raise ValueError(
                "`value_fn` must take parameters of which optax.masked or optax.partition hide "
                f"some behind MaskedNodes, but raised {type(error).__name__}: {error} Let it fill "
                "them in from the datum, or learn without it, by `online_control`."
            ) from error
        check_number(value, "The loss that `value_fn` returns")
        return value

    return loss


def is_masked(node: Any) -> bool:
    """Return whether a node stands for parameters that optax hides from a transformation."""
    return isinstance(node, optax.MaskedNode)


def _zeros(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, wide_dtype(leaf)), params)
