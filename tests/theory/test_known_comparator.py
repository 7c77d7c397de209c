"""Theorem 1 on quadratics against the best controller of the class, which is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.theory.hindsight import best_controller, best_shared_controller, full_basis, total_cost
from metaopt.theory.reduction import gradient_descent
from metaopt.theory.theorem_on_finite_sums import SMOOTHNESS
from metaopt.theory.theorem_on_quadratics import (
    make_quadratics,
    quadratic_theorem,
    quadratic_theorem_with_bandit,
)

SIZES = N, K, S = 3, 4, 6
SLOW = 0.02


@pytest.fixture(scope="module")
def slow_descent():
    """Gradient descent with a rate that leaves a controller much to do, and two lags to do it."""
    inner = gradient_descent(SLOW)
    given = {"learning_rate": SLOW, "gradient_age": 0, "lags": 2}
    return quadratic_theorem(*SIZES, inner, jnp.zeros(()), **given)


@pytest.fixture(scope="module")
def bandit():
    """Algorithm 5."""
    return quadratic_theorem_with_bandit(*SIZES)


@pytest.fixture(params=["slow_descent", "bandit"])
def run(request):
    """Each of both."""
    return request.getfixturevalue(request.param)


def cost_of(run, weights):
    """Run a controller on the recorded disturbances by plain recursion; return its total cost."""
    total = 0.0
    for recording in run.recordings:
        matrix = recording.transitions[0]
        state, noises = recording.start, recording.disturbances
        for s in range(S):
            gap = state[:2] - recording.targets[s]
            total += gap @ recording.curvatures[s] @ gap / 2
            control = np.zeros(2)
            for lag in range(1, min(s, len(weights)) + 1):
                control += weights[lag - 1] @ noises[s - lag]
            state = matrix @ state + noises[s] + np.concatenate([control, np.zeros(4)])
    return total


def test_the_terms_against_the_known_comparator_bound_the_squared_gradient_norm(run):
    row = run.row

    assert 0 < row.left <= row.descent + row.regret + row.comparator
    assert row.left > row.descent / 3  # and not by much
    assert row.comparator > 0


def test_perturbing_the_comparator_does_not_lower_its_cost(run):
    rng, best = np.random.default_rng(0), run.best.weights

    least = cost_of(run, best)

    assert run.row.comparator == pytest.approx(6 * SMOOTHNESS / (N * K * S) * least)
    for size in (1e-3, 1e-1, 10.0):
        for _ in range(20):
            step = rng.normal(size=best.shape)
            up, down = (cost_of(run, best + sign * size * step) for sign in (1, -1))
            # A quadratic's minimum: nothing below, and as far up on one side as on the other.
            assert min(up, down) >= least * (1 - 1e-12)
            assert up - least == pytest.approx(down - least, rel=1e-4, abs=1e-9 * least)
    assert cost_of(run, best + 1e-1) > least


def test_regret_of_gradient_descent_is_the_cost_saved_by_the_best_controller(slow_descent):
    zero, scale = np.zeros((1, 2, 6)), 6 * SMOOTHNESS / (N * K * S)

    saved = cost_of(slow_descent, zero) - slow_descent.best.cost

    assert slow_descent.row.regret == pytest.approx(scale * saved, rel=1e-4)
    assert slow_descent.row.regret > 0.1 * slow_descent.row.comparator


def test_gradient_descents_side_of_theorem_1_has_a_closed_form(slow_descent):
    # x_s - x* = (I - eta H)^(s-1) (x_1 - x*) with H = Q + 2 beta and x* - c = 2 beta / H (x_1 - c).
    curvatures, minima = map(np.float64, make_quadratics(0, N, 2))
    squares, falls = [], []
    for q, c in zip(curvatures, minima, strict=True):
        h = q + 2 * SMOOTHNESS * np.eye(2)
        towards = 2 * SMOOTHNESS * np.linalg.inv(h)
        powers = [np.linalg.matrix_power(np.eye(2) - SLOW * h, s) for s in range(S)]
        epoch = towards + np.mean(powers, axis=0) @ (np.eye(2) - towards)
        gaps = [np.linalg.matrix_power(epoch, k) @ -c for k in range(K + 1)]
        squares += [np.sum((q @ gap) ** 2) for gap in gaps[:K]]
        falls.append((gaps[0] @ q @ gaps[0] - gaps[K] @ q @ gaps[K]) / 2)

    assert slow_descent.row.left == pytest.approx(np.mean(squares), rel=1e-4)
    assert slow_descent.row.descent == pytest.approx(6 * SMOOTHNESS * np.mean(falls) / K, rel=1e-4)


def test_a_controller_shared_by_recordings_is_best_for_their_sum_and_for_no_other(slow_descent):
    first, other = slow_descent.recordings[0], slow_descent.recordings[-1]
    basis = full_basis(1, 2)

    alone, twice, both = (
        best_shared_controller(given, basis) for given in ([first], [first, first], [first, other])
    )

    assert alone.cost == pytest.approx(best_controller(first, basis).cost)
    assert twice.cost == pytest.approx(2 * alone.cost)
    parts = [total_cost(recording, both.weights) for recording in (first, other)]
    assert both.cost == pytest.approx(sum(parts))
    assert parts[0] > alone.cost * 1.001


def test_without_a_recording_there_is_no_controller():
    with pytest.raises(ValueError, match="`recordings` must hold at least one"):
        best_shared_controller([], full_basis(1, 2))
