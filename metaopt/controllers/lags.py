"""Lags: controllers over the last H disturbances; scalar lags are the paper's family."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Inexact, Int

from ..xla.precision import real_dtype, wide_dtype
from ..xla.products import inner_products, weighted_sums
from ..xla.rings import make_rings, write_rings
from .base import Controller, initial_weights

# A control of one row is a sum over the history that XLA writes as one loop if it is spelled out:
# on its CPU backend a third faster than a dot. It costs compilation, so not beyond so many terms.
_SPELLED_OUT = 1024


class LagMemory(NamedTuple):
    """The last disturbances."""

    rows: Any  # rings, see metaopt.xla.rings
    newest: Int[Array, ""]  # slot of the newest row


class Lags(Controller):
    """The base of the families of lags, which keep a ring of the last H + L disturbances."""

    keeps_controls = True  # all controls of a rollout come out of one pass over the ring

    @property
    def history(self) -> int:
        """H: the length of the weights' first axis, 32 without weights."""
        leaves = jax.tree.leaves(self.weights)
        return jnp.shape(leaves[0])[0] if leaves and jnp.ndim(leaves[0]) else 32

    def scaled(self, factor: Any) -> Controller:
        """Return the controller with its weights multiplied by ``factor``."""
        return self.with_weights(jax.tree.map(lambda m: m * factor, self.weights))

    def init_memory(self, params: Any, rollout: int, dtype: DTypeLike | None = None) -> LagMemory:
        """Return empty rings: the disturbances before the first one are 0."""
        rows = make_rings(params, self.history + rollout, lambda leaf: dtype or wide_dtype(leaf))
        return LagMemory(rows, jnp.zeros((), jnp.int32))

    def observe(self, memory: LagMemory, disturbance: Any) -> LagMemory:
        """Return the memory with the oldest row overwritten."""
        slot = jnp.remainder(memory.newest + 1, count_slots(memory))
        return LagMemory(write_rings(memory.rows, disturbance, slot), slot)

    def accumulate(self, sums: LagMemory, memory: LagMemory, discount: Any) -> LagMemory:
        """Write the newest discounted sum over the oldest.

        A sum over the disturbances of h steps ago is the sum of h steps ago.
        """

        def newest(part: LagMemory) -> Any:
            return jax.tree.map(
                lambda ring: jax.lax.dynamic_index_in_dim(ring, part.newest, keepdims=False),
                part.rows,
            )

        added = jax.tree.map(lambda s, w: discount * s + w, newest(sums), newest(memory))
        return self.observe(sums, added)

    def merged(self) -> Controller:
        """Return the controller with the sum of all M."""
        return self.with_weights(jax.tree.map(lambda m: m.sum(axis=0), self.weights))


def count_slots(memory: LagMemory) -> int:
    """Return the number of rows in a memory, H + L."""
    return jax.tree.leaves(memory.rows)[0].shape[0]


def row_ages(memory: LagMemory) -> Int[Array, " slots"]:
    """Return the age of the row in each slot, which is also the slot of each age."""
    slots = count_slots(memory)
    return jnp.remainder(memory.newest - jnp.arange(slots, dtype=jnp.int32), slots)


@dataclasses.dataclass(frozen=True, eq=False)
class ScalarLags(Lags):
    r"""The paper's controller: one number for each lag, :math:`u_t = \sum_h M_h w_{t-h}`.

    The memory holds H + L disturbances while learning by rollouts, else H. All controls of a
    rollout come from one pass over it, and the meta-gradient from L: inner products with adjoints.

    Attributes:
        weights: The initial M, shape (H,), newest lag first; ``None`` for zeros.
    """

    weights: Any = None
    family = "scalar_lags"

    def init(self, params: Any, history: int) -> Controller:
        """Return the controller with M of shape (H,)."""
        return self.with_weights(initial_weights(self.weights, (history,), real_dtype(params)))

    def controls(self, memory: LagMemory, count: int, like: Any) -> list[Any]:
        """Multiply the ring by M in the order of its slots: reordering the ring would copy it."""
        in_slots = _in_slots(self.weights, memory, count)
        spelled_out = count == 1 and in_slots.size * len(jax.tree.leaves(like)) <= _SPELLED_OUT
        contract = _spelled_out if spelled_out else weighted_sums
        sums = jax.tree.map(lambda ring: contract(in_slots, ring), memory.rows)
        return [
            jax.tree.map(lambda s, x, i=i: s[i].reshape(x.shape), sums, like) for i in range(count)
        ]

    def meta_gradient(
        self, memory: LagMemory, adjoints: Sequence[Any], ago: int = 1
    ) -> Float[Array, " history"]:
        r"""Return :math:`-\sum_i \langle \lambda_i, w_{t-ago-i-h} \rangle` for each h."""
        history, ages = self.history, row_ages(memory)
        parts = []
        for i, adjoint in enumerate(adjoints, start=ago):
            by_leaf = jax.tree.map(inner_products, memory.rows, adjoint)
            products = functools.reduce(jnp.add, jax.tree.leaves(by_leaf))
            parts.append(products[ages][i : i + history])
        return -functools.reduce(jnp.add, parts).astype(self.weights.dtype)

    def steady_control(self, disturbance: Any) -> Any:
        r"""Return :math:`(\sum_h M_h) w`."""
        rate = self.weights.sum()
        return jax.tree.map(lambda w: rate.astype(real_dtype(w)) * w, disturbance)


def _in_slots(
    weights: Float[Array, " history"], memory: LagMemory, count: int
) -> Float[Array, "count slots"]:
    """Return the factor of the row in each slot, for the control of each i < count steps ago."""
    history = weights.shape[0]
    lags = row_ages(memory)[None] - jnp.arange(count, dtype=jnp.int32)[:, None]
    inside = (lags >= 0) & (lags < history)
    return jnp.where(inside, weights[jnp.clip(lags, 0, history - 1)], jnp.zeros((), weights.dtype))


def _spelled_out(
    in_slots: Float[Array, "1 slots"], ring: Inexact[Array, "slots *row"]
) -> Inexact[Array, "1 *row"]:
    """Return the weighted sum of the rows, term by term."""
    terms = (m * row for m, row in zip(in_slots[0], ring, strict=True))
    return functools.reduce(jnp.add, terms)[None]
