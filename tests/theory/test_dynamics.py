"""System (2), its products, and the best controller in hindsight, against plain recursions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import ScalarLags, frozen_control
from metaopt.theory.dynamics import (
    control_matrix,
    disturbance,
    fit_stability,
    interval_norms,
    mean_hessian,
    product_norms,
    transition,
)
from metaopt.theory.hindsight import (
    Recording,
    best_controller,
    full_basis,
    replay,
    scalar_basis,
    total_cost,
)
from metaopt.theory.stability_norms import stability_norms

RATE, DECAY = 0.1, 0.05


@pytest.fixture
def quadratics():
    """Twelve quadratics (x - c)' Q (x - c) / 2 in two dimensions, and controls."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(12, 2, 2))
    return roots @ roots.transpose(0, 2, 1), rng.normal(size=(12, 2)), rng.normal(size=(12, 2))


def run_system(start, curvatures, targets, controls, age):
    """Iterate z_{s+1} = A_s z_s + B u_s + w_s and return z_1, z_2, ..."""
    state, states = start, [start]
    for q, c, u in zip(curvatures, targets, controls, strict=True):
        noise = disturbance(q @ (state[2:4] - c), RATE, age)
        state = transition(q, RATE, DECAY, age) @ state + control_matrix(2) @ u + noise
        states.append(state)
    return np.array(states)


def test_the_printed_system_is_descent_on_the_gradient_of_the_step_before(quadratics):
    curvatures, targets, controls = quadratics
    x, before, slope = np.float64([1, -2]), np.float64([0.5, 1]), np.float64([0.3, -0.1])

    states = run_system(np.concatenate([x, before, slope]), *quadratics, age=1)

    for s, (q, c, u) in enumerate(zip(curvatures, targets, controls, strict=True)):
        np.testing.assert_allclose(states[s], [*x, *before, *slope], rtol=1e-9, atol=1e-9)
        x, before, slope = (1 - DECAY) * x - RATE * slope + u, x, q @ (x - c)


def test_the_variant_is_descent_on_the_gradient_of_the_step(quadratics):
    curvatures, targets, controls = quadratics
    x = np.float64([1, -2])

    states = run_system(np.concatenate([x, x, [0, 0]]), *quadratics, age=0)

    for s, (q, c, u) in enumerate(zip(curvatures, targets, controls, strict=True)):
        np.testing.assert_allclose(states[s][:2], x, rtol=1e-9, atol=1e-9)
        x = (1 - DECAY) * x - RATE * q @ (x - c) + u


def test_algorithm_7_is_the_variant_and_not_the_printed_system(train):
    curvature, weights = np.diag([1.0, 3.0]), np.array([0.05, -0.02])
    value = lambda x, a: 0.5 * jnp.sum(a * x**2)  # noqa: E731
    tx = frozen_control(ScalarLags(jnp.float32(weights)), RATE, weight_decay=DECAY)
    start = np.array([1.0, -1.0])

    iterates = train(tx, value, jnp.float32(start), [jnp.array([1.0, 3.0])] * 8)

    gradients = np.array(iterates) @ curvature
    controls = [
        -sum(weights[h] * gradients[s - h] for h in range(2) if s >= h) for s in range(8)
    ]  # fmt: skip
    given = ([curvature] * 8, np.zeros((8, 2)), controls)
    ours, printed = (
        run_system(np.concatenate([start, start, [0, 0]]), *given, age=age)[:, :2] for age in (0, 1)
    )
    np.testing.assert_allclose(iterates, ours, rtol=1e-5, atol=1e-6)
    assert np.abs(printed - iterates).max() > 0.05


def test_the_mean_hessian_satisfies_equation_1_on_a_network():
    def loss(x):
        return jnp.sum(jnp.tanh(jnp.outer(x[:3], jnp.array([0.3, -1.0]))) ** 2) * jnp.cos(x[3])

    before, after = np.array([0.1, 0.5, -0.3, 0.2]), np.array([0.3, 0.1, 0.2, 0.5])
    gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))

    mean = mean_hessian(hessian, before, after)

    change = np.asarray(gradient(after)) - np.asarray(gradient(before))
    np.testing.assert_allclose(mean @ (after - before), change, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mean, mean.T, atol=1e-6)


