"""A computation that returns at once and keeps the device busy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(scope="session")
def later() -> Callable[[jax.Array], jax.Array]:
    """The identity, some 10 ms after it was called, on one core; a callback would not be queued."""

    @jax.jit
    def identity(x: jax.Array) -> jax.Array:
        matrix = jnp.full((64, 64), 1e-3) + 0 * x.sum()
        end = jax.lax.fori_loop(0, 2000, lambda _, m: jnp.tanh(m @ m), matrix)
        return x + 0 * end[0, 0]

    jax.block_until_ready(identity(jnp.ones(2)))
    return identity
