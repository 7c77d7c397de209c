r"""Optimizers without a hyperparameter to tune, made of averages and online control.

Letters as in :mod:`metaopt.controllers.averages` and :mod:`metaopt.scales`, and

    T  steps of the run
    q  share of the run in which the controller learns

The constants were chosen by measuring; docs/beyond.md says on which problems, and which others
confirm them. The keywords of :func:`fixed_batch_optimizer` take its parts out one by one.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .arguments import check_flags, is_known
from .controllers.averages import Averages
from .controllers.base import Controller
from .controllers.lags import ScalarLags
from .controllers.step_size import StepSize
from .episodes import restart_learning
from .guards import guard
from .online import Mask, online_control
from .optimizer import ValueFn, meta_optimizer
from .scales import by_log_loss, scale_by_level, scale_by_polyak, scale_by_rms
from .steps import decays
from .sums import sum_updates

# On one batch: by default two learners, one that steps to a level of the loss and one without it.
FIXED_DECAYS = (0.0, 0.9, 0.99)
FIXED_META_RATE = 0.1
FIXED_HALVING = 100.0  # steps until the meta rate is half of that, a third after twice as many

# On changing batches. The meta-gradient looks one step ahead: with a longer share of learning or
# longer averages, the learned steps are too short for the rest of the run.
CHANGING_DECAYS = (0.0, 0.9)
CHANGING_START = 1e-3
CHANGING_META_RATE = 0.03
CHANGING_RMS_DECAY = 0.999
CHANGING_LOSS_DECAY = 0.9  # a batch of one can come arbitrarily close to the bound
LEARNING_SHARE = 0.1  # q
DEPLOYED_FACTOR = 1.5  # of the learned steps, because one step ahead makes them too short

# On changing batches, with a long memory.
LONG_SHARE = 0.2  # q
USUAL_STEP = 1e-2  # of directions of unit size, on small networks
LONG_MEMORY = 4.0  # divides the run: the meta-gradient looks a quarter of it back
LONG_MOVEMENT = 5.0  # by how much log M moves while it learns, if every slope has the same sign
LONG_LARGEST_RATE = 0.25  # of log M, in runs of few steps
LONG_PULL = 0.7  # by which a slope must stand out of its noise to hold M off the usual
LONG_WARMUP = 0.05  # share of the run
LONG_DECAY = 0.1


def _log_averages(decays: tuple[float, ...], start: float) -> Averages:
    return Averages(decays, jnp.full(len(decays), jnp.log(start)))


def _linear_averages(start: float) -> Averages:
    return Averages(FIXED_DECAYS, jnp.full(len(FIXED_DECAYS), start), space="linear")


def _lags(start: float) -> ScalarLags:
    return ScalarLags(jnp.zeros(ScalarLags().history).at[0].set(start))


# By name: a function from the loss's lower bound to the disturbance, and the first M for it.
DISTURBANCES: dict[str, tuple[Callable[[float], optax.GradientTransformation], float]] = {
    "level": (lambda bound: scale_by_level(bound, scale_by_rms()), 1e-2),
    "polyak": (scale_by_polyak, 1e-1),
    "rms": (lambda bound: scale_by_rms(), 1e-3),
    "gradient": (lambda bound: optax.identity(), 1e-1),
}
CONTROLLERS: dict[str, Callable[[Any], Controller]] = {
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
    weight_decay: float | jax.Array = 0.0,
    mask: Mask | None = None,
    value_fn: ValueFn | None = None,
    rollout: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn on one batch, or on a loss without noise, while training on it.

    A guarded sum of two :func:`~metaopt.online_control` learners, each over averages of decay 0,
    0.9 and 0.99 in log space: one of :func:`~metaopt.scale_by_level` with the RMS of the gradient
    as preconditioner, one of the gradient over its RMS.

    ``update`` takes the loss: ``update(grads, state, params, value=loss)``. Costs no gradient
    beyond the given one, and keeps 9 parameter-sized arrays: 6 averages, 2 mean squares,
    and the guard's best point.

    Args:
        scale: A factor of the first M. Each decade too low costs some 22 steps; where the loss has
            a floor, a start far off may not come close to it. For lags without a base step it is
            a factor of the newest lag's M; lags with a base step start at zero, as the paper's do.
        disturbances: Names in ``DISTURBANCES``, with one learner for each.
        controller: ``"log_averages"``; ``"averages"``, in linear space; or ``"lags"``, the paper's,
            32 numbers. The last two need a smaller ``meta_rate``, in units of M.
        log_loss: Whether the meta-gradient is that of the loss's logarithm.
        guarded: Whether a run that diverges goes back to its best point.
        meta_rate: The first learning rate of the meta-optimizer, Adam.
        halving: The number of steps after which the meta rate is half of the first: after t steps
            it is divided by 1 + t / ``halving``. Infinity keeps it.
        learning_rate: The learning rate of the one base step beside all learners.
        lower_bound: A lower bound of the loss. Losses at or below it teach nothing: the steps of
            the first M are taken, towards no level.
        weight_decay: The decay of the weights in units of the learned step, as in ``optax.adamw``:
            see :func:`~metaopt.online_control`. The shares of all learners and of the base step add
            up. The loss is given without a penalty.
        mask: The parameters whose weights decay, as in ``optax.adamw``; by default all.
        value_fn: ``value_fn(params, datum)``: learn by the rollouts of
            :func:`~metaopt.meta_optimizer` on the fixed batch instead, with one disturbance.
            ``update`` takes ``datum`` then.
        rollout: L, with ``value_fn``.

    Raises:
        ValueError: ``scale``, ``meta_rate`` or ``halving`` is not positive, ``weight_decay`` is
            negative, a name is unknown, or there are several disturbances or weight decay beside
            ``value_fn``.

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
            "`disturbances` must be one where `value_fn` is given, because rollouts replay the "
            f"updates of one learner; got {list(disturbances)}."
        )
    if value_fn is not None and decays(weight_decay):
        raise ValueError(
            f"`weight_decay` must be 0 where `value_fn` is given, got {weight_decay!r}. "
            "meta_optimizer has a decay of its own, which rollouts replay."
        )
    rule = optax.adam(lambda count: meta_rate / (1.0 + count / halving))
    outer = optax.chain(by_log_loss(lower_bound), rule) if log_loss else rule
    based = not is_known(learning_rate) or learning_rate != 0

    def parts(name: str) -> tuple[Controller, optax.GradientTransformation]:
        disturbance, start = DISTURBANCES[name]
        first = scale * start
        if controller == "lags":  # a base step needs no control to begin with
            first = jnp.where(jnp.asarray(learning_rate) > 0, 0.0, first)
        return CONTROLLERS[controller](first), disturbance(lower_bound)

    if value_fn is not None:
        family, disturbance = parts(disturbances[0])
        whole = meta_optimizer(
            value_fn, learning_rate, fixed=True, rollout=rollout, controller=family,
            disturbance=disturbance, meta_optimizer=outer,
        )  # fmt: skip
    else:
        base = optax.sgd(learning_rate)
        if decays(weight_decay):
            base = optax.chain(optax.add_decayed_weights(weight_decay, mask), base)
        learners = [
            online_control(family, outer, disturbance, weight_decay=weight_decay, mask=mask)
            for family, disturbance in map(parts, disturbances)
        ]
        whole = sum_updates(*[base] * based, *learners)
    if not guarded:
        return whole
    return guard(whole, lower_bound=lower_bound, restart=restart_learning)


def _check_positive(**numbers: Any) -> None:
    for name, number in numbers.items():
        if is_known(number) and not 0 < number < math.inf:
            raise ValueError(f"`{name}` must be positive, got {number!r}.")


def learning_steps(steps: Any) -> Any:
    """Return the number of the T steps in which :func:`minibatch_optimizer` learns."""
    return jnp.maximum(1.0, LEARNING_SHARE * steps)


def minibatch_optimizer(
    steps: Any,
    scale: float = 1.0,
    *,
    guarded: bool = True,
    lower_bound: float = 0.0,
    weight_decay: float | jax.Array = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn on the first batches, then train with the learned steps, annealed.

    A guarded :func:`~metaopt.online_control` over averages of decay 0 and 0.9 of the gradient over
    its RMS. The controller learns q T times, first in the second step. Then it is frozen, and the
    steps after the first q T are

    .. math:: \tfrac32 \cdot \tfrac12 \left(1 + \cos \pi \frac{t - q T}{(1 - q) T}\right) u_t .

    After T steps the updates are zero. A run that ends before T has not been annealed to the end.

    ``update`` takes the loss of the batch: ``update(grads, state, params, value=loss)``. Costs no
    gradient beyond the given one, and keeps 4 parameter-sized arrays: 2 averages, the
    mean squares and the guard's best point.

    Args:
        steps: T, at least 1. It may be a traced array, so that another T needs no other program;
            the value of an array is not checked.
        scale: A factor of the first M.
        guarded: Whether a run that diverges goes back to its best point, with smaller steps; see
            :func:`~metaopt.guard`, which leaves single noisy batches out.
        lower_bound: A lower bound of the loss. Batches at or below it teach nothing.
        weight_decay: The decay of the weights in units of the learned step, as in ``optax.adamw``:
            at every step the weights shrink by ``weight_decay`` times the sum of M, times the
            schedule above; see :func:`~metaopt.online_control`. Give the loss without a penalty.
        mask: The parameters whose weights decay, as in ``optax.adamw``; by default all.

    Raises:
        ValueError: ``steps`` is less than 1, ``scale`` not positive, or ``weight_decay`` negative.
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

    learner = online_control(
        _log_averages(CHANGING_DECAYS, scale * CHANGING_START),
        optax.chain(
            by_log_loss(lower_bound, decay=CHANGING_LOSS_DECAY),
            optax.scale_by_adam(),
            optax.scale_by_schedule(meta_rate),
        ),
        scale_by_rms(CHANGING_RMS_DECAY),
        weight_decay=weight_decay,
        mask=mask,
    )
    annealed = optax.chain(learner, optax.scale_by_schedule(factor))
    if not guarded:
        return annealed
    return guard(annealed, lower_bound=lower_bound, restart=restart_learning)


def long_memory_optimizer(
    steps: Any,
    scale: float = 1.0,
    *,
    direction: optax.GradientTransformation | None = None,
    usual: float = USUAL_STEP,
    share: Any = LONG_SHARE,
    guarded: bool = True,
    lower_bound: float = 0.0,
    weight_decay: float | jax.Array = LONG_DECAY,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn the step size of any optimizer in the first fifth of a run, then anneal it.

    A guarded :func:`~metaopt.online_control` over :class:`~metaopt.StepSize`: one number, M, which
    multiplies the direction d_t. Its meta-gradient is discounted by 1 - 4 / T, so that it looks a
    quarter of the run back. W = log M learns q T times, q = 1/5, with a rate that falls to zero:

    .. math:: W \leftarrow W - \frac{10}{q T} \Big(1 - \frac{t}{q T}\Big)
        \Big(\mathrm{Adam}(s_t) + 0.7 \, [W - \bar W]_{-1}^{1}\Big), \qquad
        s_t = -\frac{M \langle g_t, S_t \rangle}{f_t - f^*}

    S_t is the discounted sum of past directions, and :math:`\bar W` the logarithm of the usual
    step size, to which W is pulled: a slope moves W far from it only if it stands out of its noise.
    Without the pull, M grows to what pays in the first steps, which is too long for the rest. Then
    M is frozen, and the steps after the first q T are

    .. math:: \tfrac12 \left(1 + \cos \pi \frac{t - q T}{(1 - q) T}\right) M d_t .

    In the first twentieth of the run, steps grow linearly to M d_t. After T steps the updates are
    zero; a run that ends before T has not been annealed to the end.

    ``update`` takes the loss of the batch: ``update(grads, state, params, value=loss)``. Costs no
    gradient beyond the given one. Keeps three parameter-sized arrays, the mean square, the
    average and the discounted sum, and two once :func:`~metaopt.end_learning` has freed the sum.

    Args:
        steps: T, at least 1. It may be a traced array, so that another T needs no other program;
            the value of an array is not checked.
        scale: The first M, in units of ``usual``.
        direction: The optimizer whose step size is learned, as a transformation that does not
            multiply by a learning rate, such as ``optax.scale_by_lion()``; by default NAdam's,
            ``optax.scale_by_adam(nesterov=True)``.
        usual: The usual step size of the direction.
        share: q, in [0, 1]; 0 anneals the first M, or one that :func:`~metaopt.carry_over` brings.
        guarded: Whether odd batches are left out, and steps halved where a run diverges; see
            :func:`~metaopt.guard`, here without a copy of the best point.
        lower_bound: A lower bound of the loss. Batches at or below it teach nothing.
        weight_decay: The decay of the weights in units of the learned step, as in ``optax.adamw``,
            times the schedule above; see :func:`~metaopt.online_control`. Give the loss without a
            penalty.
        mask: The parameters whose weights decay, as in ``optax.adamw``; by default all.

    Raises:
        ValueError: ``steps`` is less than 1, ``scale`` or ``usual`` not positive, ``share``
            outside of [0, 1], or ``weight_decay`` negative.

    Examples:
        >>> import jax
        >>> tx = long_memory_optimizer(200, usual=0.1, weight_decay=0.0)
        >>> x = jnp.array([3.0, -4.0])
        >>> state = tx.init(x)
        >>> for _ in range(200):
        ...     loss, grads = jax.value_and_grad(lambda x: (x @ x) / 2)(x)
        ...     updates, state = tx.update(grads, state, x, value=loss)
        ...     x = optax.apply_updates(x, updates)
        >>> print(bool(loss < 1e-4))
        True

    References:
        Cutkosky, Defazio and Mehta, `Mechanic: A Learning Rate Tuner
        <https://arxiv.org/abs/2306.00144>`_, 2023, for the meta-gradient without discount.
    """
    if is_known(steps) and not steps >= 1:
        raise ValueError(f"`steps` must be at least 1, got {steps!r}.")
    check_flags(guarded=guarded)
    _check_positive(scale=scale, usual=usual)
    if is_known(share) and not 0 <= share <= 1:
        raise ValueError(f"`share` must lie in [0, 1], got {share!r}.")
    learning = share * steps

    def pulled(slopes: Any, weights: Any) -> Any:
        def pull(slope: Any, weight: Any) -> Any:
            return slope + LONG_PULL * jnp.clip(weight - jnp.log(usual), -1.0, 1.0)

        return jax.tree.map(pull, slopes, weights)

    def meta_rate(count: Any) -> Any:
        left = jnp.maximum(0.0, 1.0 - count / jnp.maximum(1.0, learning))
        rate = jnp.minimum(LONG_LARGEST_RATE, 2.0 * LONG_MOVEMENT / jnp.maximum(1.0, learning))
        return -rate * jnp.where(learning > 0, left, 0.0)

    def factor(count: Any) -> Any:
        done = jnp.clip((count - learning) / jnp.maximum(1.0, steps - learning), 0.0, 1.0)
        warmup = jnp.minimum(1.0, (count + 1.0) / (LONG_WARMUP * steps))
        return warmup * 0.5 * (1.0 + jnp.cos(jnp.pi * done))

    learner = online_control(
        StepSize(jnp.log(scale * usual)),
        optax.chain(
            by_log_loss(lower_bound, decay=CHANGING_LOSS_DECAY),
            optax.scale_by_adam(),
            optax.stateless(pulled),
            optax.scale_by_schedule(meta_rate),
        ),
        optax.scale_by_adam(nesterov=True) if direction is None else direction,
        discount=jnp.maximum(0.0, 1.0 - LONG_MEMORY / steps),
        weight_decay=weight_decay,
        mask=mask,
    )
    annealed = optax.chain(learner, optax.scale_by_schedule(factor))
    if not guarded:
        return annealed
    return guard(annealed, lower_bound=lower_bound, restart=restart_learning, keep_best=False)
