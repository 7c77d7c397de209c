r"""Algorithm 3 and Theorem 1 on nonconvex finite sums: both sides of the bounds, as numbers.

``tests/performance/theory.py`` prints them. Letters as in :mod:`metaopt.theory.reduction`. The
terms are phi(a_j' x - b_j) with phi(r) = r^2 / (1 + r^2) and |a_j| = 1: values in [0, 1), second
derivative of phi in [-1/2, 2], so beta = 2.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaopt.theory.bandit import BanditSettings, bandit_inner, init_bandit
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
    inner, carry = theorem_bandit(episodes * epochs * steps, seed)
    return theorem_terms(episodes, epochs, steps, inner, carry, seed)


def theorem_bandit(rounds: int, seed: int) -> tuple[Inner, object]:
    """Return Algorithm 5 for 2 dimensions and its start; ``rounds`` is N K S."""
    settings = BanditSettings(
        0.1, 0.0, kappa=1.0, gamma=0.5, history=1, perturbation=0.5 * rounds**-0.25
    )
    carry = init_bandit(settings, jnp.zeros(2)), jax.random.PRNGKey(seed + 1)
    return bandit_inner(settings, lambda s: 0.003 * s**-0.75), carry
