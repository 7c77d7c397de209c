"""One dtype policy for parameter-like trees.

Histories, iterates and adjoints are float32 if the parameters are narrower. Updates are cast back
to the dtypes of the gradients. Numbers shared by all parameters, such as weights of a controller,
are real: float64 if a parameter is, else float32.
"""

from typing import Any

import jax
import jax.numpy as jnp


def widen(tree: Any) -> Any:
    """Return ``tree`` with its leaves cast to float32 or wider."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, wide_dtype(leaf)), tree)


def narrow(tree: Any, like: Any) -> Any:
    """Return ``tree`` with the dtypes of the leaves of ``like``."""
    return jax.tree.map(lambda leaf, other: leaf.astype(jnp.result_type(other)), tree, like)


def wide_dtype(leaf: Any) -> Any:
    """Return the dtype that :func:`widen` gives ``leaf``."""
    return jnp.promote_types(jnp.result_type(leaf), jnp.float32)


def real_dtype(tree: Any) -> Any:
    """Return the dtype of numbers that describe ``tree``: real, and as wide as its widest leaf."""
    leaves = map(wide_dtype, jax.tree.leaves(tree))
    return jnp.result_type(jnp.float32, *(jnp.finfo(leaf).dtype for leaf in leaves))


def cast(leaf: Any, dtype: Any) -> Any:
    """Return ``leaf`` with a dtype; unchanged if it has it, as typed keys cannot be cast."""
    return leaf if leaf.dtype == dtype else leaf.astype(dtype)
