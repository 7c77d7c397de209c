r"""Optimizers without a hyperparameter to tune: the averages, put together.

Letters as in :mod:`metaopt.controllers.averages` and :mod:`metaopt.scales`, and

    T  steps of the run
    q  share of the run in which the controller learns

What is chosen here was chosen by measuring; docs/beyond.md says on which problems, and which others
confirm it. The keywords of :func:`fixed_batch_optimizer` take its parts out one by one.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from metaopt.arguments import check_flags, is_known
from metaopt.controllers.averages import Averages
from metaopt.controllers.lags import Controller, ScalarLags
from metaopt.guards import guard
from metaopt.mixtures import mixture, restart_learning
from metaopt.optimizer import ValueFn, meta_optimizer
from metaopt.scales import by_log_loss, scale_by_level, scale_by_polyak, scale_by_rms

# On one batch: by default two banks, one towards the level of the loss and one that knows no loss.
FIXED_DECAYS = (0.0, 0.9, 0.99)
FIXED_META_RATE = 0.1
FIXED_HALVING = 100.0  # steps until the meta rate is half of that, a third after twice as many

# On changing batches. Learned for longer, or over longer averages, the bank looks at the next step
# alone and ends with steps that are too short for the rest of the run.
CHANGING_DECAYS = (0.0, 0.9)
CHANGING_START = 1e-3
CHANGING_META_RATE = 0.03
CHANGING_RMS_DECAY = 0.999
CHANGING_LOSS_DECAY = 0.9  # a batch of one can come arbitrarily close to the bound
LEARNING_SHARE = 0.1  # q
DEPLOYED_FACTOR = 1.5  # of what was learned, against the same short sight


def _log_averages(decays: tuple[float, ...], start: float) -> Averages:
    return Averages(decays, jnp.full(len(decays), jnp.log(start)))


def _linear_averages(start: float) -> Averages:
    return Averages(FIXED_DECAYS, jnp.full(len(FIXED_DECAYS), start), space="linear")


def _lags(start: float) -> ScalarLags:
    return ScalarLags(jnp.zeros(ScalarLags.default_history).at[0].set(start))


# Of a lower bound of the loss, disturbances; and the M that a controller of each starts from.
DISTURBANCES: dict[str, tuple[Callable[[float], optax.GradientTransformation], float]] = {
    "level": (lambda bound: scale_by_level(bound, scale_by_rms()), 1e-2),
    "polyak": (scale_by_polyak, 1e-1),
    "rms": (lambda bound: scale_by_rms(), 1e-3),
    "gradient": (lambda bound: optax.identity(), 1e-1),
}
CONTROLLERS: dict[str, Callable[[float], Controller]] = {
    "log_averages": functools.partial(_log_averages, FIXED_DECAYS),
    "averages": _linear_averages,
    "lags": _lags,
}


def fixed_batch_optimizer(
    scale: float = 1.0,
    *,
    disturbances: Sequence[str] = ("level", "rms"),
    controller: str = "log_averages",
    log_loss: bool = True,
    guarded: bool = True,
    meta_rate: float = FIXED_META_RATE,
    halving: float = FIXED_HALVING,
    learning_rate: float = 0.0,
    lower_bound: float = 0.0,
    value_fn: ValueFn | None = None,
    rollout: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn on one batch, or on a loss without noise, while training on it.

    A guarded mixture of two learners with recorded rollouts, each over averages of decay 0, 0.9 and
    0.99 in log space: one of :func:`~metaopt.scales.scale_by_level` with the RMS of the gradient as
    preconditioner, one of the gradient over its RMS.

    ``update`` takes the loss: ``update(grads, state, params, value=loss)``. Costs no gradient
    beyond the one that it is given, and keeps 9 parameter-sized arrays: 6 averages, 2 mean squares,
    and the guard's best point.

    Args:
        scale: Factor of the banks' first M. Each decade too low costs some 22 steps; where the loss
            has a floor, a start far off may not come close to it. Of lags without a base step it
            is a factor of the newest one's M; those with one start at zero, as the paper's do.
        disturbances: Names in ``DISTURBANCES``; a learner for each.
        controller: ``"log_averages"``; ``"averages"``, in linear space; or ``"lags"``, the paper's,
            32 numbers. The last two need a smaller ``meta_rate``, in units of M.
        log_loss: Whether the meta-gradient is that of the loss's logarithm.
        guarded: Whether a run that diverges goes back to its best point.
        meta_rate: Of Adam, the meta-optimizer, at first.
        halving: It is divided by 1 + t / ``halving`` after t steps; infinity keeps it.
        learning_rate: Of the base step, which there is once, whatever the number of learners.
        lower_bound: No loss is lower. Losses at or below it teach nothing: the steps of the first M
            are taken, towards no level.
        value_fn: ``value_fn(params, datum)``, for exact rollouts in place of recorded ones; then
            there is one disturbance, and ``update`` takes ``datum``.
        rollout: L, of exact rollouts.

    Raises:
        ValueError: ``scale``, ``meta_rate`` or ``halving`` is not positive, a name is unknown, or
            several learners have exact rollouts.

    Examples:
        >>> import jax
        >>> tx = fixed_batch_optimizer()
        >>> x = jnp.array([3.0, -4.0])
        >>> state = tx.init(x)
        >>> for _ in range(60):
        ...     loss, grads = jax.value_and_grad(lambda x: (x @ x) / 2)(x)
        ...     updates, state = tx.update(grads, state, x, value=loss)
        ...     x = optax.apply_updates(x, updates)
        >>> print(bool(loss < 1e-4))
        True
    """
    unknown = sorted(set(disturbances) - set(DISTURBANCES))
    if unknown or not disturbances:
        raise ValueError(
            f"`disturbances` must be some of {sorted(DISTURBANCES)}, got {list(disturbances)}."
        )
    if controller not in CONTROLLERS:
        raise ValueError(f"`controller` must be one of {list(CONTROLLERS)}, got {controller!r}.")
    check_flags(log_loss=log_loss, guarded=guarded)
    _check_positive(scale=scale, meta_rate=meta_rate)
    if is_known(halving) and not halving > 0:
        raise ValueError(f"`halving` must be positive, got {halving!r}.")
    if value_fn is not None and len(disturbances) > 1:
        raise ValueError(
            "`value_fn` makes rollouts exact, which replay the control of one learner: "
            f"`disturbances` must then be one, got {list(disturbances)}."
        )
    rule = optax.adam(lambda count: meta_rate / (1.0 + count / halving))
    kind: dict[str, Any] = {"recorded": True}
    if value_fn is not None:
        kind = {"fixed": True, "rollout": rollout}
    controllers, learners = [], []
    for name in disturbances:
        disturbance, start = DISTURBANCES[name]
        first = scale * start
        if controller == "lags":  # a base step needs no control to begin with
            first = jnp.where(jnp.asarray(learning_rate) > 0, 0.0, first)
        controllers.append(CONTROLLERS[controller](first))
        learners.append(
            meta_optimizer(
                value_fn,
                0.0 if learners else learning_rate,
                controller=controllers[-1],
                disturbance=disturbance(lower_bound),
                meta_optimizer=optax.chain(by_log_loss(lower_bound), rule) if log_loss else rule,
                **kind,
            )
        )
    whole = mixture(*learners)
    if not guarded:
        return whole
    return guard(whole, lower_bound=lower_bound, restart=restart_learning(*controllers))


