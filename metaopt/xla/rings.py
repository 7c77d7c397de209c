"""Rings: buffers of the last few values of a tree; each new value overwrites the oldest.

XLA updates an array in place only if it can tell that no earlier read remains. We therefore write
before we read, and size the ring to hold every row that a step reads. When a row must be read
before it is overwritten, :func:`after` forces that order.

On one device, a row is flat: with the leaf's own shape, XLA may keep an array in two layouts and
copy it at every step. On several devices, a row has the shape of its leaf, so that it can be
sharded like the leaf. :func:`make_rings` makes this choice.
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
    """Return zeros (count, *leaf.shape), sharded like the leaf."""
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
    """Return ``tree`` such that XLA must compute ``known`` first.

    The buffer from which ``known`` was read may then be overwritten with ``tree``. An optimization
    barrier is not enough: XLA's CPU backend drops it before it places copies. Instead, every number
    of ``tree`` is multiplied by a 1 that is computed from ``known`` and that XLA cannot simplify.
    This is exact, and cheap because the loop waits for memory.
    """
    first = jax.tree.leaves(known)[0]
    finite = jnp.isfinite(jnp.sum(first[0] if first.ndim else first))
    one = 1.0 + 0.0 * finite.astype(jnp.float32)
    return jax.tree.map(lambda leaf: leaf * one.astype(leaf.dtype), tree)


def read_rings(rings: Any, slot: Any, like: Any) -> Any:
    """Return row ``slot``, with the shapes and shardings of ``like``."""

    def one(ring: jax.Array, leaf: Any) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(ring, slot, keepdims=False)
        return reshard(row.reshape(leaf.shape), leaf)

    return jax.tree.map(one, rings, like)
