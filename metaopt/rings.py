"""Rings: the last few values of a tree, the oldest of which the next one overwrites.

XLA updates an array in place only if nothing reads it before. So a ring is written first and then
read, and has room for all that is read, the newest included. And a row is flat: with the leaf's own
shape XLA may keep an array in two layouts, and copy all of it at every step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def make_rings(tree: Any, slots: int, dtype: Callable[[Any], Any] = jnp.result_type) -> Any:
    """Return a ring of zeros for each leaf, (slots, leaf.size).

    Args:
        tree: Arrays, or their shapes and dtypes.
        slots: How many values a ring holds.
        dtype: From a leaf to the dtype of its ring.
    """
    return jax.tree.map(lambda leaf: jnp.zeros((slots, leaf.size), dtype(leaf)), tree)


def write_rings(rings: Any, tree: Any, slot: Any) -> Any:
    """Return the rings with ``tree`` in row ``slot``."""
    return jax.tree.map(
        lambda ring, leaf: jax.lax.dynamic_update_index_in_dim(
            ring, _cast(leaf.ravel(), ring.dtype), slot, 0
        ),
        rings,
        tree,
    )


def _cast(leaf: Any, dtype: Any) -> Any:
    return leaf if leaf.dtype == dtype else leaf.astype(dtype)  # typed keys cannot be cast


def read_rings(rings: Any, slot: Any, like: Any) -> Any:
    """Return what is in row ``slot``, with the shapes of ``like``."""
    return jax.tree.map(
        lambda ring, leaf: jax.lax.dynamic_index_in_dim(ring, slot, keepdims=False).reshape(
            leaf.shape
        ),
        rings,
        like,
    )
