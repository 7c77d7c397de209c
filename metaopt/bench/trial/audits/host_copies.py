"""Copies of pytrees on the host, and back."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class OnHost:
    """An array, copied to the host."""

    array: np.ndarray
    sharding: Any
    key_type: Any = None  # of a typed random key


def to_host(tree: Any) -> Any:
    """Copy the arrays of a pytree to the host: a step may donate them."""

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        if not isinstance(leaf, jax.Array):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = np.array(jax.random.key_data(leaf))
            return OnHost(data, leaf.sharding, jax.random.key_impl(leaf))
        return OnHost(np.array(leaf), leaf.sharding)

    return jax.tree.map(copy, tree)


def to_device(tree: Any) -> Any:
    """Return what :func:`to_host` was given, as new arrays."""

    def restore(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        if not isinstance(leaf, OnHost):
            return leaf
        array = jnp.array(leaf.array)  # a copy: it may be donated
        if len(leaf.sharding.device_set) > 1:
            array = jax.device_put(array, leaf.sharding)
        return jax.random.wrap_key_data(array, impl=leaf.key_type) if leaf.key_type else array

    return jax.tree.map(restore, tree)


def arrays_of(tree: Any) -> Any:
    """Return the copied arrays themselves."""
    return jax.tree.map(lambda leaf: leaf.array if isinstance(leaf, OnHost) else leaf, tree)