def test_products_decay_with_weight_decay_and_not_without_where_the_hessian_is_singular():
    singular = np.diag([1.0, 0.0])

    still, decaying = (
        product_norms(np.stack([transition(singular, 0.1, decay)] * 60)) for decay in (0.0, 0.1)
    )

    assert np.nanmin(still[:, -1]) >= 1 - 1e-12  # the flat direction is an eigenvector of 1
    # With the same matrix at each step, lengths matter and starts do not: its spectral radius.
    radius = np.abs(np.linalg.eigvals(transition(singular, 0.1, 0.1))).max()
    np.testing.assert_allclose(decaying[0, -1] / decaying[0, -2], radius, rtol=1e-3)
    assert fit_stability(still).gamma < 1e-9
    assert fit_stability(decaying).gamma == pytest.approx(1 - radius, rel=0.2)


@pytest.mark.parametrize("age", [0, 1])
def test_without_weight_decay_no_product_decays_however_convex_the_losses(quadratics, age):
    # A point at rest stays: grad f_s(x_{s-1}), which would move it, is in the disturbance.
    matrices = np.stack([transition(q + 2 * np.eye(2), RATE, 0.0, age) for q in quadratics[0]])
    at_rest = np.array([1.0, -2.0, 1.0, -2.0, 0.0, 0.0])

    norms = product_norms(matrices)

    for matrix in matrices:
        np.testing.assert_allclose(matrix @ at_rest, at_rest, atol=1e-12)
    assert np.nanmin(norms) >= 1


@pytest.mark.parametrize("age", [0, 1])
def test_products_on_a_regularised_quadratic_are_powers_of_its_constant_matrix(age):
    hessian = np.diag([1.0, 0.0])

    norms = stability_norms(
        lambda x, curvature: 0.5 * curvature * x[0] ** 2, jnp.array([1.0, -1.0]), 1.0,
        steps=6, learning_rate=RATE, weight_decay=DECAY, beta=0.5, gradient_age=age,
    )  # fmt: skip

    matrix = transition(hessian + np.eye(2), RATE, DECAY, age)
    powers = [np.linalg.norm(np.linalg.matrix_power(matrix, n), 2) for n in range(1, 7)]
    np.testing.assert_allclose(norms[0], powers, rtol=1e-4)


@pytest.mark.parametrize("age", [0, 1])
def test_beyond_a_hundred_parameters_vectors_find_the_norms_that_matrices_have(age):
    rng = np.random.default_rng(4)
    roots = rng.normal(size=(3, 110, 6)) * [1.0, 0.9, 0.5, 0.1, 0.1, 0.1] / 6
    hessians = roots @ roots.transpose(0, 2, 1)

    norms = interval_norms(hessians, RATE, DECAY, age)

    matrices = np.stack([transition(h, RATE, DECAY, age) for h in hessians])
    np.testing.assert_allclose(norms, product_norms(matrices), rtol=1e-5)


@pytest.mark.parametrize("age", [0, 1])
def test_transitions_are_those_of_the_points_that_training_visits(age):
    # Of x^4 / 4 the mean Hessian is (y^3 - x^3) / (y - x), and the newest transition alone shows.
    norms = stability_norms(
        lambda x, _: jnp.sum(x**4) / 4, jnp.array([0.9]), None,
        steps=4, learning_rate=RATE, weight_decay=DECAY, beta=0.2, gradient_age=age,
    )  # fmt: skip

    slope = lambda x: x**3 + 0.4 * (x - 0.9)  # noqa: E731
    points = [0.9, 0.9]
    for _ in range(3):
        used = points[-2] if age == 1 else points[-1]
        points.append((1 - DECAY) * points[-1] - RATE * slope(used))
    means = [3 * 0.9**2 + 0.4] + [
        (slope(after) - slope(before)) / (after - before)
        for before, after in itertools.pairwise(points[1:])
    ]
    expected = [np.linalg.norm(transition(np.array([[h]]), RATE, DECAY, age), 2) for h in means]
    np.testing.assert_allclose(norms[:, 0], expected, rtol=1e-5)


