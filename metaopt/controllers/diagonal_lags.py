"""Diagonal lags: a controller with one number for each lag and parameter."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..xla.meshes import reshard
from ..xla.precision import real_dtype, wide_dtype
from ..xla.rings import read_rings, zero_rows
from .base import Controller, check_real, initial_weights
from .lags import LagMemory, Lags, count_slots


@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalLags(Lags):
    r"""One number for each lag and parameter: :math:`u_t = \sum_h M_h \odot w_{t-h}`.

    The memory is that of :class:`~metaopt.ScalarLags`. The weights are H parameter-sized arrays,
    and the meta-optimizer keeps as much again for each of its moments.

    Attributes:
        weights: The initial M, a tree of leaves (H, *leaf.shape), newest lag first, or one array
            (H, d) with the leaves one after another; ``None`` for zeros.
    """

    weights: Any = None
    family = "diagonal_lags"

    def init(self, params: Any, history: int) -> Controller:
        """Return the controller with M as a tree of leaves (H, *leaf.shape).

        Raises:
            ValueError: A parameter is complex, or the weights have another shape.
        """
        check_real(params, "DiagonalLags")
        zeros = jax.tree.map(lambda leaf: zero_rows(leaf, history, wide_dtype(leaf)), params)
        given = self.weights
        if given is None:
            return self.with_weights(zeros)
        sizes = [leaf.size for leaf in jax.tree.leaves(params)]
        structure = jax.tree.structure(params)
        whole = isinstance(given, jax.Array) and jnp.size(given) == history * sum(sizes)
        if whole and len(given) == history:  # as files have it, or a bare array's
            given = given.reshape(history, -1)
        if whole or jax.tree.structure(given) != structure:
            given = initial_weights(given, (history, sum(sizes)), real_dtype(params))
            ends = list(itertools.accumulate(sizes))
            parts = [given[:, end - size : end] for end, size in zip(ends, sizes, strict=True)]
            shapes = [leaf.shape for leaf in jax.tree.leaves(zeros)]
            parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
            given = jax.tree.unflatten(structure, parts)
        return self.with_weights(
            jax.tree.map(
                lambda m, like: reshard(initial_weights(m, like.shape, like.dtype), like),
                given,
                zeros,
            )
        )

    def controls(self, memory: LagMemory, count: int, like: Any) -> list[Any]:
        """Add up products lag by lag: one pass over M and the ring for any count."""

        def add(lag: Any, sums: list[Any]) -> list[Any]:
            m = _row(self.weights, lag)
            past = [_row_of_age(memory, lag + i, like) for i in range(count)]
            return [
                jax.tree.map(lambda s, m, w: s + m * w, total, m, rows)
                for total, rows in zip(sums, past, strict=True)
            ]

        zero = jax.tree.map(
            lambda m, ring: jnp.zeros_like(m[0], jnp.promote_types(m.dtype, wide_dtype(ring))),
            self.weights,
            memory.rows,
        )
        # A loop, because a sum along the axis of the lags takes XLA's CPU backend 35 times as long.
        return jax.lax.fori_loop(0, self.history, add, [zero] * count)

    def meta_gradient(self, memory: LagMemory, adjoints: Sequence[Any], ago: int = 1) -> Any:
        r"""Return :math:`-\sum_i \lambda_i \odot w_{t-ago-i-h}` for each h."""

        def write(lag: Any, slope: Any) -> Any:
            parts = [
                jax.tree.map(lambda a, w: a * w, adjoint, _row_of_age(memory, lag + i, adjoint))
                for i, adjoint in enumerate(adjoints, start=ago)
            ]
            row = jax.tree.map(lambda *leaves: -functools.reduce(jnp.add, leaves), *parts)
            return jax.tree.map(
                lambda rows, new: jax.lax.dynamic_update_index_in_dim(
                    rows, new.astype(rows.dtype), lag, 0
                ),
                slope,
                row,
            )

        # Row by row: to bring the whole ring into order, it would have to be copied.
        zeros = jax.tree.map(jnp.zeros_like, self.weights)
        return jax.lax.fori_loop(0, self.history, write, zeros)

    def steady_control(self, disturbance: Any) -> Any:
        r"""Return :math:`(\sum_h M_h) \odot w`."""
        return jax.tree.map(lambda m, w: m.sum(axis=0) * w, self.weights, disturbance)


def _row(tree: Any, index: Any) -> Any:
    """Return row ``index`` of every leaf."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree
    )


def _row_of_age(memory: LagMemory, age: Any, like: Any) -> Any:
    """Return the disturbance of ``age`` steps ago, with the shapes of ``like``."""
    slot = jnp.remainder(memory.newest - age, count_slots(memory))
    rows = read_rings(memory.rows, slot, like)
    return jax.tree.map(lambda row: row.astype(wide_dtype(row)), rows)
