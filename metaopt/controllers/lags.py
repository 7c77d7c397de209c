r"""Controllers: what turns past disturbances into an update, and what is learned about it.

Notation, the same in code, tests and documentation:

    d      number of parameters
    H      history: how many past disturbances a control is made of
    L      rollout length
    w_t    disturbance at step t: the gradient, or a transformation of it; 0 before the first
    M      weights; M[0] (the paper's M^(1)) multiplies the newest disturbance
    u_t    control, u_t = sum over h < H of M[h] w_{t-h}; the update is *minus* the control
    age    0 for the newest disturbance in memory, 1 for the one before it, ...

Disturbances, controls and adjoints are trees shaped like the parameters. A controller is linear in
its disturbances. What rollouts need of it is in :class:`Controller`: nothing else knows how it
keeps the past, as H gradients here or as averages of them in :mod:`metaopt.controllers.averages`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Inexact, Int

from metaopt.xla.meshes import everywhere, reshard
from metaopt.xla.precision import real_dtype, wide_dtype
from metaopt.xla.products import inner_products, weighted_sums
from metaopt.xla.rings import make_rings, read_rings, write_rings, zero_rows

# A control of one row is a sum over the history that XLA writes as one loop if it is spelled out:
# on its CPU backend a third faster than a dot. It costs compilation, so not beyond so many terms.
_SPELLED_OUT = 1024


class Controller(Protocol):
    """A family of linear policies over past disturbances.

    ``weights`` is what is learned: any pytree of arrays. ``memory`` is what is kept of the past:
    any pytree of arrays; it restarts with every episode.
    """

    @property
    def family(self) -> str:
        """Names the family in controller files."""
        ...

    @property
    def weights(self) -> Any:
        """What to start from; ``None`` for zeros."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments beside the weights that make the controller again, as JSON."""
        ...

    @property
    def default_history(self) -> int:
        """H where nobody says."""
        ...

    @property
    def keeps_controls(self) -> bool:
        """Whether controls of past steps are worth keeping, rather than computed again."""
        ...

    def init_weights(self, params: Any, history: int) -> Any:
        """Return the weights to start from."""
        ...

    def init_memory(self, params: Any, history: int, rollout: int, dtype: DTypeLike | None) -> Any:
        """Return the memory of an episode that begins.

        Args:
            params: Parameters, or their shapes.
            history: H.
            rollout: L, 0 for a frozen controller.
            dtype: Of what is kept; by default the parameters', float32 at least.
        """
        ...

    def observe(self, memory: Any, disturbance: Any) -> Any:
        """Return the memory with one more disturbance."""
        ...

    def controls(self, weights: Any, memory: Any, count: int, like: Any) -> list[Any]:
        """Return what ``weights`` would have commanded, entry i: i steps ago.

        ``like`` is a tree with the shapes of the parameters.
        """
        ...

    def meta_gradient(
        self, weights: Any, memory: Any, adjoints: Sequence[Any], ago: int = 1
    ) -> Any:
        """Return the gradient by the weights of ``-sum_i <adjoints[i], controls[ago + i]>``.

        Entry i of the adjoints belongs to the control of ``ago + i`` steps ago. The rollout ends at
        the loss whose gradient was observed last, and no control has met that one yet: that is 1
        step ago in the memory, or 0 if it is asked before it observes that gradient.
        """
        ...

    def scaled(self, weights: Any, factor: Any) -> Any:
        """Return the weights of controls that are ``factor`` times as large."""
        ...


class LagMemory(NamedTuple):
    """The last disturbances."""

    rows: Any  # rings, see metaopt.xla.rings
    newest: Int[Array, ""]  # slot of the newest row


