"""Full lags: a controller with one matrix for each lag, for small problems."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..xla.meshes import everywhere, reshard
from ..xla.precision import real_dtype, wide_dtype
from .base import Controller, check_real, initial_weights
from .lags import LagMemory, Lags, row_ages


@dataclasses.dataclass(frozen=True, eq=False)
class FullLags(Lags):
    r"""One matrix for each lag: :math:`u_t = \sum_h M_h w_{t-h}`, the paper's Algorithm 1.

    The weights are H d^2 numbers, and the meta-optimizer keeps as much again for each of its
    moments: for small problems only. Parameters and disturbances are vectors here, their leaves one
    after another.

    Attributes:
        weights: The initial M, shape (H, d, d), newest lag first; ``None`` for zeros.
        limit_bytes: The largest size of the weights; ``init`` refuses larger ones.
    """

    weights: Any = None
    limit_bytes: int = 2**30
    family = "full_lags"

    def init(self, params: Any, history: int) -> Controller:
        """Return the controller with M of shape (H, d, d).

        Raises:
            ValueError: A parameter is complex, the weights have another shape, or M would be larger
                than the limit.
        """
        check_real(params, "FullLags")
        size, dtype = sum(leaf.size for leaf in jax.tree.leaves(params)), real_dtype(params)
        needed = dtype.itemsize * history * size**2
        if needed > self.limit_bytes:
            raise ValueError(
                f"`controller` needs {history} matrices of {size:,} x {size:,}: "
                f"{needed / 2**30:,.1f} GiB, above its limit of {self.limit_bytes / 2**30:g} GiB "
                "(FullLags(limit_bytes=...)). Scalar or diagonal lags need no matrices."
            )
        return self.with_weights(initial_weights(self.weights, (history, size, size), dtype))

    def controls(self, memory: LagMemory, count: int, like: Any) -> list[Any]:
        """Return the sums of products, newest first."""
        history, past = self.history, _vectors_by_age(memory)
        # One product for each lag, then their sum: as a single product XLA would copy all of M.
        sums = [
            jnp.einsum("hij,hj->hi", self.weights, past[i : i + history], precision="highest").sum(
                0
            )
            for i in range(count)
        ]
        return [_as_tree(vector, like) for vector in sums]

    def meta_gradient(
        self, memory: LagMemory, adjoints: Sequence[Any], ago: int = 1
    ) -> Float[Array, "history d d"]:
        r"""Return :math:`-\sum_i \lambda_i w_{t-ago-i-h}^\top` for each h."""
        history, past = self.history, _vectors_by_age(memory)
        parts = [
            jnp.einsum("i,hj->hij", _as_vector(adjoint), past[i : i + history])
            for i, adjoint in enumerate(adjoints, start=ago)
        ]
        return -functools.reduce(jnp.add, parts).astype(self.weights.dtype)

    def steady_control(self, disturbance: Any) -> Any:
        r"""Return :math:`(\sum_h M_h) w`."""
        total = jnp.einsum("hij,j->i", self.weights, _as_vector(disturbance), precision="highest")
        return _as_tree(total, disturbance)


def _vectors_by_age(memory: LagMemory) -> Float[Array, "slots d"]:
    """Return the rows from the newest to the oldest, leaves one after another."""
    rings = [everywhere(ring).reshape(len(ring), -1) for ring in jax.tree.leaves(memory.rows)]
    return jnp.concatenate([r.astype(wide_dtype(r)) for r in rings], axis=1)[row_ages(memory)]


def _as_vector(tree: Any) -> Float[Array, " d"]:
    return jnp.concatenate([everywhere(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def _as_tree(vector: Float[Array, " d"], like: Any) -> Any:
    """Return a vector of leaves one after another as a tree shaped like ``like``."""
    leaves, structure = jax.tree.flatten(like)
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    parts = [
        reshard(vector[end - leaf.size : end].reshape(leaf.shape), leaf)
        for end, leaf in zip(ends, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)
