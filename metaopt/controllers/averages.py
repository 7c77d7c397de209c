r"""The averages family: a controller over a bank of exponential averages of all past disturbances.

Letters as in :mod:`metaopt.controllers.base`, and

    K      number of averages
    b_k    decay of average k, in [0, 1)
    E_k    average k, E_k(t) = b_k E_k(t-1) + w_t; 0 before the first disturbance
    W      the learned weights, shape (K,): M, or its logarithm
    u_t    control, u_t = sum over k of M_k (1 - b_k) E_k(t)

These are the policies of lags with infinite H and M[h] = sum_k M_k (1 - b_k) b_k^h, in K arrays
instead of H: heavy ball of decay b is the bank (b,), and Nesterov's method (0, b).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from ..xla.precision import real_dtype, wide_dtype
from ..xla.products import inner_products, weighted_sums
from ..xla.rings import as_row, make_rings, write_rings
from .base import Controller, initial_weights


class AveragesMemory(NamedTuple):
    """The averages of L steps ago, and the disturbances since; L is 0 without rollouts."""

    averages: Any  # rings of K rows: E(t - L)
    recent: Any  # rings of L; None for L = 0
    newest: Int[Array, ""] | None  # slot of the newest disturbance; None for L = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Averages(Controller):
    r"""One number for each of K averages, :math:`u_t = \sum_k M_k (1 - b_k) E_k(t)`.

    The memory holds K parameter-sized arrays, K + L with rollouts. Controls are cheap to compute,
    so the optimizer does not keep those of past steps, as it does for lags.

    Attributes:
        decays: b, at least one, all different, each in [0, 1).
        weights: The initial W, shape (K,); ``None`` for zeros.
        space: ``"linear"``: W is M. ``"log"``: W is the logarithm of M. Then M is positive, W = 0
            is M = 1, and a step in W multiplies M by a factor at any scale of the disturbances.

    Raises:
        ValueError: An attribute breaks its rule.
    """

    decays: Sequence[float] = (0.0, 0.9, 0.99)
    weights: Any = None
    space: str = "log"
    family = "averages"
    keeps_controls = False

    def __post_init__(self) -> None:
        """Check the attributes."""
        object.__setattr__(self, "decays", tuple(float(decay) for decay in self.decays))
        if not self.decays:
            raise ValueError("`decays` must hold at least one decay, got none.")
        kept = [np.float32(decay) for decay in self.decays]  # 1 - 1e-9 would be 1
        if not all(0.0 <= decay < 1.0 for decay in kept):  # also catches NaN
            raise ValueError(
                f"`decays` must lie in [0, 1), got {list(self.decays)}, rounded to 32 bits."
            )
        if len(set(kept)) < len(kept):
            raise ValueError(f"`decays` must all be different, got {list(self.decays)}.")
        if self.space not in ("linear", "log"):
            raise ValueError(f"`space` must be 'linear' or 'log', got {self.space!r}.")
        if self.weights is not None and jnp.shape(self.weights) != (len(self.decays),):
            raise ValueError(
                f"`weights` must have one number for each of the {len(self.decays)} decays, got "
                f"shape {jnp.shape(self.weights)}."
            )

    @property
    def history(self) -> int:
        """1: averages have infinite history, and M is first updated at step 1 + L."""
        return 1

    @property
    def settings(self) -> dict[str, Any]:
        """Return the decays and the space of the weights."""
        return {"decays": list(self.decays), "space": self.space}

    def init(self, params: Any, history: int) -> Controller:
        """Return the controller with W of shape (K,)."""
        del history
        return self.with_weights(
            initial_weights(self.weights, (len(self.decays),), real_dtype(params))
        )

    def init_memory(
        self, params: Any, rollout: int, dtype: DTypeLike | None = None
    ) -> AveragesMemory:
        """Return averages of 0."""

        def kept(leaf: Any) -> Any:
            return dtype or wide_dtype(leaf)

        averages = make_rings(params, len(self.decays), kept)
        if not rollout:
            return AveragesMemory(averages, None, None)
        recent = make_rings(params, rollout, kept)
        return AveragesMemory(averages, recent, jnp.zeros((), jnp.int32))

    def observe(self, memory: AveragesMemory, disturbance: Any) -> AveragesMemory:
        """Average the disturbance, or the one that becomes L steps old."""
        if memory.recent is None:
            return memory._replace(averages=self._average(memory.averages, disturbance))
        assert memory.newest is not None
        slot = jnp.remainder(memory.newest + 1, _length(memory))
        oldest = jax.tree.map(
            lambda ring: jax.lax.dynamic_index_in_dim(ring, slot, keepdims=False), memory.recent
        )
        return AveragesMemory(
            averages=self._average(memory.averages, oldest),
            recent=write_rings(memory.recent, disturbance, slot),
            newest=slot,
        )

    def accumulate(
        self, sums: AveragesMemory, memory: AveragesMemory, discount: Any
    ) -> AveragesMemory:
        """Add the averages to their discounted sums, which are the averages of the sums."""
        added = jax.tree.map(
            lambda s, rows: (discount * s + rows).astype(s.dtype), sums.averages, memory.averages
        )
        return sums._replace(averages=added)

    def _average(self, averages: Any, disturbance: Any) -> Any:
        def one(rows: Array, new: Array) -> Array:
            wide = wide_dtype(rows)
            row = as_row(new, rows).astype(wide)
            decays = jnp.asarray(self.decays, wide).reshape(-1, *[1] * row.ndim)
            return (decays * rows.astype(wide) + row[None]).astype(rows.dtype)

        return jax.tree.map(one, averages, disturbance)

    def controls(self, memory: AveragesMemory, count: int, like: Any) -> list[Any]:
        """Return weighted sums of the averages and of the disturbances since."""
        dtype = self.weights.dtype
        scales = self._multipliers() * self._rest()
        found = []
        for ago in range(count):
            of_averages, of_recent = self._parts(memory, ago, dtype)
            total = _combine(scales * of_averages, memory.averages)
            if of_recent is not None:
                since = _combine(scales @ of_recent, memory.recent)
                total = jax.tree.map(jnp.add, total, since)
            found.append(jax.tree.map(lambda row, leaf: row.reshape(leaf.shape), total, like))
        return found

    def meta_gradient(
        self, memory: AveragesMemory, adjoints: Sequence[Any], ago: int = 1
    ) -> Float[Array, " averages"]:
        r"""Return :math:`-\sum_i (1 - b_k) \langle \lambda_i, E_k(t - ago - i) \rangle`, by W."""
        dtype = self.weights.dtype
        slope = jnp.zeros_like(self.weights)
        for steps, adjoint in enumerate(adjoints, start=ago):
            of_averages, of_recent = self._parts(memory, steps, dtype)
            slope -= of_averages * _products(memory.averages, adjoint)
            if of_recent is not None:
                slope -= of_recent @ _products(memory.recent, adjoint)
        slope = slope * self._rest()
        if self.space == "log":
            slope = slope * self._multipliers()
        return slope.astype(dtype)

    def steady_control(self, disturbance: Any) -> Any:
        r"""Return :math:`(\sum_k M_k) w`, because (1 - b_k) E_k goes to w."""
        rate = self._multipliers().sum()
        return jax.tree.map(lambda w: rate.astype(real_dtype(w)) * w, disturbance)

    def scaled(self, factor: Any) -> Controller:
        """Return the controller with W + log(factor) in log space, else W times ``factor``."""
        if self.space == "log":
            return self.with_weights(self.weights + jnp.log(factor))
        return self.with_weights(self.weights * factor)

    def merged(self) -> Controller:
        """Return the controller with the sum of all M."""
        if self.space == "log":
            return self.with_weights(jax.nn.logsumexp(self.weights, axis=0))
        return self.with_weights(self.weights.sum(axis=0))

    def _multipliers(self) -> Float[Array, " averages"]:
        """Return M."""
        return jnp.exp(self.weights) if self.space == "log" else self.weights

    def _rest(self) -> Float[Array, " averages"]:
        """Return 1 - b, without the rounding of b."""
        return jnp.asarray([1.0 - decay for decay in self.decays], self.weights.dtype)

    def _parts(
        self, memory: AveragesMemory, ago: int, dtype: DTypeLike
    ) -> tuple[Float[Array, " averages"], Float[Array, "averages slots"] | None]:
        """Return the factors of the averages and of the slots in the E of ``ago`` steps ago.

        E_k(t - i) = b_k^(L - i) E_k(t - L) + sum over i <= a < L of b_k^(a - i) w_{t - a}.
        """
        length = 0 if memory.recent is None else _length(memory)
        assert ago <= length
        of_averages = jnp.asarray([decay ** (length - ago) for decay in self.decays], dtype)
        if memory.recent is None:
            return of_averages, None
        by_age = jnp.asarray(
            [
                [decay ** (age - ago) if age >= ago else 0.0 for age in range(length)]
                for decay in self.decays
            ],
            dtype,
        )
        assert memory.newest is not None
        ages = jnp.remainder(memory.newest - jnp.arange(length, dtype=jnp.int32), length)
        return of_averages, by_age[:, ages]


def _length(memory: AveragesMemory) -> int:
    return jax.tree.leaves(memory.recent)[0].shape[0]


def _combine(factors: Float[Array, " rows"], trees: Any) -> Any:
    """Return the weighted sum of the rows of every leaf."""
    # XLA would fuse a sum written term by term into one loop. On the CPU that loop computes the
    # averages again from a copy of the previous ones; a product reads the new ones.
    on_cpu = jax.default_backend() == "cpu"

    def one(rows: Array) -> Array:
        wide = wide_dtype(rows)
        if on_cpu and rows.dtype == wide:
            return weighted_sums(factors.astype(wide)[None], rows)[0]
        terms = (f.astype(wide) * row.astype(wide) for f, row in zip(factors, rows, strict=True))
        return functools.reduce(jnp.add, terms)

    return jax.tree.map(one, trees)


def _products(trees: Any, adjoint: Any) -> Float[Array, " rows"]:
    """Return the inner product of a tree with every row, over all leaves."""
    by_leaf = jax.tree.map(inner_products, trees, adjoint)
    return functools.reduce(jnp.add, jax.tree.leaves(by_leaf))
