r"""An average of the parameters to evaluate, beside those that are trained.

Letters:

    x_t  the parameters after t steps
    y_t  their average
    r    how much later parameters count more
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from .arguments import as_parameters, is_known


class AverageState(NamedTuple):
    """State of :func:`average_params`."""

    inner: Any  # state of the optimizer
    average: PyTree  # y_t
    count: Int[Array, ""]  # t


def average_params(
    inner: optax.GradientTransformation, power: float = 8.0
) -> optax.GradientTransformationExtraArgs:
    r"""Keep an average of the parameters of any optimizer, in which later ones count more.

    .. math:: y_t = y_{t-1} + \frac{r + 1}{t + r} (x_t - y_{t-1})

    In it :math:`x_i` has a weight that grows like :math:`i^r`, so it always spans the same share of
    the run, however long that is. It replaces a schedule that anneals the steps, and r = 0 is the
    mean of all parameters. The updates are those of ``inner``.

    Costs one copy of the parameters. :func:`evaluation_params` finds it.

    Args:
        inner: Any optax optimizer, whose updates reach the parameters as they are.
        power: r, at least 0.

    Raises:
        ValueError: ``power`` is negative; or, from ``update``, the parameters are missing.

    Examples:
        >>> tx = average_params(optax.sgd(1.0), power=0.0)
        >>> x, state = jnp.zeros(()), tx.init(jnp.zeros(()))
        >>> for _ in range(3):
        ...     updates, state = tx.update(-jnp.ones(()), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> print(x, evaluation_params(state, x))
        3.0 2.0

    References:
        Shamir and Zhang, `Stochastic Gradient Descent for Non-smooth Optimization
        <https://arxiv.org/abs/1212.1824>`_, 2013, polynomial-decay averaging.
    """
    if is_known(power) and not power >= 0:
        raise ValueError(f"`power` must be at least 0, got {power!r}.")
    averaged = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> AverageState:
        params = as_parameters(params)
        copies = jax.tree.map(jnp.copy, params)
        return AverageState(averaged.init(params), copies, jnp.zeros((), jnp.int32))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, AverageState]:
        if params is None:
            raise ValueError("`params` must be passed to update(): average_params needs them.")
        steps, inner_state = averaged.update(updates, state.inner, params, **extra_args)
        count = state.count + 1
        share = (power + 1.0) / (count + power)
        average = jax.tree.map(
            lambda y, x: (y + share * (x - y)).astype(y.dtype),
            state.average,
            optax.apply_updates(params, steps),
        )
        return steps, AverageState(inner_state, average, count)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def evaluation_params(state: Any, params: optax.Params) -> optax.Params:
    """Return the parameters to evaluate: the average in an optimizer's state, or ``params``.

    Args:
        state: The state of any optimizer, with that of :func:`average_params` anywhere in it, or
            without one.
        params: The parameters that are trained.
    """

    def is_average(part: Any) -> bool:
        return isinstance(part, AverageState)

    found = [part for part in jax.tree.leaves(state, is_leaf=is_average) if is_average(part)]
    return found[0].average if found else params
