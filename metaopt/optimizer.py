r"""Meta-optimization as an optax transformation: Algorithm 7 of the paper.

Letters as in :mod:`metaopt.controllers` and :mod:`metaopt.rollout`; x_t are the parameters, g_t the
gradient, O the meta-optimizer. At step t, counted from 1 in each episode:

    if t >= H + L:   M <- O(M, gradient of the rollout's loss by M)
    x_{t+1} = (1 - delta) x_t - eta_t g_t - sum_h M[h] w_{t-h}

After each step the new M's controls for now *and* for the next rollout are computed in one pass
over the history, which leaves two passes a step: this one, and the inner products of the
meta-gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, DTypeLike, Float, Int, PyTree

from metaopt.controllers import Controller, ScalarLags
from metaopt.flattening import Flattener
from metaopt.rollout import rollout_adjoints

ValueFn = Callable[[Any, Any], Any]
LearningRate = float | Array | Callable[[Any], Any]


class MetaOptimizerState(NamedTuple):
    """State of :func:`meta_optimizer`. The last five fields are ``None`` where nothing learns."""

    count: Int[Array, ""]  # steps taken in this episode
    weights: PyTree  # M
    memory: PyTree  # the controller's: what it keeps of past disturbances
    disturbance: PyTree  # state of the disturbance's transformation, or None
    meta_state: PyTree  # state of O
    start: Float[Array, " d"] | None  # y_1 of the next rollout
    controls: Float[Array, "rollout-1 d"] | None  # of the next rollout, newest first
    bases: Float[Array, "rollout-1 d"] | None  # b_t, b_{t-1}, .., newest first
    data: PyTree  # last L data, a ring along the first axis; None where nothing is recorded


def meta_optimizer(
    value_fn: ValueFn | None,
    learning_rate: LearningRate,
    *,
    example: Any = None,
    fixed: bool = False,
    history: int = 32,
    rollout: int = 2,
    weight_decay: float = 0.0,
    meta_optimizer: optax.GradientTransformation | None = None,
    controller: Controller | None = None,
    disturbance: optax.GradientTransformation | None = None,
    learn: bool = True,
    meta_every: int = 1,
    history_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn the update rule while training, through online control over past gradients.

    .. math:: x_{t+1} = (1 - \delta) x_t - \eta_t g_t - \sum_{h=0}^{H-1} M_h \, w_{t-h}

    The updates go straight to ``optax.apply_updates``. ``update`` takes the datum whose gradient it
    is given: ``update(grads, state, params, datum=datum)``. The gradients must be those of
    ``value_fn``; transform them through ``disturbance``, not before.

    Costs 3 L - 1 gradient evaluations a step while learning, 1 frozen. The state holds H + 3 L - 1
    parameter-sized arrays and L recorded data while learning, H and none frozen (and, with
    :class:`~metaopt.controllers.DiagonalLags`, M itself and the state of O). Jit with
    ``donate_argnums`` on the state, or XLA copies the history at every step.

    Args:
        value_fn: ``value_fn(params, datum)``, the loss; ``None`` will do where nothing learns.
        learning_rate: eta: a number or an optax schedule.
        example: A datum, or its shapes and dtypes: rollouts longer than 1 record data.
        fixed: The datum never changes; nothing is recorded.
        history: H.
        rollout: L.
        weight_decay: delta, *not* scaled by the learning rate.
        meta_optimizer: O, any optax transformation; the paper's ``optax.adam(1e-4)`` by default.
        controller: The family, with weights to start from; the paper's scalar lags by default.
        disturbance: What past gradients go through before the controller sees them, any optax
            transformation, say ``optax.scale_by_adam()``; ``None`` leaves them as they are.
        learn: ``False`` freezes M, which then usually comes with the controller.
        meta_every: M is updated every so many steps.
        history_dtype: Of the recorded disturbances, say ``jnp.bfloat16``; the iterates' by default.

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
        >>> bool(jnp.all(state.weights > 0))  # larger steps along past gradients would have helped
        True

    References:
        Nonconvex Meta-optimization for Deep Learning, Algorithms 4 and 7.
        Chen and Hazan, `A Nonstochastic Control Approach to Optimization
        <https://arxiv.org/abs/2301.07902>`_, 2023.
    """
    for name, number in (("history", history), ("rollout", rollout), ("meta_every", meta_every)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"`{name}` must be an integer of at least 1, got {number!r}.")
    if learn and value_fn is None:
        raise ValueError("`value_fn` must be given where `learn` is True: rollouts evaluate it.")
    records_data = learn and not fixed and rollout > 1
    if records_data and example is None:
        raise ValueError(
            f"`example` must be given for a rollout of {rollout} on changing data: it says what "
            "has to be recorded. Give one datum, or say `fixed=True`."
        )
    rule = _Rule(
        value_fn=value_fn,
        learning_rate=learning_rate,
        example=jax.eval_shape(lambda: example) if records_data else None,
        history=history,
        rollout=rollout,
        weight_decay=weight_decay,
        outer=optax.adam(1e-4) if meta_optimizer is None else meta_optimizer,
        controller=ScalarLags() if controller is None else controller,
        disturbance=disturbance,
        learn=learn,
        meta_every=meta_every,
        history_dtype=history_dtype,
    )
    # optax types a state as an array, or containers that it knows
    return optax.GradientTransformationExtraArgs(rule.init, rule.update)  # pyright: ignore


