"""Rings: the last few values of a tree, the oldest of which the next one overwrites.

XLA updates an array in place only if nothing reads it before, as far as it can tell. So a ring is
written first and then read, and has room for all rows that a step reads, the newest included. When
a row must be read before it is overwritten, :func:`after` forces that order.

Where there is one device, a row is flat: with the leaf's own shape XLA may keep an array in two
layouts, and copy all of it at every step. Where there are several, a row has the shape of its leaf,
so that it can be split over them in the same way. Only :func:`make_rings` decides which.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .meshes import reshard
from .precision import cast


def make_rings(tree: Any, slots: int, dtype: Callable[[Any], Any] = jnp.result_type) -> Any:
    """Return a ring of zeros for each leaf, (slots, leaf.size) or (slots, *leaf.shape).

    Args:
        tree: Arrays, or their shapes and dtypes.
        slots: The number of rows.
        dtype: A function from a leaf to the dtype of its ring.
    """
    if jax.device_count() == 1:
        return jax.tree.map(lambda leaf: jnp.zeros((slots, leaf.size), dtype(leaf)), tree)
    return jax.tree.map(lambda leaf: zero_rows(leaf, slots, dtype(leaf)), tree)


def zero_rows(leaf: Any, count: int, dtype: Any) -> jax.Array:
    """Return zeros (count, *leaf.shape), which lie on devices as the leaf does."""
    return jax.lax.broadcast(jnp.zeros_like(leaf, dtype), (count,))


def write_rings(rings: Any, tree: Any, slot: Any) -> Any:
    """Return the rings with ``tree`` in row ``slot``."""

    def one(ring: jax.Array, leaf: Any) -> jax.Array:
        row = reshard(as_row(leaf, ring), ring, axes=1)
        return jax.lax.dynamic_update_index_in_dim(ring, cast(row, ring.dtype), slot, 0)

    return jax.tree.map(one, rings, tree)


def as_row(leaf: Any, rows: Any) -> Any:
    """Return ``leaf`` with the shape of each of ``rows``."""
    return leaf.reshape(rows.shape[1:])


def after(known: Any, tree: Any) -> Any:
    """Return ``tree``, in such a way that XLA cannot have it before it has ``known``.

    What ``known`` was read from may then be overwritten with it. An optimization barrier would say
    so, but XLA's CPU backend drops it before it decides what to copy. So every number of ``tree``
    is multiplied by 1, made of ``known`` in a way that no compiler sees through; that is exact, and
    one multiplication in a loop that waits for memory.
    """
    finite = jnp.isfinite(jnp.sum(jax.tree.leaves(known)[0][0]))
    one = 1.0 + 0.0 * finite.astype(jnp.float32)
    return jax.tree.map(lambda leaf: leaf * one.astype(leaf.dtype), tree)


def read_rings(rings: Any, slot: Any, like: Any) -> Any:
    """Return row ``slot``, with the shapes and shardings of ``like``."""

    def one(ring: jax.Array, leaf: Any) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(ring, slot, keepdims=False)
        return reshard(row.reshape(leaf.shape), leaf)

    return jax.tree.map(one, rings, like)
