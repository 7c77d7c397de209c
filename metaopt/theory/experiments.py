r"""Experiments on the paper's guarantees: small problems, settings as arguments, arrays back.

``tests/performance/theory.py`` prints them. Letters as in the modules they use. The nonconvex
finite sum has terms phi(a_j' x - b_j) with phi(r) = r^2 / (1 + r^2) and |a_j| = 1: values in
[0, 1), second derivative of phi in [-1/2, 2], so beta = 2.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from metaopt.theory.bandit import (
    BanditSettings,
    advance,
    bandit_inner,
    bandit_step,
    control_of,
    init_bandit,
    lag_bounds,
)
from metaopt.theory.bco_memory import bco_step, init_bco, project_to_ball
from metaopt.theory.dynamics import mean_hessian, product_norms, transition
from metaopt.theory.reduction import (
    Inner,
    gradient_descent,
    nonconvex_meta_optimization,
    reduce_to_convex,
    regularize,
)

SMOOTHNESS = 2.0  # beta of the finite sum


class FiniteSum(NamedTuple):
    """Terms of a nonconvex finite sum."""

    rows: Float[Array, "terms d"]  # a_j, of norm 1
    targets: Float[Array, " terms"]  # b_j


def make_finite_sum(key: Array, terms: int, dimension: int) -> FiniteSum:
    """Return terms around a hidden point, a fifth of them outliers."""
    keys = jax.random.split(key, 4)
    rows = jax.random.normal(keys[0], (terms, dimension))
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    outliers = 3 * jax.random.normal(keys[2], (terms,)) * jax.random.bernoulli(keys[3], 0.2)
    return FiniteSum(rows, rows @ jax.random.normal(keys[1], (dimension,)) + outliers)


def finite_sum_loss(x: Float[Array, " d"], problem: FiniteSum) -> Float[Array, ""]:
    """Return the mean of the terms."""
    squares = (problem.rows @ x - problem.targets) ** 2
    return jnp.mean(squares / (1 + squares))


class ReductionRow(NamedTuple):
    """Algorithm 3 with one number of epochs."""

    epochs: int
    best_squared_gradient: float
    bound: float  # 6 beta (f(x_1) / K + epsilon); inf f >= 0


def reduction_rates(epochs: Sequence[int], inner_steps: int, seed: int = 0) -> list[ReductionRow]:
    """Run Algorithm 3 on a finite sum in 10 dimensions, with gradient descent as the solver.

    A beta-strongly convex sub-problem is solved to within |gradient|^2 / (2 beta): epsilon is the
    mean of that over the epochs.
    """
    problem = make_finite_sum(jax.random.PRNGKey(seed), 50, 10)

    def loss(x: Array) -> Array:
        return finite_sum_loss(x, problem)

    def solver(objective: Callable[[Array], Array], start: Array) -> Array:
        def step(x: Array, _: None) -> tuple[Array, None]:
            return x - jax.grad(objective)(x) / (3 * SMOOTHNESS), None

        return jax.lax.scan(step, start, length=inner_steps)[0]

    start = jnp.zeros(10)
    found = reduce_to_convex(loss, start, solver, SMOOTHNESS, max(epochs))
    value = float(loss(start))
    squares = np.asarray(found.gradient_norms, np.float64) ** 2
    slopes = jax.vmap(jax.grad(loss))(found.centres)[1:] + 2 * SMOOTHNESS * jnp.diff(
        found.centres, axis=0
    )
    errors = np.sum(np.asarray(slopes, np.float64) ** 2, axis=1) / (2 * SMOOTHNESS)
    return [
        ReductionRow(
            k,
            float(squares[:k].min()),
            float(6 * SMOOTHNESS * (value / k + errors[:k].mean())),
        )
        for k in epochs
    ]


class TheoremRow(NamedTuple):
    """Both sides of Theorem 1, as its proof has them before constants are dropped."""

    left: float  # average squared gradient norm
    descent: float  # 6 beta (f_i(x_{i,1}) - f_i(x_{i,K+1})) / K, mean over i: the O(1 / K)
    regret: float  # 6 beta / (N K S) times regret against the best comparator
    comparator: float  # 6 beta / (N K S) times the comparator's own suboptimality


COMPARATORS = (0.01, 0.03, 0.1, 0.2, 0.3)  # rates of gradient descent, all in the class


def theorem_terms(
    episodes: int, epochs: int, steps: int, inner: Inner, carry: object, seed: int = 0
) -> TheoremRow:
    """Run Algorithm 2 on finite sums in 2 dimensions, one per episode, and return the terms.

    The comparator is gradient descent with the best of ``COMPARATORS``, run on the sub-problems
    that the inner algorithm had, from the same centres.
    """
    keys = jax.random.split(jax.random.PRNGKey(seed), episodes)
    problems = jax.vmap(lambda key: make_finite_sum(key, 20, 2))(keys)
    data = jax.tree.map(
        lambda leaf: jnp.broadcast_to(
            leaf[:, None, None], (episodes, epochs, steps, *leaf.shape[1:])
        ),
        problems,
    )
    starts = jnp.zeros((episodes, 2))
    ran = jax.jit(
        functools.partial(
            nonconvex_meta_optimization, finite_sum_loss, inner=inner, beta=SMOOTHNESS
        )
    )(starts, data, carry=carry)

    def epoch(centre: Array, iterates: Array, problem: FiniteSum) -> tuple[Array, Array, Array]:
        objective = regularize(finite_sum_loss, centre, SMOOTHNESS)
        same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (100, *leaf.shape)), problem)
        least = objective(
            gradient_descent(1 / (3 * SMOOTHNESS))(objective, centre, same, None)[0][-1], problem
        )
        short = jax.tree.map(lambda leaf: leaf[:steps], same)
        mean = jax.vmap(lambda x: objective(x, problem))
        theirs = [
            mean(gradient_descent(rate)(objective, centre, short, None)[0]).mean() - least
            for rate in COMPARATORS
        ]
        ours = mean(iterates).mean() - least
        squared = jnp.sum(jax.grad(finite_sum_loss)(centre, problem) ** 2)
        return squared, ours, jnp.stack(theirs)

    by_epoch = jax.vmap(jax.vmap(epoch, (0, 0, None)), (0, 0, 0))
    squared, ours, theirs = jax.jit(by_epoch)(ran.centres[:, :-1], ran.iterates, problems)
    values = jax.vmap(jax.vmap(finite_sum_loss, (0, None)))(ran.centres, problems)
    best, scale = jnp.min(theirs.mean((0, 1))), 6 * SMOOTHNESS
    return TheoremRow(
        float(squared.mean()),
        float(scale * jnp.mean(values[:, 0] - values[:, -1]) / epochs),
        float(scale * (ours.mean() - best)),
        float(scale * best),
    )


def theorem_with_bandit(episodes: int, epochs: int, steps: int, seed: int = 0) -> TheoremRow:
    """Return Theorem 1's terms with Algorithm 5 as A; eta 0.1, L 1, delta_M ~ (N K S)^(-1/4)."""
    settings = BanditSettings(
        0.1, 0.0, kappa=1.0, gamma=0.5, history=1,
        perturbation=0.5 * (episodes * epochs * steps) ** -0.25,
    )  # fmt: skip
    carry = init_bandit(settings, jnp.zeros(2)), jax.random.PRNGKey(seed + 1)
    inner = bandit_inner(settings, lambda s: 0.003 * s**-0.75)
    return theorem_terms(episodes, epochs, steps, inner, carry, seed)


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

    Regret is against :func:`best_fixed_controller`, which is really run: it meets its own
    gradients.
    """
    rows = []
    for rounds in horizons:
        settings = bandit_settings(delta_scale * rounds**-0.25)
        run = functools.partial(
            _bandit_costs, settings=settings, epochs=rounds // EPOCH, scale=rate_scale
        )
        costs = jax.jit(jax.vmap(run))(jax.random.split(jax.random.PRNGKey(rounds), seeds))
        best = rounds * best_fixed_controller(settings)[1]
        rows.append(_regret_row(rounds, np.asarray(costs, np.float64).sum((1, 2)) - best))
    return rows


def bandit_settings(perturbation: float) -> BanditSettings:
    """Return what the regret experiment uses: one lag, whose norm is at most a half."""
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
    settings: BanditSettings, weights: Float[Array, "lags 3d 3d"], epochs: int
) -> Float[Array, "epochs rounds"]:
    """Return the costs of the regret experiment's rounds under a fixed controller, really run."""
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
) -> tuple[Float[np.ndarray, "lags 3d 3d"], float]:
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


def stability_norms(
    loss: Callable[[Array], Array],
    start: Float[Array, " d"],
    steps: int,
    learning_rate: float,
    weight_decay: float,
    beta: float,
    gradient_age: int = 1,
) -> Float[np.ndarray, "starts lengths"]:
    """Train without controls and return the norms of the products of the transitions met.

    The loss is regularised around the start with weight ``beta``, as in the first epoch of
    Algorithm 2. Costs 4 Hessians a step, then :func:`~metaopt.theory.dynamics.product_norms`.
    """
    objective = regularize(lambda x, _: loss(x), start, beta)
    gradient = jax.jit(jax.grad(lambda x: objective(x, None)))
    hessian = jax.jit(jax.hessian(lambda x: objective(x, None)))
    before = point = start
    slope, matrices = gradient(start), []
    for _ in range(steps):
        mean = mean_hessian(hessian, np.asarray(before), np.asarray(point))
        matrices.append(transition(mean, learning_rate, weight_decay, gradient_age))
        fresh = gradient(point)
        used = slope if gradient_age == 1 else fresh
        before, point, slope = (
            point,
            (1 - weight_decay) * point - learning_rate * used,
            fresh,
        )
    return product_norms(np.stack(matrices))
