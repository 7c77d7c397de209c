r"""Recipes for changing batches that learn the step size of any optimizer.

Letters as in :mod:`metaopt.controllers.step_size` and :mod:`metaopt.scales`, and

    T  steps of the run
    q  share of the run in which the step size is learned

One needs the length of the run and anneals to zero; the other needs nothing and keeps an average.
The constants were chosen by measuring; docs/beyond.md says on which problems.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .arguments import check_flags, check_positive, is_known
from .averaging import average_params
from .controllers.step_size import StepSize
from .episodes import restart_learning
from .guards import guard
from .online import Mask, online_control
from .recipes import growing_memory
from .scales import by_log_loss

USUAL_STEP = 1e-2  # of directions of unit size, on small networks
WEIGHT_DECAY = 0.1
LOSS_DECAY = 0.9  # a batch of one can come arbitrarily close to the bound
PULL = 0.7  # by which a slope must stand out of its noise to hold M off the usual

# Of a run of known length.
SHARE = 0.2  # q
MEMORY = 4.0  # divides the run: the meta-gradient looks a quarter of it back
# How far log M moves while it learns if every slope has one sign, without the pull. With it, no
# more than 2 away from the usual.
MOVEMENT = 5.0
LARGEST_RATE = 0.25  # of log M, in runs of few steps
WARMUP = 0.05  # share of the run

# Of a run of unknown length.
ANYTIME_DELAY = 10.0  # steps: log M learns with the rate 1 / (t + 10)
ANYTIME_WARMUP = 15.0  # steps


def long_memory_optimizer(
    steps: Any,
    scale: float = 1.0,
    *,
    direction: optax.GradientTransformation | None = None,
    usual: float = USUAL_STEP,
    share: Any = SHARE,
    guarded: bool = True,
    lower_bound: float = 0.0,
    weight_decay: float | jax.Array = WEIGHT_DECAY,
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
    check_positive(scale=scale, usual=usual)
    if is_known(share) and not 0 <= share <= 1:
        raise ValueError(f"`share` must lie in [0, 1], got {share!r}.")
    learning = share * steps

    def meta_rate(count: Any) -> Any:
        left = jnp.maximum(0.0, 1.0 - count / jnp.maximum(1.0, learning))
        rate = jnp.minimum(LARGEST_RATE, 2.0 * MOVEMENT / jnp.maximum(1.0, learning))
        return rate * jnp.where(learning > 0, left, 0.0)

    def factor(count: Any) -> Any:
        done = jnp.clip((count - learning) / jnp.maximum(1.0, steps - learning), 0.0, 1.0)
        warmup = jnp.minimum(1.0, (count + 1.0) / (WARMUP * steps))
        return warmup * 0.5 * (1.0 + jnp.cos(jnp.pi * done))

    return _learned(
        direction, jnp.maximum(0.0, 1.0 - MEMORY / steps), meta_rate, factor, scale=scale,
        usual=usual, guarded=guarded, lower_bound=lower_bound, weight_decay=weight_decay, mask=mask,
    )  # fmt: skip


def anytime_optimizer(
    scale: float = 1.0,
    *,
    direction: optax.GradientTransformation | None = None,
    usual: float = USUAL_STEP,
    guarded: bool = True,
    lower_bound: float = 0.0,
    weight_decay: float | jax.Array = WEIGHT_DECAY,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn the step size of any optimizer in a run of unknown length; evaluate an average.

    As :func:`long_memory_optimizer`, but no constant depends on the length of the run. The
    meta-gradient has a :func:`~metaopt.recipes.growing_memory`, and W learns at every step,
    with the rate 1 / (t + 10). Steps are not annealed. Instead :func:`~metaopt.average_params`
    keeps an average of the parameters, in which the last 8 % of the run have half of the weight.
    ``evaluation_params(state, params)`` returns it: evaluate and save that, and train on from the
    parameters themselves. In the first 15 steps, steps grow linearly.

    ``update`` takes the loss of the batch: ``update(grads, state, params, value=loss)``. Costs no
    gradient beyond the given one. Keeps four parameter-sized arrays: the direction's two, the
    discounted sum and the average.

    Args:
        scale: The first M, in units of ``usual``.
        direction: As in :func:`long_memory_optimizer`.
        usual: The usual step size of the direction.
        guarded: As in :func:`long_memory_optimizer`.
        lower_bound: A lower bound of the loss. Batches at or below it teach nothing.
        weight_decay: The decay of the weights in units of the learned step, as in ``optax.adamw``.
        mask: The parameters whose weights decay, as in ``optax.adamw``; by default all.

    Raises:
        ValueError: ``scale`` or ``usual`` is not positive, or ``weight_decay`` negative.
    """
    check_flags(guarded=guarded)
    check_positive(scale=scale, usual=usual)
    learned = _learned(
        direction, growing_memory, lambda count: 1.0 / (count + ANYTIME_DELAY),
        lambda count: jnp.minimum(1.0, (count + 1.0) / ANYTIME_WARMUP), scale=scale,
        usual=usual, guarded=guarded, lower_bound=lower_bound, weight_decay=weight_decay, mask=mask,
    )  # fmt: skip
    return average_params(learned)


def _learned(
    direction: optax.GradientTransformation | None,
    discount: Any,
    meta_rate: Callable[[Any], Any],
    factor: Callable[[Any], Any],
    *,
    scale: float,
    usual: float,
    guarded: bool,
    lower_bound: float,
    weight_decay: Any,
    mask: Mask | None,
) -> optax.GradientTransformationExtraArgs:
    """Return the direction with a step size that learns at ``meta_rate``, times ``factor``."""

    def pulled(slopes: Any, weights: Any) -> Any:
        def pull(slope: Any, weight: Any) -> Any:
            return slope + PULL * jnp.clip(weight - jnp.log(usual), -1.0, 1.0)

        return jax.tree.map(pull, slopes, weights)

    learner = online_control(
        StepSize(jnp.log(scale * usual)),
        optax.chain(
            by_log_loss(lower_bound, decay=LOSS_DECAY),
            optax.scale_by_adam(),
            optax.stateless(pulled),
            optax.scale_by_schedule(lambda count: -meta_rate(count)),
        ),
        optax.scale_by_adam(nesterov=True) if direction is None else direction,
        discount=discount,
        weight_decay=weight_decay,
        mask=mask,
    )
    whole = optax.chain(learner, optax.scale_by_schedule(factor))
    if not guarded:
        return whole
    return guard(whole, lower_bound=lower_bound, restart=restart_learning, keep_best=False)
