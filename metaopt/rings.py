"""Rings: the last few values of a tree, the oldest of which the next one overwrites.

XLA updates an array in place only if nothing reads it before, as far as it can tell. So a ring is
written first and then read, and has room for all that is read, the newest included; and what must
be read first is written :func:`after`. A row is flat: with the leaf's own shape XLA may keep an
array in two layouts, and copy all of it at every step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metaopt.precision import cast


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
            ring, cast(leaf.ravel(), ring.dtype), slot, 0
        ),
        rings,
        tree,
    )


def after(known: Any, tree: Any) -> Any:
    """Return ``tree``, in such a way that XLA cannot have it before it has ``known``.

    What ``known`` was read from may then be overwritten with it. An optimization barrier would say
    so, but XLA's CPU backend drops it before it decides what to copy. So every number of ``tree``
    is multiplied by 1, made of ``known`` in a way that no compiler sees through; that is exact, and
    one multiplication in a loop that waits for memory.
    """
    finite = jnp.isfinite(jax.tree.leaves(known)[0].ravel()[0])
    one = 1.0 + 0.0 * finite.astype(jnp.float32)
    return jax.tree.map(lambda leaf: leaf * one.astype(leaf.dtype), tree)


def read_rings(rings: Any, slot: Any, like: Any) -> Any:
    """Return what is in row ``slot``, with the shapes of ``like``."""
    return jax.tree.map(
        lambda ring, leaf: jax.lax.dynamic_index_in_dim(ring, slot, keepdims=False).reshape(
            leaf.shape
        ),
        rings,
        like,
    )
