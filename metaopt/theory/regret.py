"""Regret and how fast it grows.

regret(T)  cost of what was played in rounds 1..T, minus that of the best fixed choice for them
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def sample_sphere(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Return a uniform draw from the arrays of this shape with Frobenius norm 1."""
    normal = jax.random.normal(key, shape)
    return normal / jnp.linalg.norm(normal.ravel())


def growth_exponent(rounds: Float[np.ndarray, " n"], regrets: Float[np.ndarray, " n"]) -> float:
    r"""Return the slope of :math:`\log` regret against :math:`\log` rounds, by least squares.

    Below 1, the average regret vanishes.

    Raises:
        ValueError: A regret is not positive, so it has no logarithm.
    """
    if not np.all(np.asarray(regrets) > 0):
        raise ValueError(f"`regrets` must be positive to have a growth exponent, got {regrets}.")
    return float(np.polyfit(np.log(rounds), np.log(regrets), 1)[0])
