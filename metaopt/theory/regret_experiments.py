r"""Regret of Algorithms 5 and 6 against the number of rounds, on problems with a known best.

``tests/performance/theory.py`` prints it. Letters as in :mod:`metaopt.theory.bandit` and
:mod:`metaopt.theory.bco_memory`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from metaopt.theory.bandit import (
    BanditSettings,
    advance,
    bandit_step,
    control_of,
    init_bandit,
    lag_bounds,
)
from metaopt.theory.bco_memory import bco_step, init_bco, project_to_ball


class RegretRow(NamedTuple):
    """Mean regret at one horizon."""

    rounds: int
    regret: float
    spread: float  # standard error over seeds


def bco_regrets(
    horizons: Sequence[int],
    seeds: int,
    memory: int = 3,
    rate_scale: float = 0.3,
    delta_scale: float = 1.0,
) -> list[RegretRow]:
    r"""Run Algorithm 6 on :math:`f_t(y) = \frac12 \|\bar y - c_t\|^2` in the unit disc.

    :math:`\bar y` is the mean of the last ``memory`` points and c_t alternates around (0.4, -0.2)
    by (0.2, 0.2); the best fixed point is the mean of the targets. Each horizon is a run of its
    own: delta = ``delta_scale`` T^(-1/4).
    """
    rows = []
    for rounds in horizons:
        delta = delta_scale * rounds**-0.25
        turns = np.arange(memory, rounds + 1)
        targets = np.array([0.4, -0.2]) + 0.2 * (-1.0) ** turns[:, None]
        best = np.sum((targets - targets.mean(0)) ** 2) / 2
        run = functools.partial(
            _bco_costs, targets=jnp.float32(targets), memory=memory, delta=delta, scale=rate_scale
        )
        costs = jax.jit(jax.vmap(run))(jax.random.split(jax.random.PRNGKey(rounds), seeds))
        rows.append(_regret_row(rounds, np.asarray(costs, np.float64).sum(1) - best))
    return rows


def _bco_costs(key: Array, targets: Array, memory: int, delta: float, scale: float) -> Array:
    first, *_ = keys = jax.random.split(key, len(targets) + 1)

    def step(state, given):
        target, key = given
        return bco_step(
            state,
            lambda played: jnp.sum((played.mean(0) - target) ** 2) / 2,
            scale * state.round**-0.75,
            delta,
            project_to_ball(1.0),
            key,
        )

    return jax.lax.scan(step, init_bco(jnp.zeros(2), memory, delta, first), (targets, keys[1:]))[1]


def _regret_row(rounds: int, regrets: np.ndarray) -> RegretRow:
    return RegretRow(rounds, regrets.mean(), regrets.std(ddof=1) / np.sqrt(len(regrets)))


EPOCH = 10  # rounds between resets in the bandit's regret experiment


def bandit_regrets(
    horizons: Sequence[int], seeds: int, rate_scale: float = 0.1, delta_scale: float = 2.0
) -> list[RegretRow]:
    """Run Algorithm 5 on f(x) = x^2 / 2, restarted at 1 every ``EPOCH`` rounds.

    Regret is against :func:`best_fixed_controller`, run in closed loop with its own gradients.
    """
    rows = []
    _, best = best_fixed_controller(bandit_settings(0.5))  # whatever the perturbation
    for rounds in horizons:
        settings = bandit_settings(delta_scale * rounds**-0.25)
        run = functools.partial(
            _bandit_costs, settings=settings, epochs=rounds // EPOCH, scale=rate_scale
        )
        costs = jax.jit(jax.vmap(run))(jax.random.split(jax.random.PRNGKey(rounds), seeds))
        regrets = np.asarray(costs, np.float64).sum((1, 2)) - rounds * best
        rows.append(_regret_row(rounds, regrets))
    return rows


def bandit_settings(perturbation: float) -> BanditSettings:
    """Return the settings of the regret experiment: one lag, with norm at most one half."""
    return BanditSettings(0.1, 0.0, kappa=1.0, gamma=0.5, history=1, perturbation=perturbation)


def _square(x: Array) -> Array:
    return 0.5 * jnp.sum(x**2)


def _bandit_costs(key: Array, settings: BanditSettings, epochs: int, scale: float) -> Array:
    start = jnp.ones(1)

    def play(state, key, next_start=None):
        rate = scale * state.round**-0.75
        state, info = bandit_step(settings, state, _square, rate, key, next_start)
        return state, info.cost

    def epoch(state, keys):
        state, costs = jax.lax.scan(play, state, keys[:-1])
        state, last = play(state, keys[-1], start)
        return state, jnp.append(costs, last)

    keys = jax.random.split(key, epochs * EPOCH).reshape(epochs, EPOCH, -1)
    return jax.lax.scan(epoch, init_bandit(settings, start), keys)[1]


def fixed_controller_costs(
    settings: BanditSettings, weights: Float[Array, "lags state state"], epochs: int
) -> Float[Array, "epochs rounds"]:
    """Return the costs of the regret experiment under a fixed controller, run in closed loop."""
    start = jnp.ones(1)

    def play(carry, next_start):
        state, past = carry
        state, noise = advance(settings, state, control_of(weights, past), _square, next_start)
        return state, jnp.concatenate([noise[None], past[:-1]])

    def epoch(carry, _):
        costs = []
        for s in range(EPOCH):
            costs.append(_square(carry[0][:1]))
            carry = play(carry, start if s == EPOCH - 1 else None)
        return carry, jnp.stack(costs)

    first = init_bandit(settings, start)
    return jax.lax.scan(epoch, (first.state, first.disturbances), length=epochs)[1]


def best_fixed_controller(
    settings: BanditSettings,
) -> tuple[Float[np.ndarray, "lags state state"], float]:
    """Return the best controller of the set, not shrunk, and its mean cost per round in the end.

    Only first rows matter where d = 1. Nelder-Mead from five starts: run in closed loop, the
    cost is not convex in the controller.
    """
    lags, bounds = settings.history, np.asarray(lag_bounds(settings), np.float64)

    def inside(rows: np.ndarray) -> np.ndarray:
        rows = rows.reshape(lags, 3)
        norms = np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
        weights = np.zeros((lags, 3, 3))
        weights[:, 0] = rows * np.minimum(1, bounds / norms)[:, None]
        return weights

    run = jax.jit(lambda weights: fixed_controller_costs(settings, weights, 12)[-4:].mean())

    def cost(rows: np.ndarray) -> float:
        return float(run(jnp.float32(inside(rows))))

    rng = np.random.default_rng(0)
    starts = [np.zeros(3 * lags), *rng.normal(size=(4, 3 * lags)) / 3]
    options = {"xatol": 1e-4, "fatol": 1e-7}
    found = [minimize(cost, x, method="Nelder-Mead", options=options) for x in starts]
    best = min(found, key=lambda result: result.fun)
    return inside(best.x), float(best.fun)
