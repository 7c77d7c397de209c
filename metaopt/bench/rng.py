"""Random streams, equal to those of AlgoPerf's external tuning, but from few calls.

AlgoPerf splits a self-tuning run's seed once less. Here every ruleset gets the same streams, or
self-tuning contenders would not be paired with the others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK = 256  # steps whose keys come from one call


class TrialKeys(NamedTuple):
    """The streams of one trial; each a raw key, shape (2,), uint32."""

    data: jax.Array
    optimizer: jax.Array
    model: jax.Array
    steps: jax.Array


def trial_keys(seed: int) -> TrialKeys:
    """Split a trial's seed."""
    rng = jax.random.split(jax.random.PRNGKey(seed), 2)[0]
    return TrialKeys(*jax.random.split(rng, 4))


def step_keys(rng: jax.Array) -> Callable[[int], np.ndarray]:
    """Return a function from a step to its four keys, (4, 2): select, update, prepare, evaluate.

    Equal to ``split(fold_in(rng, step), 4)``, computed for many steps at once.
    """
    chunk: tuple[int, np.ndarray] | None = None

    def keys(step: int) -> np.ndarray:
        nonlocal chunk
        index, offset = divmod(step, _CHUNK)
        if chunk is None or chunk[0] != index:
            chunk = index, np.asarray(_chunk_keys(rng, index * _CHUNK))
        return chunk[1][offset]

    return keys


@jax.jit
def _chunk_keys(rng: jax.Array, start: Any) -> jax.Array:
    steps = start + jnp.arange(_CHUNK)
    return jax.vmap(lambda step: jax.random.split(jax.random.fold_in(rng, step), 4))(steps)
