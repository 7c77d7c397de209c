r"""Scale-free disturbances and scale-free meta-gradients, as optax transformations.

Letters:

    f_t    loss at step t, handed to ``update`` as ``value``
    g_t    its gradient
    f*     floor: the lowest possible loss
    h_t    direction: g_t, or the preconditioned g_t
    w_t    disturbance
    s_t    gradient of the loss by the controller's weights W

If disturbances shrink with the gradient, the controller must grow during training, and the size of
its initial weights depends on the problem. With these disturbances a weight of 1 is a sensible step
throughout.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from .arguments import as_loss, as_parameters, check_whole, is_known
from .steps import as_transformation
from .xla.precision import real_dtype, wide_dtype

_LEAST_SHARE = 0.1  # the least divisor, as a share of the mean gap


class PolyakState(NamedTuple):
    """State of :func:`scale_by_polyak`."""

    preconditioner: Any  # its state
    factor: Float[Array, ""]  # of h_t in the last w_t


def scale_by_polyak(
    floor: float = 0.0, preconditioner: optax.GradientTransformation | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scale a gradient to Polyak's step, for losses whose floor is known.

    .. math:: w_t = \frac{f_t - f^*}{\langle g_t, h_t \rangle} \, h_t

    The linear model :math:`f_t + \langle g_t, x - x_t \rangle` reaches the floor at ``x_t - w_t``.
    The result is zero if the loss is at or below the floor, or h_t is not a descent direction. Pass
    the loss to ``update`` as ``value``. Costs one pass over the gradient, and no state besides the
    preconditioner's. ``optax.scale_by_polyak`` instead has a largest step and no preconditioner.

    Args:
        floor: f*. If it is too high, training stops there; if it is too low, steps near the end
            are too long: see :func:`scale_by_level`.
        preconditioner: The transformation from g_t to h_t, such as :func:`scale_by_rms`; by
            default h_t is g_t. Its scale does not matter.

    Examples:
        >>> tx = scale_by_polyak()
        >>> x = jnp.array([3.0, 4.0])  # f = |x|^2 / 2
        >>> w, _ = tx.update(x, tx.init(x), value=jnp.array(12.5))
        >>> print(w)  # half the way
        [1.5 2. ]

    References:
        Polyak, *Introduction to Optimization*, 1987, section 5.3.
    """
    shape = as_transformation(preconditioner)

    def init_fn(params: Any) -> PolyakState:
        params = as_parameters(params)
        return PolyakState(shape.init(params), jnp.zeros((), real_dtype(params)))

    def update_fn(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> tuple[Any, PolyakState]:
        gap = as_loss(value, "scale_by_polyak") - floor
        direction, inner = shape.update(
            updates, state.preconditioner, params, value=value, **extra_args
        )
        disturbance, factor = _polyak(updates, direction, gap)
        return disturbance, PolyakState(inner, factor.astype(state.factor.dtype))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _polyak(gradient: Any, direction: Any, gap: Any) -> tuple[Any, Array]:
    """Return ``max(gap, 0) h / <g, h>``, and the factor of h in it."""

    def product(g: Array, h: Array) -> Array:
        return jnp.sum(jnp.real(jnp.conj(g.astype(wide_dtype(g))) * h.astype(wide_dtype(h))))

    products = jax.tree.leaves(jax.tree.map(product, gradient, direction))
    slope = functools.reduce(jnp.add, products, jnp.zeros((), real_dtype(gradient)))
    falls = slope > 0
    factor = jnp.where(falls, jnp.maximum(gap, 0.0) / jnp.where(falls, slope, 1.0), 0.0)
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), direction), factor


def direction_factor(state: Any) -> Any:
    """Return the factor of h_t in the last disturbance: Polyak's, 1 without him.

    Args:
        state: The state of the disturbance's transformation, with that of :func:`scale_by_polyak`
            or of :func:`scale_by_level` anywhere in it.
    """
    parts = jax.tree.leaves(state, is_leaf=_is_polyak)
    return math.prod(part.factor for part in parts if _is_polyak(part))


