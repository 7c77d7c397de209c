"""Algorithms 2 and 3 against closed forms and a solver of another kind."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from metaopt.theory.reduction import (
    gradient_descent,
    nonconvex_meta_optimization,
    reduce_to_convex,
    regularize,
)
from metaopt.theory.theorem_on_finite_sums import (
    SMOOTHNESS,
    finite_sum_loss,
    make_finite_sum,
    theorem_terms,
    theorem_with_bandit,
)

BETA = SMOOTHNESS


def test_sub_problems_are_strongly_convex_where_the_loss_is_not_even_convex():
    problem = make_finite_sum(jax.random.PRNGKey(0), 20, 3)
    points = 3 * jax.random.normal(jax.random.PRNGKey(1), (200, 3))
    centred = regularize(finite_sum_loss, jnp.ones(3), BETA)

    curvatures, regularized = (
        np.linalg.eigvalsh(jax.jit(jax.vmap(jax.hessian(f), (0, None)))(points, problem))
        for f in (finite_sum_loss, centred)
    )

    assert curvatures.min() < -0.05
    assert np.abs(curvatures).max() <= BETA
    assert regularized.min() >= BETA
    assert regularized.max() <= 3 * BETA
    assert centred(jnp.ones(3), problem) == finite_sum_loss(jnp.ones(3), problem)


def test_exact_solutions_of_a_quadratics_sub_problems_shrink_it_in_closed_form():
    # argmin h x^2 / 2 + beta (x - c)^2 = 2 beta c / (h + 2 beta)
    curvature, beta = 3.0, 2.0
    solver = lambda objective, x: x - jax.grad(objective)(x) / (curvature + 2 * beta)  # noqa: E731

    found = reduce_to_convex(
        lambda x: 0.5 * curvature * jnp.sum(x**2), jnp.array([1.0]), solver, beta, 5
    )

    expected = (2 * beta / (curvature + 2 * beta)) ** np.arange(6)
    np.testing.assert_allclose(found.centres[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found.gradient_norms, curvature * expected, rtol=1e-5)
    np.testing.assert_array_equal(found.best, found.centres[-1])


def test_the_best_centre_is_not_the_last_if_the_solver_overshoots():
    found = reduce_to_convex(
        lambda x: jnp.sum(x**2), jnp.array([1.0]), lambda f, x: 1 - 3 * x, 1.0, 3
    )

    np.testing.assert_allclose(found.centres[:, 0], [1, -2, 7, -20])
    np.testing.assert_array_equal(found.best, [1.0])


def test_gradient_norms_at_the_best_centre_fall_like_the_bound():
    problem = make_finite_sum(jax.random.PRNGKey(0), 50, 3)
    rows, targets = (np.float64(leaf) for leaf in problem)

    def value(x):
        r = rows @ x - targets
        return np.mean(r**2 / (1 + r**2))

    def slope(x):
        r = rows @ x - targets
        return rows.T @ (2 * r / (1 + r**2) ** 2) / len(r)

    def solver(objective, x):
        return x - jax.grad(objective)(x) / (4 * BETA)

    found = reduce_to_convex(
        lambda x: finite_sum_loss(x, problem), -jnp.ones(3), solver, BETA, 160
    )  # fmt: skip

    centres = np.float64(found.centres)
    errors = []  # by how much each sub-problem was missed, by quasi-Newton in double precision
    for centre, solution in itertools.pairwise(centres):
        value_k = lambda x, c=centre: value(x) + BETA * np.sum((x - c) ** 2)  # noqa: E731
        slope_k = lambda x, c=centre: slope(x) + 2 * BETA * (x - c)  # noqa: E731
        errors.append(value_k(solution) - minimize(value_k, solution, jac=slope_k).fun)
    squares = np.array([np.sum(slope(x) ** 2) for x in centres])
    for epochs in (5, 20, 160):
        descent = (value(centres[0]) - value(centres[epochs])) / epochs
        assert squares[:epochs].mean() <= 6 * BETA * (descent + np.mean(errors[:epochs]))
    assert squares[:160].min() < squares[:5].min() * 5 / 160
    np.testing.assert_allclose(np.sum(slope(np.float64(found.best)) ** 2), squares.min(), atol=1e-9)


def test_with_gradient_descent_inside_epochs_of_a_quadratic_have_a_closed_form():
    h, beta, rate, steps = 1.5, 1.0, 0.1, 6
    data = jnp.zeros((2, 4, steps))

    ran = nonconvex_meta_optimization(
        lambda x, _: 0.5 * h * jnp.sum(x**2), jnp.array([[1.0], [-3.0]]), data,
        gradient_descent(rate), None, beta,
    )  # fmt: skip

    least, contraction = 2 * beta / (h + 2 * beta), 1 - rate * (h + 2 * beta)
    within = least + (1 - least) * contraction ** np.arange(steps)
    centres = np.array([[1.0], [-3.0]]) * within.mean() ** np.arange(5)
    np.testing.assert_allclose(ran.centres[..., 0], centres, rtol=1e-5)
    np.testing.assert_allclose(ran.iterates[..., 0], centres[:, :-1, None] * within, rtol=1e-5)


def test_every_step_gets_its_datum_and_the_carry_passes_between_epochs():
    def inner(objective, start, data, carry):
        values = jax.vmap(objective, (None, 0))(start, data)
        return jnp.tile(start, (len(data), 1)), (carry[0] + 1, carry[1] + values.sum())

    data = jnp.arange(24.0).reshape(2, 3, 4)

    ran = nonconvex_meta_optimization(
        lambda x, datum: datum + 0 * x[0], jnp.ones((2, 1)), data, inner, (0, 0.0), 1.0
    )

    assert (int(ran.carry[0]), float(ran.carry[1])) == (6, 24 * 23 / 2)


@pytest.mark.parametrize("kind", ["gradient descent", "bandit"])
def test_the_terms_of_theorem_1_bound_the_average_squared_gradient_norm(kind):
    if kind == "bandit":
        row = theorem_with_bandit(2, 16, 10)
    else:
        row = theorem_terms(2, 16, 10, gradient_descent(0.1), jnp.zeros(()))

    assert 0 < row.left <= row.descent + row.regret + row.comparator
    assert row.comparator > 0


def test_the_best_comparator_has_zero_regret_and_a_slower_one_its_excess_cost():
    # Rates of gradient descent from the same centre in one epoch: only the comparator is shared.
    best, slow = (
        theorem_terms(2, 1, 10, gradient_descent(rate), jnp.zeros(())) for rate in (0.3, 0.0)
    )

    assert best.regret == pytest.approx(0, abs=1e-5)
    assert best.comparator == pytest.approx(slow.comparator, rel=1e-4)
    problems = [make_finite_sum(key, 20, 2) for key in jax.random.split(jax.random.PRNGKey(0), 2)]
    objective, gaps = jax.jit(regularize(finite_sum_loss, jnp.zeros(2), BETA)), []
    for problem in problems:
        least = minimize(lambda x, p=problem: float(objective(jnp.float32(x), p)), [0.0, 0.0],
                         method="Nelder-Mead", options={"fatol": 1e-9}).fun  # fmt: skip
        gaps.append(float(finite_sum_loss(jnp.zeros(2), problem)) - least)
    assert slow.regret + slow.comparator == pytest.approx(6 * BETA * np.mean(gaps), rel=1e-3)
