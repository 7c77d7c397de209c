r"""Experiments on the paper's guarantees: small problems, settings as arguments, arrays back.

``tests/performance/theory.py`` prints them. Letters as in the modules they use. The nonconvex
finite sum has terms phi(a_j' x - b_j) with phi(r) = r^2 / (1 + r^2) and |a_j| = 1: values in
[0, 1), second derivative of phi in [-1/2, 2], so beta = 2.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
from metaopt.theory.dynamics import disturbance, interval_norms, mean_hessian, transition
from metaopt.theory.hindsight import Hindsight, Recording, best_shared_controller, full_basis
from metaopt.theory.reduction import (
    Inner,
    Loss,
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

        def with_rate(rate: Array) -> Array:
            return mean(gradient_descent(rate)(objective, centre, short, None)[0]).mean() - least

        theirs = jax.vmap(with_rate)(jnp.array(COMPARATORS))
        ours = mean(iterates).mean() - least
        squared = jnp.sum(jax.grad(finite_sum_loss)(centre, problem) ** 2)
        return squared, ours, theirs

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
    inner, carry = _theorem_bandit(episodes * epochs * steps, seed)
    return theorem_terms(episodes, epochs, steps, inner, carry, seed)


def _theorem_bandit(rounds: int, seed: int) -> tuple[Inner, object]:
    """Return Algorithm 5 and what it starts from; d = 2."""
    settings = BanditSettings(
        0.1, 0.0, kappa=1.0, gamma=0.5, history=1, perturbation=0.5 * rounds**-0.25
    )
    carry = init_bandit(settings, jnp.zeros(2)), jax.random.PRNGKey(seed + 1)
    return bandit_inner(settings, lambda s: 0.003 * s**-0.75), carry


class Quadratics(NamedTuple):
    """Losses (x - c)' Q (x - c) / 2, one per episode."""

    curvatures: Float[Array, "*episodes d d"]  # Q_i, eigenvalues in [0.1, beta]
    minima: Float[Array, "*episodes d"]  # c_i


def make_quadratics(seed: int, episodes: int, dimension: int) -> Quadratics:
    """Return quadratics with independent curvatures, and minima at a distance of 1 from 0."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(episodes, dimension, dimension)))[0]
    values = rng.uniform(0.1, SMOOTHNESS, size=(episodes, 1, dimension))
    minima = rng.normal(size=(episodes, dimension))
    minima /= np.linalg.norm(minima, axis=1, keepdims=True)
    return Quadratics(jnp.float32((axes * values) @ axes.transpose(0, 2, 1)), jnp.float32(minima))


def quadratic_loss(x: Float[Array, " d"], problem: Quadratics) -> Float[Array, ""]:
    """Return (x - c)' Q (x - c) / 2."""
    gap = x - problem.minima
    return gap @ problem.curvatures @ gap / 2


class HindsightRun(NamedTuple):
    """Theorem 1 on quadratics, with what its comparator is."""

    row: TheoremRow
    best: Hindsight  # the best controller of the class, its cost over all rounds
    recordings: list[Recording]  # one for each epoch of each episode