def _is_polyak(part: Any) -> bool:
    return isinstance(part, PolyakState | LevelState)


class LevelState(NamedTuple):
    """State of :func:`scale_by_level`."""

    record: Float[Array, ""]  # the lowest loss so far
    start: Float[Array, ""]  # the record when the gap was last set
    gap: Float[Array, ""]  # from the record down to the level
    steps: Int[Array, ""]  # since the gap was last set
    preconditioner: Any  # its state
    factor: Float[Array, ""]  # of h_t in the last w_t


def scale_by_level(
    lower_bound: float = 0.0,
    preconditioner: optax.GradientTransformation | None = None,
    *,
    patience: int = 10,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale a gradient to Polyak's step towards an adaptive level instead of a known floor.

    .. math:: w_t = \frac{f_t - (f_{rec} - \delta)}{\langle g_t, h_t \rangle} \, h_t

    where :math:`f_{rec}`, the record, is the lowest loss so far and :math:`\delta` is the gap down
    to the level. The first level is the lower bound. If the record falls by half the gap, the gap
    doubles, but the level stays at or above the bound; if it does not within ``patience`` + 1
    steps, the gap is halved. While the loss halves in time, the steps are those of
    :func:`scale_by_polyak` with the bound as the floor. A loss that is not finite, or not above the
    bound, gives zeros; a non-finite loss is never the record.

    Args:
        lower_bound: A lower bound of the loss; 0 for cross-entropy and for squared errors.
        preconditioner: As for :func:`scale_by_polyak`.
        patience: The number of steps without progress before the gap is halved.

    Raises:
        ValueError: ``patience`` is not a positive integer.

    References:
        Goffin and Kiwiel, `Convergence of a simple subgradient level method
        <https://doi.org/10.1007/s101070050084>`_, 1999. It counts path length instead of steps,
        and its gap cannot grow again.
    """
    check_whole(patience=patience)
    shape = as_transformation(preconditioner)

    def init_fn(params: Any) -> LevelState:
        params = as_parameters(params)
        # Separate arrays, because a shared one could not be donated.
        record, start, gap = (jnp.full((), jnp.inf, real_dtype(params)) for _ in range(3))
        steps, factor = jnp.zeros((), jnp.int32), jnp.zeros((), real_dtype(params))
        return LevelState(record, start, gap, steps, shape.init(params), factor)

    def update_fn(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> tuple[Any, LevelState]:
        loss = as_loss(value, "scale_by_level").astype(state.record.dtype)
        direction, inner = shape.update(
            updates, state.preconditioner, params, value=value, **extra_args
        )
        finite = jnp.isfinite(loss)
        record = jnp.minimum(jnp.where(finite, loss, jnp.inf), state.record)
        most = jnp.maximum(record - lower_bound, 0.0).astype(record.dtype)
        first = jnp.isinf(state.gap)
        gap = jnp.minimum(state.gap, most)
        met = state.start - record >= gap / 2
        late = state.steps >= patience
        gap = jnp.where(first, most, jnp.where(met, jnp.minimum(2 * gap, most), gap))
        gap = jnp.where(late & ~met & ~first, gap / 2, gap)
        again = first | met | late
        above = finite & (loss > lower_bound)
        disturbance, factor = _polyak(
            updates, direction, jnp.where(above, loss - (record - gap), 0.0)
        )
        return disturbance, LevelState(
            record=record,
            start=jnp.where(again, record, state.start),
            gap=gap,
            steps=jnp.where(again, 0, state.steps + 1),
            preconditioner=inner,
            factor=factor.astype(state.factor.dtype),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class RmsState(NamedTuple):
    """State of :func:`scale_by_rms`."""

    count: Int[Array, ""]  # gradients seen
    mean_squares: Any  # of each coordinate, biased towards 0


def scale_by_rms(decay: float = 0.99, eps: float = 1e-8) -> optax.GradientTransformationExtraArgs:
    r"""Divide a gradient by its root mean square, coordinate by coordinate.

    .. math:: w_t = \frac{g_t}{\sqrt{v_t / (1 - \beta^t)} + \epsilon}, \qquad
        v_t = \beta v_{t-1} + (1 - \beta) g_t^2

    The same as ``optax.scale_by_adam(b1=0)``, with one parameter-sized array instead of two.
    (``optax.scale_by_rms`` has no bias correction by default.)

    Args:
        decay: :math:`\beta`, in [0, 1).
        eps: :math:`\epsilon`, which keeps the quotient finite.

    Raises:
        ValueError: ``decay`` does not lie in [0, 1).
    """
    if is_known(decay) and not 0 <= decay < 1:
        raise ValueError(f"`decay` must lie in [0, 1), got {decay!r}.")

    def init_fn(params: Any) -> RmsState:
        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, real_dtype(p)), as_parameters(params))
        return RmsState(jnp.zeros((), jnp.int32), zeros)

    def update_fn(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, RmsState]:
        del params
        count = state.count + 1
        bias = 1.0 - decay ** count.astype(real_dtype(state.mean_squares))

        def averaged(v: Array, g: Array) -> Array:
            g = g.astype(wide_dtype(g))
            return (decay * v + jnp.real((1.0 - decay) * g * jnp.conj(g))).astype(v.dtype)

        def scaled(g: Array, v: Array) -> Array:
            return (g / (jnp.sqrt(v / bias.astype(v.dtype)) + eps)).astype(g.dtype)

        squares = jax.tree.map(averaged, state.mean_squares, updates)
        return jax.tree.map(scaled, updates, squares), RmsState(count, squares)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class LogLossState(NamedTuple):
    """State of :func:`by_log_loss`."""

    mean_gap: Float[Array, ""]  # running mean of f_t - f*; infinite before the first finite loss


def by_log_loss(floor: float = 0.0, *, decay: float = 0.0) -> optax.GradientTransformationExtraArgs:
    r"""Turn the gradient of a loss into that of its logarithm, :math:`s_t / (f_t - f^*)`.

    Use it in front of a meta-optimizer: ``optax.chain(by_log_loss(), optax.adam(0.03))``. Steps at
    a loss of 1e-4 then teach the controller as much as those at 1. Pass the loss to ``update`` as
    ``value``; a loss at or below the floor gives zeros. With recorded rollouts it is the loss at
    their end; with exact ones it is the loss of the iterate, and the quotient is not an exact
    gradient.

    Args:
        floor: f*, or a lower bound of it.
        decay: The decay of a running mean of :math:`f_t - f^*`, in [0, 1). The divisor is at least
            a tenth of that mean, so that one noisy batch close to the floor cannot outweigh all
            others. With 0, for a loss without noise, the divisor is :math:`f_t - f^*`.

    Raises:
        ValueError: ``decay`` does not lie in [0, 1).
    """
    if is_known(decay) and not 0 <= decay < 1:
        raise ValueError(f"`decay` must lie in [0, 1), got {decay!r}.")

    def init_fn(params: Any) -> LogLossState:
        as_parameters(params)
        return LogLossState(jnp.full((), jnp.inf, jnp.float32))

    def update_fn(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[Any, LogLossState]:
        del params
        gap = as_loss(value, "by_log_loss").astype(jnp.float32) - floor
        before = jnp.where(jnp.isinf(state.mean_gap), gap, state.mean_gap)
        mean = jnp.where(jnp.isfinite(gap), decay * before + (1.0 - decay) * gap, state.mean_gap)
        divisor = jnp.maximum(gap, _LEAST_SHARE * jnp.where(jnp.isfinite(mean), mean, 0.0))
        above = gap > 0
        factor = jnp.where(above, 1.0 / jnp.where(above, divisor, 1.0), 0.0)
        return jax.tree.map(lambda s: (factor * s).astype(s.dtype), updates), LogLossState(mean)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
