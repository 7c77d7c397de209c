"""One function for the optimizer that a training run needs."""

from typing import Any

import optax

from .long_memory import anytime_optimizer, long_memory_optimizer
from .recipes import fixed_batch_optimizer


def self_tuning_optimizer(
    steps: Any = None, *, fixed_batch: bool = False, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that learns the size of its steps while it trains.

    It is one of three:

    * :func:`~metaopt.long_memory_optimizer` where the length of the run is known: it anneals to
      zero at the end of the run, and is the best of the three on changing batches;
    * :func:`~metaopt.anytime_optimizer` where it is not: an average of the parameters is evaluated;
    * :func:`~metaopt.fixed_batch_optimizer` on one batch, or on any loss without noise, which needs
      no length.

    Of all three, ``update`` takes the loss: ``update(grads, state, params, value=loss)``.
    ``metaopt.evaluation_params(state, params)`` returns the parameters to evaluate and to save: the
    average where there is one, ``params`` otherwise.

    Args:
        steps: The number of steps of the run, at least 1; ``None``: not known.
        fixed_batch: Whether all gradients are of the same loss, without noise.
        options: Keywords of the function above; all three have ``scale``, ``guarded``,
            ``lower_bound``, ``weight_decay`` and ``mask``. Weights decay by 0.1 on changing
            batches, and not at all on a fixed one.

    Raises:
        ValueError: ``steps`` is given with ``fixed_batch``, or an option is out of its range.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> tx = self_tuning_optimizer(fixed_batch=True)
        >>> x = jnp.array([3.0, -4.0])
        >>> state = tx.init(x)
        >>> for _ in range(60):
        ...     loss, grads = jax.value_and_grad(lambda x: (x @ x) / 2)(x)
        ...     updates, state = tx.update(grads, state, x, value=loss)
        ...     x = optax.apply_updates(x, updates)
        >>> print(bool(loss < 1e-4))
        True
    """
    if fixed_batch and steps is not None:
        raise ValueError(f"`steps` must be None on a fixed batch, which needs none; got {steps!r}.")
    if fixed_batch:
        return fixed_batch_optimizer(**options)
    if steps is None:
        return anytime_optimizer(**options)
    return long_memory_optimizer(steps, **options)