def _check_positive(**numbers: Any) -> None:
    for name, number in numbers.items():
        if is_known(number) and not 0 < number < math.inf:
            raise ValueError(f"`{name}` must be positive, got {number!r}.")


def learning_steps(steps: Any) -> Any:
    """Return for how many of its T steps :func:`minibatch_optimizer` learns."""
    return jnp.maximum(1.0, LEARNING_SHARE * steps)


def minibatch_controller(scale: float = 1.0) -> Averages:
    """Return the bank of :func:`minibatch_optimizer` as it starts."""
    return _log_averages(CHANGING_DECAYS, scale * CHANGING_START)


def minibatch_optimizer(
    steps: Any, scale: float = 1.0, *, guarded: bool = True, lower_bound: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""Learn on the first of the batches that come, then train with what was learned, annealed.

    One guarded learner with recorded rollouts over averages of decay 0 and 0.9 of the gradient over
    its RMS. The controller learns q T times, first in the second step, which knows what the first
    one led to. Then it is frozen. After the first q T steps, they are

    .. math:: \tfrac32 \cdot \tfrac12 \left(1 + \cos \pi \frac{t - q T}{(1 - q) T}\right) u_t .

    ``update`` takes the loss of the batch: ``update(grads, state, params, value=loss)``. Costs no
    gradient beyond the one that it is given, and keeps 4 parameter-sized arrays: 2 averages, the
    mean squares and the guard's best point.

    Args:
        steps: T, at least 1. A traced array will do, so that another T needs no other program; what
            is in an array is not looked at.
        scale: Factor of the first M.
        guarded: Whether a run that diverges goes back to its best point, with smaller steps; see
            :func:`~metaopt.guards.guard`, which leaves single noisy batches out.
        lower_bound: No loss is lower. Batches at or below it teach nothing.

    Raises:
        ValueError: ``steps`` is less than 1, or ``scale`` not positive.
    """
    if is_known(steps) and not steps >= 1:
        raise ValueError(f"`steps` must be at least 1, got {steps!r}.")
    check_flags(guarded=guarded)
    _check_positive(scale=scale)
    learning = learning_steps(steps)

    def meta_rate(count: Any) -> Any:
        return jnp.where(count < learning, -CHANGING_META_RATE, 0.0)

    def factor(count: Any) -> Any:
        share = jnp.clip((count - learning) / jnp.maximum(1.0, steps - learning), 0.0, 1.0)
        annealed = DEPLOYED_FACTOR * 0.5 * (1.0 + jnp.cos(jnp.pi * share))
        return jnp.where(count < learning, 1.0, annealed)

    bank = minibatch_controller(scale)
    learner = meta_optimizer(
        None,
        0.0,
        recorded=True,
        controller=bank,
        disturbance=scale_by_rms(CHANGING_RMS_DECAY),
        meta_optimizer=optax.chain(
            by_log_loss(lower_bound, decay=CHANGING_LOSS_DECAY),
            optax.scale_by_adam(),
            optax.scale_by_schedule(meta_rate),
        ),
    )
    annealed = optax.chain(learner, optax.scale_by_schedule(factor))
    if not guarded:
        return annealed
    return guard(annealed, lower_bound=lower_bound, restart=restart_learning(bank))