def test_training_that_diverges_has_no_norms():
    with pytest.raises(FloatingPointError, match=r"diverged by step [23]"):
        stability_norms(
            lambda x, _: jnp.sum(x**4), jnp.array([1e9]), None,
            steps=5, learning_rate=RATE, weight_decay=DECAY, beta=0.0,
        )  # fmt: skip


def test_products_have_the_newest_transition_on_the_left():
    first, second = np.array([[0.0, 2.0], [0.0, 0.0]]), np.diag([3.0, 5.0])

    norms = product_norms(np.stack([first, second]))

    np.testing.assert_allclose(norms, [[2, 6], [5, np.nan]])


def test_the_fit_recovers_a_geometric_decay_and_bounds_every_norm():
    rng = np.random.default_rng(1)
    exact = 4.0 * 0.8 ** np.arange(1, 31)
    norms = exact * rng.uniform(0.2, 1.0, size=(50, 30))
    norms[0] = exact

    kappa, gamma, worst = fit_stability(norms)

    assert (kappa, gamma) == pytest.approx((2.0, 0.2), rel=1e-6)
    assert np.all(worst <= kappa**2 * (1 - gamma) ** np.arange(1, 31) * (1 + 1e-9))


@pytest.fixture
def recording(quadratics):
    """Twelve steps of system (2) with recorded disturbances, one of them a reset."""
    curvatures, targets, _ = quadratics
    rng = np.random.default_rng(2)
    noise = np.array([disturbance(g, RATE) for g in rng.normal(size=(12, 2))])
    noise[5] = rng.normal(size=6)
    matrices = np.array([transition(q, RATE, DECAY) for q in curvatures])
    return Recording(rng.normal(size=6), matrices, noise, curvatures, targets)


@pytest.mark.parametrize("basis", [full_basis(1, 2), scalar_basis(3, 2)], ids=["full", "scalar"])
def test_the_hindsight_controller_satisfies_the_normal_equations(recording, basis):
    best = best_controller(recording, basis)

    # The cost is quadratic: central differences of the plain recursion are exact.
    slopes = [
        (total_cost(recording, best.weights + e) - total_cost(recording, best.weights - e)) / 2
        for e in basis
    ]
    np.testing.assert_allclose(slopes, 0, atol=1e-8 * total_cost(recording, best.weights + 1))


def test_no_controller_of_a_grid_beats_the_one_in_hindsight(recording):
    basis = scalar_basis(2, 2)
    best = best_controller(recording, basis)

    costs = [
        total_cost(recording, a * basis[0] + b * basis[1])
        for a in np.linspace(-2, 2, 21)
        for b in np.linspace(-2, 2, 21)
    ]

    assert best.cost <= min(costs)
    assert min(costs) < best.cost + 0.05 * (np.median(costs) - best.cost)  # the grid is near it


def test_full_matrices_in_hindsight_are_at_least_as_good_as_scalars(recording):
    scalar = best_controller(recording, scalar_basis(2, 2))
    full = best_controller(recording, full_basis(2, 2))

    assert full.cost < scalar.cost < total_cost(recording, np.zeros((1, 2, 6)))


def test_replay_of_the_controller_that_was_run_gives_its_iterates(quadratics):
    curvatures, targets, _ = quadratics
    weights = np.random.default_rng(3).normal(size=(2, 2, 6)) / 10
    state, past, states, noises = np.ones(6), np.zeros((2, 6)), [], []
    for q, c in zip(curvatures, targets, strict=True):
        control = sum(weights[lag] @ past[lag] for lag in range(2))
        noise = np.concatenate([np.zeros(4), q @ (state[2:4] - c)])
        states.append(state)
        noises.append(noise)
        x, slope = state[:2], q @ (state[:2] - c)
        state = np.concatenate([(1 - DECAY) * x - RATE * state[4:] + control, x, slope])
        past = np.stack([noise, past[0]])
    matrices = np.array([transition(q, RATE, DECAY) for q in curvatures])
    recording = Recording(np.ones(6), matrices, np.array(noises), curvatures, targets)

    iterates = replay(recording, weights)

    np.testing.assert_allclose(iterates, np.array(states)[:, :2], rtol=1e-9, atol=1e-9)
