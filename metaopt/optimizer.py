r"""Meta-optimization as an optax transformation: Algorithm 7 of the paper.

Letters as in :mod:`metaopt.controllers` and :mod:`metaopt.rollout`; x_t are the parameters, g_t the
gradient, O the meta-optimizer. At step t, counted from 1 in each episode:

    if t >= H + L:   M <- O(M, gradient of the rollout's loss by M)
    x_{t+1} = (1 - delta) x_t - eta_t g_t - sum_h M[h] w_{t-h}

A *recorded* rollout is one of L = 1 that takes the gradient it is given, at x_t, for that at the
replayed point, where the new M would have led: the same as long as M does not change, and free.

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

from metaopt.arguments import as_parameters, check_flags, check_number, check_whole
from metaopt.controllers.lags import Controller, ScalarLags
from metaopt.rollout import rollout_adjoints
from metaopt.xla.convolutions import with_fast_convolutions
from metaopt.xla.meshes import reshard
from metaopt.xla.precision import narrow, real_dtype, wide_dtype, widen
from metaopt.xla.rings import after, make_rings, read_rings, write_rings

ValueFn = Callable[[Any, Any], Any]
LearningRate = float | jax.Array | Callable[[Any], Any]


class MetaOptimizerState(NamedTuple):
    """State of :func:`meta_optimizer`.

    The last six fields are ``None`` where nothing learns, and the last five with recorded rollouts.
    """

    count: Int[Array, ""]  # steps taken in this episode
    weights: PyTree  # M
    memory: PyTree  # the controller's: what it keeps of past disturbances
    disturbance: PyTree  # state of the disturbance's transformation, or None
    meta_state: PyTree  # state of O
    start: PyTree  # y_1 of the next rollout; None if the controller computes controls again
    controls: tuple[PyTree, ...] | None  # L - 1, of the next rollout, newest first; likewise
    rates: Float[Array, " rollout"] | None  # the last L base learning rates, eta_t in slot t mod L
    bases: PyTree  # rings of the last L base points, b_t in slot t mod L
    data: PyTree  # rings of the last L data, likewise; None where nothing is recorded


def meta_optimizer(
    value_fn: ValueFn | None,
    learning_rate: LearningRate,
    *,
    example: Any = None,
    fixed: bool = False,
    history: int | None = None,
    rollout: int | None = None,
    recorded: bool = False,
    weight_decay: float = 0.0,
    meta_optimizer: optax.GradientTransformation | None = None,
    controller: Controller | None = None,
    disturbance: optax.GradientTransformation | None = None,
    learn: bool = True,
    meta_every: int = 1,
    history_dtype: DTypeLike | None = None,
    episode_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn the update rule while training, through online control over past gradients.

    .. math:: x_{t+1} = (1 - \delta) x_t - \eta_t g_t - \sum_{h=0}^{H-1} M_h \, w_{t-h}

    The updates go straight to ``optax.apply_updates``. ``update`` takes the datum whose gradient it
    is given: ``update(grads, state, params, datum=datum)``. The gradients must be those of
    ``value_fn``; transform them through ``disturbance``, not before. Other keywords of ``update``,
    say ``value``, reach ``disturbance`` and ``meta_optimizer``.

    Costs 3 L - 1 gradient evaluations a step while learning, 1 frozen or recorded. The state holds
    H + 3 L parameter-sized arrays and L recorded data while learning, H and none frozen or recorded
    (:class:`~metaopt.Averages`: K + 2 L, and K; :class:`~metaopt.DiagonalLags`
    have M itself and the state of O too). Jit with ``donate_argnums`` on the state, or XLA copies
    the history at every step.

    Args:
        value_fn: ``value_fn(params, datum)``, the loss; ``None`` will do where nothing is replayed:
            frozen, or with recorded rollouts. Its gradient must be the true one: rollouts take its
            Jacobian for symmetric.
        learning_rate: eta: a number or an optax schedule.
        example: A datum, or its shapes and dtypes: rollouts longer than 1 record data.
        fixed: The datum never changes; nothing is recorded.
        history: H; by default 32 for lags, and 1 for averages, which have no end: M is first
            updated at step H + L.
        rollout: L; 2 by default.
        recorded: Rollouts of 1 by the given gradient alone: nothing is evaluated, kept or asked of
            ``datum``.
        weight_decay: delta, *not* scaled by the learning rate.
        meta_optimizer: O, any optax transformation; the paper's ``optax.adam(1e-4)`` by default.
        controller: The family, with weights to start from; the paper's scalar lags by default.
        disturbance: What past gradients go through before the controller sees them, any optax
            transformation, say ``optax.scale_by_adam()``; ``None`` leaves them as they are.
        learn: ``False`` freezes M, which then usually comes with the controller.
        meta_every: M is updated every so many steps.
        history_dtype: Of the recorded disturbances, say ``jnp.bfloat16``; the iterates' by default.
        episode_steps: Length of an episode, where it is known: one that ends before a rollout has
            its past of H + L steps is refused, for nothing would ever be learned.

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
    check_flags(fixed=fixed, recorded=recorded, learn=learn)
    controller = ScalarLags() if controller is None else controller
    history = controller.default_history if history is None else history
    if recorded and rollout not in (None, 1):
        raise ValueError(f"`rollout` must be 1 where `recorded` is True, got {rollout!r}.")
    rollout = (1 if recorded else 2) if rollout is None else rollout
    replays = learn and not recorded
    check_whole(history=history, rollout=rollout, meta_every=meta_every)
    if replays and value_fn is None:
        raise ValueError(
            "`value_fn` must be given where `learn` is True: rollouts evaluate it, but for "
            "recorded ones (`recorded=True`)."
        )
    if learn and episode_steps is not None and episode_steps < history + rollout:
        raise ValueError(
            f"`episode_steps` must be at least `history` + `rollout`, {history} + {rollout}, got "
            f"{episode_steps}: no rollout would ever have its past. Shorten `history`."
        )
    records_data = replays and not fixed and rollout > 1
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
        outer=optax.with_extra_args_support(
            optax.adam(1e-4) if meta_optimizer is None else meta_optimizer
        ),
        controller=controller,
        disturbance=None if disturbance is None else optax.with_extra_args_support(disturbance),
        learn=learn,
        replays=replays,
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
    outer: optax.GradientTransformationExtraArgs
    controller: Controller
    disturbance: optax.GradientTransformationExtraArgs | None
    learn: bool
    replays: bool  # learns, by rollouts that are not recorded
    meta_every: int
    history_dtype: DTypeLike | None

    def init(self, params: optax.Params) -> MetaOptimizerState:
        params = self._checked(params)
        weights = self.controller.init_weights(params, self.history)
        rollout = self.rollout if self.replays else 0
        memory = self.controller.init_memory(params, self.history, rollout, self.history_dtype)
        state = MetaOptimizerState(
            count=jnp.zeros((), jnp.int32),
            weights=weights,
            memory=memory,
            disturbance=None if self.disturbance is None else self._fresh_disturbance(params),
            meta_state=None,
            start=None,
            controls=None,
            rates=None,
            bases=None,
            data=None,
        )
        if self.learn:
            meta_state = self.outer.init(jax.tree.map(jnp.copy, weights))  # they may keep it
            state = state._replace(meta_state=meta_state)
        if not self.replays:
            return state
        if self.controller.keeps_controls:
            controls = tuple(_zeros(params) for _ in range(self.rollout - 1))
            state = state._replace(start=_zeros(params), controls=controls)
        return state._replace(
            rates=jnp.zeros(self.rollout, real_dtype(params)),
            bases=make_rings(params, self.rollout, wide_dtype),
            data=make_rings(self.example, self.rollout),
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
        self._check(params, datum)
        if not jax.tree.leaves(updates):  # masked out, say
            return updates, state
        slope = widen(updates)
        point = None if params is None else widen(params)
        if point is not None:
            slope = jax.tree.map(reshard, slope, point)  # jax 0.7 splits some in other ways
        rate = self._rate(state.count)
        step = self._base_step(slope, point, rate)
        disturbance, disturbance_state = self._disturb(slope, state, point, extra_args)
        state = state._replace(disturbance=disturbance_state)
        if self.replays:
            past = self._past(state, slope)
        elif self.learn:
            meta_slope = self.controller.meta_gradient(state.weights, state.memory, [slope], ago=0)
            state = self._descend(state, meta_slope, extra_args)
            disturbance = after(state.weights, disturbance)
        memory = self.controller.observe(state.memory, disturbance)
        state = state._replace(memory=memory)
        if self.replays:
            state = self._record(state, datum, rate)
            adjoints = self._replay(state, past, params, datum)
            meta_slope = self.controller.meta_gradient(state.weights, memory, adjoints)
            state = self._descend(state, meta_slope, extra_args)
        count = self.rollout if self.replays and self.controller.keeps_controls else 1
        controls = self.controller.controls(state.weights, memory, count, slope)
        controls = [narrow(control, slope) for control in controls]
        if self.replays:
            state = self._prepare_rollout(state, jax.tree.map(jnp.add, point, step), controls)
        step = jax.tree.map(jnp.subtract, step, controls[0])
        return narrow(step, updates), state._replace(count=state.count + 1)

    def _checked(self, params: optax.Params) -> optax.Params:
        """Return the parameters as arrays, if there can be a state for them."""
        params = as_parameters(params)
        kept = self.history_dtype
        if kept is not None and not jnp.issubdtype(kept, jnp.complexfloating):
            for leaf in jax.tree.leaves(params):
                if jnp.iscomplexobj(leaf):
                    raise ValueError(
                        f"`history_dtype` must be complex, or None, where parameters are, got "
                        f"{jnp.dtype(kept)}: it would lose imaginary parts."
                    )
        return params

    @property
    def _decays(self) -> bool:
        """Whether there is weight decay, as far as a number can tell; an array may be traced."""
        return not isinstance(self.weight_decay, int | float) or self.weight_decay != 0

    def _base_step(self, slope: Any, point: Any, rate: Any) -> Any:
        """Return ``-eta g - delta x``."""
        if not self._decays:
            return jax.tree.map(lambda g: (-rate * g).astype(g.dtype), slope)
        return jax.tree.map(
            lambda g, x: (-rate * g - self.weight_decay * x).astype(g.dtype), slope, point
        )

    def _check(self, params: optax.Params | None, datum: Any) -> None:
        if params is None and (self.replays or self._decays):
            raise ValueError("`params` must be passed to update() to learn or to decay weights.")
        if self.replays and datum is None:
            raise ValueError(
                "`datum` must be passed to update() while learning, the one whose gradient it is: "
                "update(grads, state, params, datum=datum). flax's TrainState.apply_gradients "
                "leaves it out."
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
        slope: Any,
        state: MetaOptimizerState,
        point: Any,
        extra_args: dict[str, Any],
    ) -> tuple[Any, Any]:
        """Return the disturbance and the new state of its transformation."""
        if self.disturbance is None:
            return slope, None
        # An episode restarts by setting the count to 0: only here is the transformation known.
        fresh = self._fresh_disturbance(slope if point is None else point)
        before = jax.tree.map(
            lambda new, old: jnp.where(state.count == 0, new, old), fresh, state.disturbance
        )
        return self.disturbance.update(slope, before, point, **extra_args)

    def _fresh_disturbance(self, params: Any) -> Any:
        assert self.disturbance is not None
        return self.disturbance.init(jax.tree.map(jnp.copy, widen(params)))

    def _is_due(self, state: MetaOptimizerState) -> Any:
        """Return whether M is updated: there is enough of a past, and it is this step's turn."""
        first = self.history + self.rollout - 1  # t >= H + L, with t = count + 1
        since = state.count - first
        return (since >= 0) & (jnp.remainder(since, self.meta_every) == 0)

    def _descend(
        self, state: MetaOptimizerState, slope: Any, extra_args: dict[str, Any]
    ) -> MetaOptimizerState:
        """Update M along the meta-gradient, if it is due."""
        due = self._is_due(state)
        updates, meta_state = self.outer.update(
            slope, state.meta_state, state.weights, **extra_args
        )
        learned = optax.apply_updates(state.weights, updates), meta_state
        weights, meta_state = jax.tree.map(
            lambda new, old: jnp.where(due, new, old), learned, (state.weights, state.meta_state)
        )
        return state._replace(weights=weights, meta_state=meta_state)

    def _past(self, state: MetaOptimizerState, like: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return what this step's rollout starts from, and its other controls, newest first.

        The state is that of before the new disturbance, whose control no rollout has met.
        """
        if self.controller.keeps_controls:
            assert state.controls is not None
            return state.start, state.controls
        controls = self.controller.controls(state.weights, state.memory, self.rollout, like)
        oldest = read_rings(state.bases, jnp.remainder(state.count, self.rollout), like)
        return jax.tree.map(jnp.subtract, oldest, controls[-1]), tuple(controls[:-1])

    def _replay(
        self,
        state: MetaOptimizerState,
        past: tuple[Any, tuple[Any, ...]],
        params: Any,
        datum: Any,
    ) -> list[Any]:
        """Return the adjoints of the rollout that ends at this step, zeros if it is not due."""
        start, controls = past

        def gradient(point: Any, datum: Any) -> Any:
            slope = jax.grad(self._loss)(narrow(point, params), datum)
            return jax.tree.map(reshard, widen(jax.tree.map(jnp.conj, slope)), point)

        def replay() -> list[Any]:
            assert state.rates is not None
            lags = range(self.rollout - 1, 0, -1)  # steps ago, oldest first
            return rollout_adjoints(
                gradient,
                start,
                [controls[lag - 1] for lag in lags],
                [*(self._recorded(state, lag, datum) for lag in lags), datum],
                [state.rates[jnp.remainder(state.count - lag, self.rollout)] for lag in lags],
                self.weight_decay,
            )

        if jax.default_backend() == "cpu":
            replay = with_fast_convolutions(replay)
        # Only the replay is skipped when nothing is due. The history stays outside the conditional:
        # inside, XLA copies all of it.
        idle = [_zeros(params)] * self.rollout
        return jax.lax.cond(self._is_due(state), replay, lambda: idle)

    def _loss(self, params: Any, datum: Any) -> Any:
        """Return what ``value_fn`` returns, if it is a number; explain why it cannot be had."""
        assert self.value_fn is not None
        try:
            loss = self.value_fn(params, datum)
        except Exception as error:
            if not any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked))):
                raise
            raise ValueError(
                "`value_fn` must take parameters of which optax.masked or optax.partition hide "
                f"some behind MaskedNodes, but raised {type(error).__name__}: {error} Let it fill "
                "them in from the datum, or learn without it: `recorded=True`."
            ) from error
        check_number(loss, "The loss that `value_fn` returns")
        return loss

    def _recorded(self, state: MetaOptimizerState, lag: int, datum: Any) -> Any:
        """Return the datum of ``lag`` steps ago."""
        if state.data is None:
            return datum
        like = jax.tree.map(jnp.asarray, datum)
        return read_rings(state.data, jnp.remainder(state.count - lag, self.rollout), like)

    def _record(self, state: MetaOptimizerState, datum: Any, rate: Any) -> MetaOptimizerState:
        """Overwrite the oldest learning rate and datum."""
        assert state.rates is not None
        slot = jnp.remainder(state.count, self.rollout)
        state = state._replace(rates=state.rates.at[slot].set(rate))
        if state.data is None:
            return state
        return state._replace(data=write_rings(state.data, jax.tree.map(jnp.asarray, datum), slot))

    def _prepare_rollout(
        self, state: MetaOptimizerState, base: Any, controls: list[Any]
    ) -> MetaOptimizerState:
        """Keep what the rollout at the next step will start from: ``y_1 = b - u`` of L - 1 ago."""
        slot, oldest = (jnp.remainder(state.count + i, self.rollout) for i in (0, 1))
        bases = write_rings(state.bases, base, slot)
        if not self.controller.keeps_controls:
            return state._replace(bases=bases)
        start = jax.tree.map(jnp.subtract, read_rings(bases, oldest, base), controls[-1])
        return state._replace(start=start, controls=tuple(controls[:-1]), bases=bases)


def is_masked(node: Any) -> bool:
    """Return whether a node stands for parameters that optax hides from a transformation."""
    return isinstance(node, optax.MaskedNode)


def _zeros(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, wide_dtype(leaf)), params)
