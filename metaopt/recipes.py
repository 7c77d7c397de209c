r"""Optimizers without a hyperparameter to tune, made of averages and online control.

Letters as in :mod:`metaopt.controllers.averages` and :mod:`metaopt.scales`, and

    T  steps of the run
    q  share of the run in which the controller learns

The constants were chosen by measuring; docs/beyond.md says on which problems, and which others
confirm them. The keywords of :func:`fixed_batch_optimizer` take its parts out one by one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .arguments import check_flags, check_positive, is_known
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

# On one batch: by default two learners, one that steps to a level of the loss, and a step size.
FIXED_DECAYS = (0.0, 0.9, 0.99)
FIXED_STEP = 3e-3  # the first step size of NAdam
FIXED_SQUARE_DECAY = 0.9  # of its mean square: gradients shrink on the way to a floor of the loss
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
    disturbances: Sequence[str] = ("level", "step_size"),
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

    A guarded sum of two :func:`~metaopt.online_control` learners. One is over averages of decay 0,
    0.9 and 0.99, in log space, of :func:`~metaopt.scale_by_level` with the RMS of the gradient as
    preconditioner: it is fast where the loss can reach its bound. The other learns the step size of
    NAdam, which needs no such bound, by a meta-gradient with a :func:`growing_memory`.

    ``update`` takes the loss: ``update(grads, state, params, value=loss)``. Costs no gradient
    beyond the given one, and keeps 8 parameter-sized arrays: for the level 3 averages and a mean
    square, for the step size NAdam's two and the sum of past steps, and the guard's best point.

    Args:
        scale: A factor of the first M. Each decade too low costs some 22 steps; where the loss has
            a floor, a start far off may not come close to it. For lags without a base step it is
            a factor of the newest lag's M; lags with a base step start at zero, as the paper's do.
        disturbances: ``"step_size"``, and names in ``DISTURBANCES``, with one learner for each.
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
    known = sorted({*DISTURBANCES, "step_size"})
    if not disturbances or not {*disturbances} <= {*known}:
        raise ValueError(f"`disturbances` must be some of {known}, got {list(disturbances)}.")
    if controller not in CONTROLLERS:
        raise ValueError(f"`controller` must be one of {list(CONTROLLERS)}, got {controller!r}.")
    check_flags(log_loss=log_loss, guarded=guarded)
    check_positive(scale=scale, meta_rate=meta_rate)
    if is_known(halving) and not halving > 0:
        raise ValueError(f"`halving` must be positive, got {halving!r}.")
    if value_fn is not None and (len(disturbances) > 1 or "step_size" in disturbances):
        raise ValueError(
            f"`disturbances` must be one of {sorted(DISTURBANCES)} where `value_fn` is given, "
            f"because rollouts replay the updates of one learner; got {list(disturbances)}."
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

        def learner(name: str) -> optax.GradientTransformation:
            if name == "step_size":
                family, discount = StepSize(jnp.log(scale * FIXED_STEP)), growing_memory
                disturbance = optax.scale_by_adam(b2=FIXED_SQUARE_DECAY, nesterov=True)
            else:
                (family, disturbance), discount = parts(name), 0.0
            return online_control(
                family, outer, disturbance, discount=discount, weight_decay=weight_decay, mask=mask
            )

        whole = sum_updates(*[base] * based, *map(learner, disturbances))
    if not guarded:
        return whole
    return guard(whole, lower_bound=lower_bound, restart=restart_learning)


def growing_memory(count: Any) -> Any:
    """Return the discount t / (t + 1) of the step after t steps, for ``online_control``.

    So after t steps, step i has the weight i / t in the meta-gradient: it looks back over the whole
    run, however long that is, and counts its beginning less.
    """
    return count / (count + 1.0)


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
    check_positive(scale=scale)
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