class _Lags:
    """What the families of lags share: rings of the last H + L disturbances."""

    default_history = 32
    keeps_controls = True  # they come out of one pass over the rings

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing but the weights."""
        return {}

    def scaled(self, weights: Any, factor: Any) -> Any:
        """Multiply the weights."""
        return jax.tree.map(lambda m: m * factor, weights)

    def init_memory(
        self, params: Any, history: int, rollout: int, dtype: DTypeLike | None
    ) -> LagMemory:
        """Return empty rings: disturbances before the first are 0."""
        rows = make_rings(params, history + rollout, lambda leaf: dtype or wide_dtype(leaf))
        return LagMemory(rows, jnp.zeros((), jnp.int32))

    def observe(self, memory: LagMemory, disturbance: Any) -> LagMemory:
        """Overwrite the oldest row."""
        slot = jnp.remainder(memory.newest + 1, _slots(memory))
        return LagMemory(write_rings(memory.rows, disturbance, slot), slot)


def _slots(memory: LagMemory) -> int:
    return jax.tree.leaves(memory.rows)[0].shape[0]


def _ages(memory: LagMemory) -> Int[Array, " slots"]:
    """Return the age of the row in each slot, which is also the slot of each age."""
    slots = _slots(memory)
    return jnp.remainder(memory.newest - jnp.arange(slots, dtype=jnp.int32), slots)


@dataclasses.dataclass(frozen=True, eq=False)
class ScalarLags(_Lags):
    r"""The paper's controller: one number for each lag, :math:`u_t = \sum_h M_h w_{t-h}`.

    Costs H + L disturbances of memory while learning, H frozen. All controls of a rollout come
    from one pass over them, and the meta-gradient from L: inner products with the adjoints.

    Attributes:
        weights: M to start from, shape (H,), newest lag first; ``None`` for zeros.
    """

    weights: Float[Array, " history"] | None = None
    family = "scalar_lags"

    def init_weights(self, params: Any, history: int) -> Float[Array, " history"]:
        """Return M."""
        return initial_weights(self.weights, (history,), real_dtype(params))

    def controls(
        self, weights: Float[Array, " history"], memory: LagMemory, count: int, like: Any
    ) -> list[Any]:
        """Multiply the ring by M, brought into the order of its slots instead of the reverse."""
        in_slots = _in_slots(weights, memory, count)
        spelled_out = count == 1 and in_slots.size * len(jax.tree.leaves(like)) <= _SPELLED_OUT
        contract = _spelled_out if spelled_out else weighted_sums
        sums = jax.tree.map(lambda ring: contract(in_slots, ring), memory.rows)
        return [
            jax.tree.map(lambda s, x, i=i: s[i].reshape(x.shape), sums, like) for i in range(count)
        ]

    def meta_gradient(
        self,
        weights: Float[Array, " history"],
        memory: LagMemory,
        adjoints: Sequence[Any],
        ago: int = 1,
    ) -> Float[Array, " history"]:
        r"""Return :math:`-\sum_i \langle \lambda_i, w_{t-ago-i-h} \rangle` for each h."""
        history, ages = weights.shape[0], _ages(memory)
        parts = []
        for i, adjoint in enumerate(adjoints, start=ago):
            by_leaf = jax.tree.map(inner_products, memory.rows, adjoint)
            products = functools.reduce(jnp.add, jax.tree.leaves(by_leaf))
            parts.append(products[ages][i : i + history])
        return -functools.reduce(jnp.add, parts).astype(weights.dtype)


def _in_slots(
    weights: Float[Array, " history"], memory: LagMemory, count: int
) -> Float[Array, "count slots"]:
    """Return what multiplies the row in each slot in the control of i steps ago, for i < count."""
    history = weights.shape[0]
    lags = _ages(memory)[None] - jnp.arange(count, dtype=jnp.int32)[:, None]
    inside = (lags >= 0) & (lags < history)
    return jnp.where(inside, weights[jnp.clip(lags, 0, history - 1)], jnp.zeros((), weights.dtype))


def _spelled_out(
    in_slots: Float[Array, "1 slots"], ring: Inexact[Array, "slots *row"]
) -> Inexact[Array, "1 *row"]:
    """Return the weighted sum of the rows, term by term."""
    terms = (m * row for m, row in zip(in_slots[0], ring, strict=True))
    return functools.reduce(jnp.add, terms)[None]


@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalLags(_Lags):
    r"""One number for each lag and parameter: :math:`u_t = \sum_h M_h \odot w_{t-h}`.

    Costs the memory of :class:`ScalarLags` and H parameter-sized weights, with as much again for
    each moment of the meta-optimizer.

    Attributes:
        weights: M to start from, a tree of leaves (H, *leaf.shape), newest lag first, or one array
            (H, d) with the leaves one after another; ``None`` for zeros.
    """

    weights: Any = None
    family = "diagonal_lags"

    def init_weights(self, params: Any, history: int) -> Any:
        """Return M, a tree of leaves (H, *leaf.shape).

        Raises:
            ValueError: There are complex parameters, or weights of another shape.
        """
        _check_real(params, "DiagonalLags")
        zeros = jax.tree.map(lambda leaf: zero_rows(leaf, history, wide_dtype(leaf)), params)
        given = self.weights
        if given is None:
            return zeros
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
        return jax.tree.map(
            lambda m, like: reshard(initial_weights(m, like.shape, like.dtype), like), given, zeros
        )

    def controls(self, weights: Any, memory: LagMemory, count: int, like: Any) -> list[Any]:
        """Add up products lag by lag: one pass over M and the ring, whatever the count."""

        def add(lag: Any, sums: list[Any]) -> list[Any]:
            m = _row(weights, lag)
            past = [_row_of_age(memory, lag + i, like) for i in range(count)]
            return [
                jax.tree.map(lambda s, m, w: s + m * w, total, m, rows)
                for total, rows in zip(sums, past, strict=True)
            ]

        zero = jax.tree.map(
            lambda m, ring: jnp.zeros_like(m[0], jnp.promote_types(m.dtype, wide_dtype(ring))),
            weights,
            memory.rows,
        )
        # A loop, for a sum along the axis of the lags takes XLA's CPU backend 35 times as long.
        return jax.lax.fori_loop(0, _history(weights), add, [zero] * count)

    def meta_gradient(
        self, weights: Any, memory: LagMemory, adjoints: Sequence[Any], ago: int = 1
    ) -> Any:
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

        # Row by row, for the ring would have to be copied to bring all of it into order.
        return jax.lax.fori_loop(0, _history(weights), write, jax.tree.map(jnp.zeros_like, weights))


def _history(weights: Any) -> int:
    return jax.tree.leaves(weights)[0].shape[0]


def _row(tree: Any, index: Any) -> Any:
    """Return row ``index`` of every leaf."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree
    )