def quadratic_theorem(
    episodes: int,
    epochs: int,
    steps: int,
    inner: Inner,
    carry: object,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    gradient_age: int,
    lags: int = 1,
    seed: int = 0,
) -> HindsightRun:
    """Run Algorithm 2 on quadratics in 2 dimensions and compare it with the best controller.

    The comparator is known exactly: full matrices M^1 .. M^L, the same for all rounds, of least
    cost (:mod:`metaopt.theory.hindsight`). In each sub-problem it starts from the centre that the
    algorithm had, with the disturbances that the algorithm met there and none from before. Costs
    of a sub-problem are above its minimum, so its cost is the comparator's term.

    Args:
        episodes: N.
        epochs: K.
        steps: S.
        inner: A, on sub-problems of Hessian Q_i + 2 beta.
        carry: What A starts from.
        learning_rate: eta of A and of the system that the comparator controls.
        weight_decay: delta of both.
        gradient_age: Which gradient A steps along: 0 for gradient descent, 1 for Algorithm 5.
        lags: L of the comparator.
        seed: Of the quadratics.
    """
    problems, starts = make_quadratics(seed, episodes, 2), jnp.zeros((episodes, 2))
    shape = episodes, epochs, steps
    data = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[:, None, None], shape + leaf.shape[1:]), problems
    )
    run = functools.partial(nonconvex_meta_optimization, quadratic_loss, inner=inner)
    ran = jax.jit(functools.partial(run, beta=SMOOTHNESS))(starts, data, carry=carry)
    centres, iterates = (np.asarray(part, np.float64) for part in (ran.centres, ran.iterates))
    curvatures, minima = (np.asarray(leaf, np.float64) for leaf in problems)

    recordings, ours = [], 0.0
    for i, (q, c) in enumerate(zip(curvatures, minima, strict=True)):
        hessian = q + 2 * SMOOTHNESS * np.eye(2)
        for k in range(epochs):
            points = iterates[i, k]
            least = np.linalg.solve(hessian, q @ c + 2 * SMOOTHNESS * points[0])
            before = np.concatenate([points[:1], points[:-1]])
            recordings.append(
                Recording(
                    np.concatenate([points[0], points[0], np.zeros(2)]),
                    np.array([transition(hessian, learning_rate, weight_decay, gradient_age)])
                    .repeat(steps, axis=0),
                    np.array(
                        [
                            disturbance(hessian @ (x - least), learning_rate, gradient_age)
                            for x in before
                        ]
                    ),
                    np.array([hessian]).repeat(steps, axis=0),
                    np.array([least]).repeat(steps, axis=0),
                )
            )  # fmt: skip
            ours += np.einsum("si,ij,sj->", points - least, hessian, points - least) / 2
    best = best_shared_controller(recordings, full_basis(lags, 2))

    gaps = centres - minima[:, None]
    values = np.einsum("nki,nij,nkj->nk", gaps, curvatures, gaps) / 2
    slopes = np.einsum("nij,nkj->nki", curvatures, gaps[:, :-1])
    scale = 6 * SMOOTHNESS / (episodes * epochs * steps)
    row = TheoremRow(
        float(np.mean(np.sum(slopes**2, axis=-1))),
        float(6 * SMOOTHNESS * np.mean(values[:, 0] - values[:, -1]) / epochs),
        float(scale * (ours - best.cost)),
        float(scale * best.cost),
    )
    return HindsightRun(row, best, recordings)


def quadratic_theorem_with_bandit(
    episodes: int, epochs: int, steps: int, seed: int = 0
) -> HindsightRun:
    """Return :func:`quadratic_theorem` with Algorithm 5 as A, set as in the experiment above."""
    inner, carry = _theorem_bandit(episodes * epochs * steps, seed)
    return quadratic_theorem(
        episodes, epochs, steps, inner, carry, learning_rate=0.1, gradient_age=1, seed=seed
    )


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
    settings: BanditSettings, weights: Float[Array, "lags state state"], epochs: int
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


def stability_norms(
    loss: Loss,
    start: Float[Array, " d"],
    data: Any,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    beta: float,
    gradient_age: int = 1,
) -> Float[np.ndarray, "starts lengths"]:
    """Train without controls and return the norms of the products of the transitions met.

    The loss is regularised around the start with weight ``beta``, as in the first epoch of
    Algorithm 2. Costs two Hessians a step, for steps are short, then
    :func:`~metaopt.theory.dynamics.interval_norms`.
    Compiles once for each ``loss``: what differs between runs belongs into ``data``.

    Args:
        loss: ``loss(x, data)``.
        start: x_1.
        data: Given to every call of the loss.
        steps: Number of transitions.
        learning_rate: eta.
        weight_decay: delta.
        beta: Weight of the regulariser.
        gradient_age: 1 for the printed system, 0 for Algorithm 7's.

    Raises:
        FloatingPointError: Training diverged; says at which step.
    """
    first = np.asarray(start, np.float64)

    def gradient(x: np.ndarray) -> np.ndarray:
        slope = np.asarray(_gradient(loss)(jnp.asarray(x, start.dtype), data), np.float64)
        return slope + 2 * beta * (x - first)

    def hessian(x: np.ndarray) -> np.ndarray:
        bare = np.asarray(_hessian(loss)(jnp.asarray(x, start.dtype), data), np.float64)
        return bare + 2 * beta * np.eye(len(x))

    before = point = first
    slope, hessians = gradient(first), []
    for step in range(steps):
        with np.errstate(over="ignore", invalid="ignore"):  # found by the next line
            hessians.append(mean_hessian(hessian, before, point, nodes=2))
            if not np.all(np.isfinite(hessians[-1])):
                raise FloatingPointError(f"training diverged by step {step + 1}")
            fresh = gradient(point)
            used = slope if gradient_age == 1 else fresh
            moved = (1 - weight_decay) * point - learning_rate * used
        before, point, slope = point, moved, fresh
    return interval_norms(np.stack(hessians), learning_rate, weight_decay, gradient_age)


@functools.lru_cache(maxsize=8)
def _gradient(loss: Loss) -> Callable[[Array, Any], Array]:
    return jax.jit(jax.grad(loss))


@functools.lru_cache(maxsize=8)
def _hessian(loss: Loss) -> Callable[[Array, Any], Array]:
    return jax.jit(jax.hessian(loss))