class _Rule(NamedTuple):
    """The arguments of :func:`meta_optimizer`, checked."""

    value_fn: ValueFn | None
    learning_rate: LearningRate
    example: Any
    history: int
    rollout: int
    weight_decay: float
    outer: optax.GradientTransformation
    controller: Controller
    disturbance: optax.GradientTransformation | None
    learn: bool
    meta_every: int
    history_dtype: DTypeLike | None

    def init(self, params: optax.Params) -> MetaOptimizerState:
        flat = Flattener(params)
        weights = self.controller.init_weights(flat.size, self.history)
        dtype = flat.dtype if self.history_dtype is None else self.history_dtype
        rollout = self.rollout if self.learn else 0
        memory = self.controller.init_memory(flat.size, self.history, rollout, dtype)
        state = MetaOptimizerState(
            count=jnp.zeros((), jnp.int32),
            weights=weights,
            memory=memory,
            disturbance=None if self.disturbance is None else self.disturbance.init(params),
            meta_state=None,
            start=None,
            controls=None,
            bases=None,
            data=None,
        )
        if not self.learn:
            return state
        rows = (self.rollout - 1, flat.size)
        return state._replace(
            meta_state=self.outer.init(weights),
            start=jnp.zeros(flat.size, flat.dtype),
            controls=jnp.zeros(rows, flat.dtype),
            bases=jnp.zeros(rows, flat.dtype),
            data=jax.tree.map(
                lambda leaf: jnp.zeros((self.rollout, *leaf.shape), leaf.dtype), self.example
            ),
        )

    def update(
        self,
        updates: optax.Updates,
        state: MetaOptimizerState,
        params: optax.Params | None = None,
        *,
        datum: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MetaOptimizerState]:
        del extra_args
        self._check(params, datum)
        flat = Flattener(updates)
        slope = flat.flatten(updates)
        step = -self._rate(state.count) * slope  # the base step, without the decay
        if self.weight_decay:
            step = step - self.weight_decay * flat.flatten(params)
        disturbance, disturbance_state = self._disturb(updates, slope, flat, state, params)
        memory = self.controller.observe(state.memory, disturbance)
        state = state._replace(memory=memory, disturbance=disturbance_state)
        if self.learn:
            state = self._learn(self._record(state, datum), flat, datum)
        rows = self.rollout if self.learn else 1
        controls = self.controller.controls(state.weights, memory, rows).astype(flat.dtype)
        if self.learn:
            base = flat.flatten(params) + step
            state = _prepare_rollout(state, base, controls)
        return flat.unflatten(step - controls[0]), state._replace(count=state.count + 1)

    def _check(self, params: optax.Params | None, datum: Any) -> None:
        if params is None and (self.learn or self.weight_decay):
            raise ValueError("`params` must be passed to update() to learn or to decay weights.")
        if self.learn and datum is None:
            raise ValueError(
                "`datum` must be passed to update() while learning, the one whose gradient it is: "
                "update(grads, state, params, datum=datum)."
            )
        if self.example is None:
            return
        given = jax.eval_shape(lambda: datum)
        described = [(jax.tree.structure(x), jax.tree.leaves(x)) for x in (given, self.example)]
        (structure, leaves), (expected_structure, expected) = described
        if structure != expected_structure:
            raise ValueError(
                f"`datum` has the structure {structure}, `example` has {expected_structure}."
            )
        for leaf, wanted in zip(leaves, expected, strict=True):
            if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
                raise ValueError(
                    f"`datum` has an array {leaf.dtype}{list(leaf.shape)} where `example` has "
                    f"{wanted.dtype}{list(wanted.shape)}."
                )

    def _rate(self, count: Any) -> Any:
        return self.learning_rate(count) if callable(self.learning_rate) else self.learning_rate

    def _disturb(
        self,
        updates: optax.Updates,
        slope: Float[Array, " d"],
        flat: Flattener,
        state: MetaOptimizerState,
        params: optax.Params | None,
    ) -> tuple[Float[Array, " d"], Any]:
        """Return the disturbance and the new state of its transformation."""
        if self.disturbance is None:
            return slope, None
        # An episode restarts by setting the count to 0: only here is the transformation known.
        fresh = self.disturbance.init(updates if params is None else params)
        before = jax.tree.map(
            lambda new, old: jnp.where(state.count == 0, new, old), fresh, state.disturbance
        )
        disturbance, after = self.disturbance.update(updates, before, params)
        return flat.flatten(disturbance), after

    def _learn(self, state: MetaOptimizerState, flat: Flattener, datum: Any) -> MetaOptimizerState:
        """Update M by the rollout that ends at this step, once there is enough of a past."""
        first = self.history + self.rollout - 1  # t >= H + L, with t = count + 1
        since = state.count - first
        due = (since >= 0) & (jnp.remainder(since, self.meta_every) == 0)

        def gradient(point: Float[Array, " d"], datum: Any) -> Float[Array, " d"]:
            assert self.value_fn is not None
            return flat.flatten(jax.grad(self.value_fn)(flat.unflatten(point), datum))

        def replay() -> Float[Array, "rollout d"]:
            assert state.start is not None and state.controls is not None
            lags = range(self.rollout - 1, 0, -1)  # steps ago, oldest first
            return rollout_adjoints(
                gradient,
                state.start,
                [state.controls[lag - 1] for lag in lags],
                [*(self._recorded(state, lag, datum) for lag in lags), datum],
                [self._rate(state.count - lag) for lag in lags],
                self.weight_decay,
            )

        # Only the replay is skipped when nothing is due. The history stays outside the conditional:
        # inside, XLA copies all of it.
        adjoints = jax.lax.cond(
            due, replay, lambda: jnp.zeros((self.rollout, flat.size), flat.dtype)
        )
        slope = self.controller.meta_gradient(state.weights, state.memory, adjoints)
        updates, meta_state = self.outer.update(slope, state.meta_state, state.weights)
        learned = optax.apply_updates(state.weights, updates), meta_state
        weights, meta_state = jax.tree.map(
            lambda new, old: jnp.where(due, new, old), learned, (state.weights, state.meta_state)
        )
        return state._replace(weights=weights, meta_state=meta_state)

    def _recorded(self, state: MetaOptimizerState, lag: int, datum: Any) -> Any:
        """Return the datum of ``lag`` steps ago."""
        if state.data is None:
            return datum
        slot = jnp.remainder(state.count - lag, self.rollout)
        return jax.tree.map(
            lambda ring: jax.lax.dynamic_index_in_dim(ring, slot, keepdims=False), state.data
        )

    def _record(self, state: MetaOptimizerState, datum: Any) -> MetaOptimizerState:
        """Overwrite the oldest datum; before any is read, or XLA copies them all."""
        slot = jnp.remainder(state.count, self.rollout)
        data = jax.tree.map(
            lambda ring, leaf: jax.lax.dynamic_update_index_in_dim(ring, leaf, slot, 0),
            state.data,
            None if state.data is None else datum,
        )
        return state._replace(data=data)


def _prepare_rollout(
    state: MetaOptimizerState, base: Float[Array, " d"], controls: Float[Array, "rollout d"]
) -> MetaOptimizerState:
    """Keep what the rollout at the next step will start from."""
    assert state.bases is not None
    bases = jnp.concatenate([base[None], state.bases])
    return state._replace(start=bases[-1] - controls[-1], controls=controls[:-1], bases=bases[:-1])
