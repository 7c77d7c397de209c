r"""Bandit meta-optimization: Algorithm 5 of the paper.

It learns a disturbance-feedback controller of system (2) from values of the loss alone. The
disturbances are gradients still. Letters as in :mod:`metaopt.theory.dynamics`, and

    L        history: lags of the controller, memory of the estimate, and its delay
    M^l      weights of lag l, l = 1..L, (3d, 3d);  M the tuple of all
    kappa, gamma   constants of the set {M : ||M^l|| <= kappa^3 (1 - gamma)^l}, spectral norms
    delta_M  size of the perturbations; M lives in the set shrunk by (1 - delta_M)
    eps_s    perturbation, uniform on the unit sphere of R^{L x 3d x 3d}
    M~_s     what acts, M~_s = M_s + delta_M eps_s
    u_s      control, sum_l M~_s^l w_{s-l}
    g_s      estimate, (9 d^2 L / delta_M) f_s(x_s) (eps_{s-1} + .. + eps_{s-L}); 0 for s < L
    eta^M_s  learning rate of M, c s^(-3/4)

    x_{s+1} = (1 - delta) x_s - eta grad f_{s-1}(x_{s-1}) + (first d entries of u_s)
    M_{s+1} = projection of M_s - eta^M_s g_{s-L}

An epoch ends with a disturbance that moves the state to the next start (equation 8). Rounds, and
with them lags, estimates and rates, are counted through epochs and episodes: to the system an
epoch's end is one more disturbance.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaopt.theory.reduction import DataLoss, Inner
from metaopt.theory.regret import sample_sphere


@dataclasses.dataclass(frozen=True)
class BanditSettings:
    """Constants of Algorithm 5."""

    learning_rate: float  # eta
    weight_decay: float  # delta
    kappa: float
    gamma: float
    history: int  # L
    perturbation: float  # delta_M

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"`history` must be at least 1, got {self.history}.")
        if not 0 < self.perturbation < 1:
            raise ValueError(f"`perturbation` must be in (0, 1), got {self.perturbation}.")
        if not (self.kappa >= 1 and 0 <= self.gamma < 1):
            raise ValueError(
                "`kappa` >= 1 and 0 <= `gamma` < 1 must hold, "
                f"but got kappa={self.kappa}, gamma={self.gamma}."
            )


class BanditState(NamedTuple):
    """State at the beginning of a round s; everything but z is kept newest first."""

    state: Float[Array, " state"]  # z_s
    weights: Float[Array, "lags state state"]  # M_s
    disturbances: Float[Array, "lags state"]  # w_{s-1} .. w_{s-L}
    noise: Float[Array, "lags lags state state"]  # eps_{s-1} .. eps_{s-L}
    estimates: Float[Array, "lags lags state state"]  # g_{s-1} .. g_{s-L}
    round: Int[Array, ""]  # s, through all epochs and episodes


class BanditInfo(NamedTuple):
    """The observations and the control of a round."""

    point: Float[Array, " d"]  # x_s
    cost: Float[Array, ""]  # f_s(x_s)
    disturbance: Float[Array, " state"]  # w_s
    control: Float[Array, " state"]  # u_s
    estimate: Float[Array, "lags state state"]  # g_s


def init_bandit(settings: BanditSettings, start: Float[Array, " d"]) -> BanditState:
    """Return the state at round 1, with M = 0; perturbations before the first round are 0."""
    lags, size = settings.history, 3 * start.size
    noise = jnp.zeros((lags, lags, size, size))
    return BanditState(
        jnp.concatenate([start, start, jnp.zeros_like(start)]),
        jnp.zeros((lags, size, size)),
        jnp.zeros((lags, size)),
        noise,
        noise,
        jnp.ones((), jnp.int32),
    )


def bandit_step(
    settings: BanditSettings,
    state: BanditState,
    loss: Callable[[Array], Array],
    meta_rate: Any,
    key: Array,
    next_start: Float[Array, " d"] | None = None,
) -> tuple[BanditState, BanditInfo]:
    """Play one round. Costs a value, two gradients and L singular value decompositions.

    Args:
        settings: Constants.
        state: State at round s.
        loss: f_s.
        meta_rate: eta^M_s.
        key: A PRNG key.
        next_start: The start of the next epoch, if this round is the last of an epoch.
    """
    noise = sample_sphere(key, state.weights.shape)
    acting = state.weights + settings.perturbation * noise
    control = control_of(acting, state.disturbances)
    moved, disturbance = advance(settings, state.state, control, loss, next_start)
    point = state.state[: state.state.size // 3]
    cost = loss(point)
    # Only the controls of rounds before s moved x_s.
    scale = jnp.where(state.round >= settings.history, acting.size / settings.perturbation, 0.0)
    estimate = scale * cost * jnp.sum(state.noise, axis=0)
    weights = project_weights(settings, state.weights - meta_rate * state.estimates[-1])
    after = BanditState(
        moved,
        weights,
        _push(state.disturbances, disturbance),
        _push(state.noise, noise),
        _push(state.estimates, estimate),
        state.round + 1,
    )
    return after, BanditInfo(point, cost, disturbance, control, estimate)


def control_of(
    weights: Float[Array, "lags state state"], disturbances: Float[Array, "lags state"]
) -> Float[Array, " state"]:
    """Return u_s: each lag's weights times that lag's disturbance (the text prints one for all)."""
    return jnp.einsum("lij,lj->i", weights, disturbances)


def advance(
    settings: BanditSettings,
    state: Float[Array, " state"],
    control: Float[Array, " state"],
    loss: Callable[[Array], Array],
    next_start: Float[Array, " d"] | None = None,
) -> tuple[Float[Array, " state"], Float[Array, " state"]]:
    """Return z_{s+1} and w_s. The matrices of system (2) are not needed: H_s cancels."""
    point, before, slope = jnp.split(state, 3)
    moved = (1 - settings.weight_decay) * point - settings.learning_rate * slope
    moved = moved + control[: point.size]
    gradient, at_before = jax.grad(loss)(point), jax.grad(loss)(before)
    zero = jnp.zeros_like(point)
    if next_start is None:
        return (
            jnp.concatenate([moved, point, gradient]),
            jnp.concatenate([zero, zero, at_before]),
        )
    return (
        jnp.concatenate([next_start, next_start, zero]),
        jnp.concatenate([next_start - moved, next_start - point, at_before - gradient]),
    )


def lag_bounds(settings: BanditSettings) -> Float[Array, " lags"]:
    r"""Return :math:`\kappa^3 (1 - \gamma)^l` for each lag l = 1..L."""
    return settings.kappa**3 * (1 - settings.gamma) ** jnp.arange(1, settings.history + 1)


def project_weights(
    settings: BanditSettings, weights: Float[Array, "lags state state"]
) -> Float[Array, "lags state state"]:
    r"""Project onto the shrunk set :math:`\|M^l\| \le (1 - \delta_M) \kappa^3 (1 - \gamma)^l`.

    In Frobenius distance that is to clip the singular values of each lag.
    """
    left, values, right = jnp.linalg.svd(weights, full_matrices=False)
    bounds = (1 - settings.perturbation) * lag_bounds(settings)
    return (left * jnp.minimum(values, bounds[:, None])[:, None, :]) @ right


def _push(rows: Array, newest: Array) -> Array:
    return jnp.concatenate([newest[None], rows[:-1]])


def redirect(state: BanditState, start: Float[Array, " d"]) -> BanditState:
    """Return a state at an epoch's start, moved to another start.

    Equation 8 adds the start to the first two blocks of the disturbance, so they move along.
    """
    size = start.size
    shift = jnp.tile(start - state.state[:size], 2)
    return state._replace(
        state=state.state.at[: 2 * size].set(jnp.tile(start, 2)),
        disturbances=state.disturbances.at[0, : 2 * size].add(
            jnp.where(state.round > 1, shift, jnp.zeros_like(shift))
        ),
    )


def bandit_inner(settings: BanditSettings, schedule: Callable[[Array], Array]) -> Inner:
    """Return Algorithm 5 as the inner algorithm of Algorithm 2.

    Its carry is ``(state, key)``. Each call is one epoch: S rounds, the last of which moves the
    state to the average of the epoch's iterates. Where an episode ends, the next call's start
    differs and the reset is redirected to it: the text prints the *old* episode's start there.

    Args:
        settings: Constants.
        schedule: eta^M as a function of the round.
    """

    def inner(objective: DataLoss, start: Array, data: Any, carry: Any) -> tuple[Array, Any]:
        state, key = carry
        state = redirect(state, start)
        steps = jax.tree.leaves(data)[0].shape[0]
        key, last_key, *_ = keys = jax.random.split(key, steps + 1)

        def step(state: BanditState, given: Any) -> tuple[BanditState, Array]:
            datum, key = given
            rate = schedule(state.round)
            state, info = bandit_step(settings, state, lambda x: objective(x, datum), rate, key)
            return state, info.point

        before = jax.tree.map(lambda leaf: leaf[:-1], data)
        state, points = jax.lax.scan(step, state, (before, keys[2:]))
        iterates = jnp.concatenate([points, state.state[None, : start.size]])
        last = jax.tree.map(lambda leaf: leaf[-1], data)
        state, _ = bandit_step(
            settings, state, lambda x: objective(x, last), schedule(state.round), last_key,
            next_start=jnp.mean(iterates, axis=0),
        )  # fmt: skip
        return iterates, (state, key)

    return inner
