"""Norms of products of the transitions that a training run meets: the paper's stability."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaopt.theory.dynamics import interval_norms, mean_hessian
from metaopt.theory.reduction import DataLoss


def stability_norms(
    loss: DataLoss,
    start: Float[Array, " d"],
    data: Any,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    beta: float,
    gradient_age: int = 1,
) -> Float[np.ndarray, "starts lengths"]:
    """Train without controls and return the norms of the products of the transitions met.

    The loss is regularised around the start with weight ``beta``, as in the first epoch of
    Algorithm 2. Costs two Hessians a step, because steps are short, then
    :func:`~metaopt.theory.dynamics.interval_norms`.
    Compiles once for each ``loss``: put differences between runs into ``data``.

    Args:
        loss: ``loss(x, data)``.
        start: x_1.
        data: Given to every call of the loss.
        steps: Number of transitions.
        learning_rate: eta.
        weight_decay: delta.
        beta: Weight of the regulariser.
        gradient_age: 1 for the printed system, 0 for Algorithm 7's.

    Raises:
        FloatingPointError: Training diverged; says at which step.
    """
    first = np.asarray(start, np.float64)

    def gradient(x: np.ndarray) -> np.ndarray:
        slope = np.asarray(_gradient(loss)(jnp.asarray(x, start.dtype), data), np.float64)
        return slope + 2 * beta * (x - first)

    def hessian(x: np.ndarray) -> np.ndarray:
        bare = np.asarray(_hessian(loss)(jnp.asarray(x, start.dtype), data), np.float64)
        return bare + 2 * beta * np.eye(len(x))

    before = point = first
    slope, hessians = gradient(first), []
    for step in range(steps):
        with np.errstate(over="ignore", invalid="ignore"):  # found by the next line
            hessians.append(mean_hessian(hessian, before, point, nodes=2))
            if not np.all(np.isfinite(hessians[-1])):
                raise FloatingPointError(f"training diverged by step {step + 1}")
            fresh = gradient(point)
            used = slope if gradient_age == 1 else fresh
            moved = (1 - weight_decay) * point - learning_rate * used
        before, point, slope = point, moved, fresh
    return interval_norms(np.stack(hessians), learning_rate, weight_decay, gradient_age)


@functools.lru_cache(maxsize=8)
def _gradient(loss: DataLoss) -> Callable[[Array, Any], Array]:
    return jax.jit(jax.grad(loss))


@functools.lru_cache(maxsize=8)
def _hessian(loss: DataLoss) -> Callable[[Array, Any], Array]:
    return jax.jit(jax.hessian(loss))
