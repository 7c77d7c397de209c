"""Random streams, equal to those of AlgoPerf's external tuning, but from few calls.

AlgoPerf splits a self-tuning run's seed once less. Here every ruleset gets the same streams, or
self-tuning contenders would not be paired with the others.

Numbers depend on seeds alone, not on the environment: code that makes or uses keys runs inside
:func:`pinned_randomness`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK = 256  # steps whose keys come from one call


@contextlib.contextmanager
def pinned_randomness() -> Iterator[None]:
    """Make JAX's keys in the block as AlgoPerf's runner does, whatever JAX is configured to.

    Keys are raw and of Threefry, their use is partitionable, and nothing is added to seeds. May
    decorate a function.
    """
    # The only one without a context of its own; it is defined where a type checker cannot see.
    offset = jax.config.jax_random_seed_offset  # pyright: ignore[reportAttributeAccessIssue]
    with (
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.enable_custom_prng(False),
        jax.legacy_prng_key("allow"),
    ):
        jax.config.update("jax_random_seed_offset", 0)
        try:
            yield
        finally:
            jax.config.update("jax_random_seed_offset", offset)


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
