r"""Controllers: what turns past disturbances into an update, and what is learned about it.

Notation, the same in code, tests and documentation:

    d      number of parameters
    H      history: how many past disturbances a control is made of
    L      rollout length
    w_t    disturbance at step t, (d,): the gradient, or a transformation of it; 0 before the first
    M      weights; M[0] (the paper's M^(1)) multiplies the newest disturbance
    u_t    control, u_t = sum over h < H of M[h] w_{t-h}; the update is *minus* the control
    age    0 for the newest disturbance in memory, 1 for the one before it, ...

A controller is linear in its disturbances. What rollouts need of it is in :class:`Controller`:
nothing outside this module knows how the past is kept, as H gradients or as averages of them.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int


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

    def init_weights(self, size: int, history: int) -> Any:
        """Return the weights to start from, for ``size`` parameters."""
        ...

    def init_memory(self, size: int, history: int, rollout: int, dtype: DTypeLike) -> Any:
        """Return the memory of an episode that begins; ``rollout`` is 0 for a frozen controller."""
        ...

    def observe(self, memory: Any, disturbance: Float[Array, " d"]) -> Any:
        """Return the memory with one more disturbance."""
        ...

    def controls(self, weights: Any, memory: Any, count: int) -> Float[Array, "count d"]:
        """Return what ``weights`` would have commanded, row i: i steps ago."""
        ...

    def meta_gradient(self, weights: Any, memory: Any, adjoints: Float[Array, "count d"]) -> Any:
        """Return the gradient by the weights of ``-sum_i <adjoints[i], controls[i + 1]>``.

        Row i of the adjoints belongs to the control of i + 1 steps ago: the rollout ends at the
        loss whose gradient was observed last, and no control has met that one yet.
        """
        ...


class LagMemory(NamedTuple):
    """The last disturbances, in a ring: nothing is moved when a new one comes."""

    rows: Float[Array, "slots d"]
    newest: Int[Array, ""]  # slot of the newest row


class _Lags:
    """What scalar and diagonal lags share: a ring of the last H + L disturbances.

    A ring of H + L - 1 would do if the oldest were overwritten only after the meta-gradient has
    read it. But XLA copies an array that is read before it is written: the whole history.
    """

    def init_memory(self, size: int, history: int, rollout: int, dtype: DTypeLike) -> LagMemory:
        """Return an empty ring: disturbances before the first are 0."""
        rows = jnp.zeros((history + rollout, size), dtype)
        return LagMemory(rows, jnp.zeros((), jnp.int32))

    def observe(self, memory: LagMemory, disturbance: Float[Array, " d"]) -> LagMemory:
        """Overwrite the oldest row."""
        slot = jnp.remainder(memory.newest + 1, memory.rows.shape[0])
        row = disturbance.astype(memory.rows.dtype)
        return LagMemory(jax.lax.dynamic_update_index_in_dim(memory.rows, row, slot, 0), slot)


def _ages(memory: LagMemory) -> Int[Array, " slots"]:
    """Return the age of the row in each slot, which is also the slot of each age."""
    slots = memory.rows.shape[0]
    return jnp.remainder(memory.newest - jnp.arange(slots, dtype=jnp.int32), slots)


@dataclasses.dataclass(frozen=True, eq=False)
class ScalarLags(_Lags):
    r"""The paper's controller: one number for each lag, :math:`u_t = \sum_h M_h w_{t-h}`.

    Costs H + L disturbances of memory while learning, H frozen. All controls of a rollout come
    from one pass over them, and so does the meta-gradient: inner products with the adjoints.

    Attributes:
        weights: M to start from, shape (H,), newest lag first; ``None`` for zeros.
    """

    weights: Float[Array, " history"] | None = None
    family = "scalar_lags"

    def init_weights(self, size: int, history: int) -> Float[Array, " history"]:
        """Return M."""
        return _initial(self.weights, (history,))

    def controls(
        self, weights: Float[Array, " history"], memory: LagMemory, count: int
    ) -> Float[Array, "count d"]:
        """Multiply the ring by M, brought into the order of its slots instead of the reverse."""
        history = weights.shape[0]
        lags = _ages(memory)[None] - jnp.arange(count, dtype=jnp.int32)[:, None]
        inside = (lags >= 0) & (lags < history)
        in_slots = jnp.where(inside, weights[jnp.clip(lags, 0, history - 1)], jnp.float32(0))
        return jax.lax.dot(
            in_slots, memory.rows, precision="highest", preferred_element_type=weights.dtype
        )

    def meta_gradient(
        self,
        weights: Float[Array, " history"],
        memory: LagMemory,
        adjoints: Float[Array, "count d"],
    ) -> Float[Array, " history"]:
        r"""Return :math:`-\sum_i \langle \lambda_i, w_{t-1-i-h} \rangle` for each h."""
        history, count = weights.shape[0], adjoints.shape[0]
        # (slots, d) @ (d, count): on XLA's CPU backend four times faster than the other way round.
        products = jax.lax.dot(
            memory.rows, adjoints.T, precision="highest", preferred_element_type=weights.dtype
        )
        by_age = products[_ages(memory)]
        parts = (by_age[i : i + history, i - 1] for i in range(1, count + 1))
        return -functools.reduce(jnp.add, parts)


@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalLags(_Lags):
    r"""One vector for each lag: :math:`u_t = \sum_h M_h \odot w_{t-h}`.

    Costs the memory of :class:`ScalarLags` and H parameter-sized weights, with as much again for
    each moment of the meta-optimizer.

    Attributes:
        weights: M to start from, shape (H, d), newest lag first; ``None`` for zeros.
    """

    weights: Float[Array, "history d"] | None = None
    family = "diagonal_lags"

    def init_weights(self, size: int, history: int) -> Float[Array, "history d"]:
        """Return M."""
        return _initial(self.weights, (history, size))

    def controls(
        self, weights: Float[Array, "history d"], memory: LagMemory, count: int
    ) -> Float[Array, "count d"]:
        """Return the sums of products, newest first."""
        history = weights.shape[0]
        past = memory.rows[_ages(memory)].astype(weights.dtype)
        return jnp.stack([jnp.sum(weights * past[i : i + history], 0) for i in range(count)])

    def meta_gradient(
        self,
        weights: Float[Array, "history d"],
        memory: LagMemory,
        adjoints: Float[Array, "count d"],
    ) -> Float[Array, "history d"]:
        r"""Return :math:`-\sum_i \lambda_i \odot w_{t-1-i-h}` for each h."""
        history, count = weights.shape[0], adjoints.shape[0]
        past = memory.rows[_ages(memory)].astype(weights.dtype)
        parts = (adjoints[i - 1][None] * past[i : i + history] for i in range(1, count + 1))
        return -functools.reduce(jnp.add, parts)


FAMILIES: dict[str, type] = {kind.family: kind for kind in (ScalarLags, DiagonalLags)}


def _initial(weights: Array | None, shape: tuple[int, ...]) -> Array:
    if weights is None:
        return jnp.zeros(shape, jnp.float32)
    if jnp.shape(weights) != shape:
        raise ValueError(
            f"`controller` has weights of shape {jnp.shape(weights)}, but history and parameters "
            f"ask for {shape}."
        )
    return jnp.asarray(weights, jnp.float32)