def _row_of_age(memory: LagMemory, age: Any, like: Any) -> Any:
    """Return the disturbance of ``age`` steps ago, with the shapes of ``like``."""
    slot = jnp.remainder(memory.newest - age, _slots(memory))
    rows = read_rings(memory.rows, slot, like)
    return jax.tree.map(lambda row: row.astype(wide_dtype(row)), rows)


@dataclasses.dataclass(frozen=True, eq=False)
class FullLags(_Lags):
    r"""One matrix for each lag: :math:`u_t = \sum_h M_h w_{t-h}`, the paper's Algorithm 1.

    Costs H d^2 numbers of weights, with as much again for each moment of the meta-optimizer: for
    small problems only. Parameters and disturbances are vectors here, leaves one after another.

    Attributes:
        weights: M to start from, shape (H, d, d), newest lag first; ``None`` for zeros.
        limit_bytes: ``init`` refuses weights larger than this.
    """

    weights: Float[Array, "history d d"] | None = None
    limit_bytes: int = 2**30
    family = "full_lags"

    def init_weights(self, params: Any, history: int) -> Float[Array, "history d d"]:
        """Return M.

        Raises:
            ValueError: There are complex parameters, or M would be larger than the limit.
        """
        _check_real(params, "FullLags")
        size, dtype = sum(leaf.size for leaf in jax.tree.leaves(params)), real_dtype(params)
        needed = dtype.itemsize * history * size**2
        if needed > self.limit_bytes:
            raise ValueError(
                f"`controller` needs {history} matrices of {size:,} x {size:,}: "
                f"{needed / 2**30:,.1f} GiB, above its limit of {self.limit_bytes / 2**30:g} GiB "
                "(FullLags(limit_bytes=...)). Scalar or diagonal lags need no matrices."
            )
        return initial_weights(self.weights, (history, size, size), dtype)

    def controls(
        self, weights: Float[Array, "history d d"], memory: LagMemory, count: int, like: Any
    ) -> list[Any]:
        """Return the sums of products, newest first."""
        history, past = weights.shape[0], _vectors_by_age(memory)
        # One product for each lag, then their sum: as a single product XLA would copy all of M.
        sums = [
            jnp.einsum("hij,hj->hi", weights, past[i : i + history], precision="highest").sum(0)
            for i in range(count)
        ]
        return [_as_tree(vector, like) for vector in sums]

    def meta_gradient(
        self,
        weights: Float[Array, "history d d"],
        memory: LagMemory,
        adjoints: Sequence[Any],
        ago: int = 1,
    ) -> Float[Array, "history d d"]:
        r"""Return :math:`-\sum_i \lambda_i w_{t-ago-i-h}^\top` for each h."""
        history, past = weights.shape[0], _vectors_by_age(memory)
        parts = [
            jnp.einsum("i,hj->hij", _as_vector(adjoint), past[i : i + history])
            for i, adjoint in enumerate(adjoints, start=ago)
        ]
        return -functools.reduce(jnp.add, parts).astype(weights.dtype)


def _vectors_by_age(memory: LagMemory) -> Float[Array, "slots d"]:
    """Return the rows from the newest to the oldest, leaves one after another."""
    rings = [everywhere(ring).reshape(len(ring), -1) for ring in jax.tree.leaves(memory.rows)]
    return jnp.concatenate([r.astype(wide_dtype(r)) for r in rings], axis=1)[_ages(memory)]


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


def initial_weights(weights: Any, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return ``weights``, or zeros.

    Raises:
        ValueError: They have another shape.
    """
    if weights is None:
        return jnp.zeros(shape, dtype)
    if jnp.shape(weights) != shape:
        raise ValueError(
            f"`controller` has weights of shape {jnp.shape(weights)}, but history and parameters "
            f"ask for {shape}."
        )
    return jnp.array(weights, dtype)  # a copy: states are donated


def _check_real(params: Any, family: str) -> None:
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(params)):
        raise ValueError(
            f"`controller` must be ScalarLags or Averages where parameters are complex: {family} "
            "would need a number for each real and each imaginary part. Or keep these two apart "
            "in the parameters."
        )
