r"""Bandit convex optimization with memory: Algorithm 6 of the paper.

Notation, the same in code, tests and documentation:

    x_t    decision, in K_delta = (1 - delta) K;    d  its dimension
    u_t    noise, uniform on the unit sphere of R^d
    y_t    what is played, y_t = x_t + delta u_t
    L      memory: the loss f_t(y_{t-L+1}, .., y_t) sees the last L points played
    g_t    estimate of the gradient of x -> f_t(x, .., x),
           g_t = (d / delta) f_t(y_{t-L+1:t}) (u_{t-L+1} + .. + u_t);   0 for t < L
    eta_t  learning rate, c t^(-3/4);    delta ~ T^(-1/4) for T rounds

    x_{t+1} = projection onto K_delta of x_t - eta_t g_{t-L+1}

K must contain the unit ball: then y_t lies in K. Only the loss's value is seen. The delay makes
the decision that an estimate moves independent of the noise in it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaopt.theory.regret import sample_sphere


class BcoState(NamedTuple):
    """State at the beginning of round t."""

    point: Float[Array, " d"]  # x_t
    played: Float[Array, "memory d"]  # y_{t-L+1} .. y_t, oldest first
    noise: Float[Array, "memory d"]  # u_{t-L+1} .. u_t, oldest first
    estimates: Float[Array, "memory d"]  # g_{t-L} .. g_{t-1}, oldest first
    round: Int[Array, ""]  # t


def init_bco(start: Float[Array, " d"], memory: int, delta: float, key: Array) -> BcoState:
    """Return the state at round t = L, before which nothing is lost and nothing learned.

    Args:
        start: ``x_1 = .. = x_L``, in K_delta.
        memory: L.
        delta: Size of the noise, in (0, 1).
        key: A PRNG key.
    """
    if memory < 1:
        raise ValueError(f"`memory` must be at least 1, got {memory}.")
    if not 0 < delta < 1:
        raise ValueError(f"`delta` must be in (0, 1), got {delta}.")
    noise = jax.vmap(lambda k: sample_sphere(k, start.shape))(jax.random.split(key, memory))
    return BcoState(
        start, start + delta * noise, noise, jnp.zeros_like(noise), jnp.asarray(memory, jnp.int32)
    )


def bco_step(
    state: BcoState,
    loss: Callable[[Float[Array, "memory d"]], Array],
    rate: Any,
    delta: float,
    project: Callable[[Array], Array],
    key: Array,
) -> tuple[BcoState, Float[Array, ""]]:
    """Play round t; return the next state and the loss suffered. One evaluation of the loss.

    Args:
        state: State at round t.
        loss: f_t of the last L points played, oldest first.
        rate: eta_t.
        delta: Size of the noise, as in :func:`init_bco`.
        project: Projection onto K, which this function shrinks to K_delta.
        key: A PRNG key.
    """
    cost = loss(state.played)
    scale = state.point.size / delta
    estimates = _push(state.estimates, scale * cost * jnp.sum(state.noise, axis=0))
    moved = state.point - rate * estimates[0]  # g_{t-L+1}
    point = (1 - delta) * project(moved / (1 - delta))
    noise = sample_sphere(key, point.shape)
    return BcoState(
        point,
        _push(state.played, point + delta * noise),
        _push(state.noise, noise),
        estimates,
        state.round + 1,
    ), cost


def _push(rows: Float[Array, "memory d"], newest: Float[Array, " d"]) -> Float[Array, "memory d"]:
    return jnp.concatenate([rows[1:], newest[None]])


def project_to_ball(radius: float) -> Callable[[Array], Array]:
    """Return the projection onto the ball of this radius around 0."""
    return lambda x: x * jnp.minimum(1.0, radius / jnp.maximum(jnp.linalg.norm(x), 1e-30))


def regret_bound(
    *,
    rounds: int,
    dimension: int,
    memory: int,
    diameter: float,
    bound: float,
    lipschitz: float,
    smoothness: float,
    rate_scale: float,
    delta: float,
) -> float:
    r"""Return the regret bound from the proof of Theorem 5, for :math:`\eta_t = c\, t^{-3/4}`.

    .. math:: 2LM + \frac{D^2}{\eta_T} + \Bigl(\frac{3 d^2 M^2 L^2}{\delta^2}
        + \frac{4 d G M L^{5/2} \beta D}{\delta}\Bigr) \sum_t \eta_t + \frac52 d \delta G L^2 D T

    Args:
        rounds: T.
        dimension: d.
        memory: L.
        diameter: D, of K.
        bound: M, of the absolute losses.
        lipschitz: G.
        smoothness: beta.
        rate_scale: c.
        delta: Size of the noise.
    """
    rates = rate_scale * np.arange(1, rounds + 1) ** -0.75
    variance = 3 * (dimension * bound * memory / delta) ** 2
    drift = 4 * dimension * lipschitz * bound * memory**2.5 * smoothness * diameter / delta
    smoothing = 2.5 * dimension * delta * lipschitz * memory**2 * diameter * rounds
    learning = diameter**2 / rates[-1] + (variance + drift) * np.sum(rates)
    return float(2 * memory * bound + learning + smoothing)
