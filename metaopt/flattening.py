"""One flat vector for a parameter-like tree, with one dtype policy.

Histories, iterates and adjoints are vectors of size d. They are float32, or float64 if any
parameter is, whatever the parameters' own dtypes; what goes back into a tree is cast to its leaves'
dtypes.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Flattener:
    """Converts between trees shaped like ``params`` and vectors; holds no arrays."""

    def __init__(self, params: Any) -> None:
        leaves, self._structure = jax.tree.flatten(params)
        self._shapes = [jnp.shape(leaf) for leaf in leaves]
        self._dtypes = [jnp.result_type(leaf) for leaf in leaves]
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self.size = sum(self._sizes)
        wide = any(dtype == jnp.float64 for dtype in self._dtypes)
        self.dtype = jnp.dtype(jnp.float64 if wide else jnp.float32)

    def flatten(self, tree: Any) -> Float[Array, " d"]:
        """Return the leaves of ``tree`` one after another."""
        leaves = self._structure.flatten_up_to(tree)
        return jnp.concatenate([jnp.ravel(leaf).astype(self.dtype) for leaf in leaves])

    def unflatten(self, vector: Float[Array, " d"]) -> Any:
        """Return ``vector`` as a tree."""
        leaves, start = [], 0
        for shape, dtype, size in zip(self._shapes, self._dtypes, self._sizes, strict=True):
            part = jax.lax.slice_in_dim(vector, start, start + size)
            leaves.append(part.reshape(shape).astype(dtype))
            start += size
        return jax.tree.unflatten(self._structure, leaves)
