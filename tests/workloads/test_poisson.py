"""The Poisson problem: its exact solution, its residuals, and the two modes of its network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.poisson_pinn import Field, relative_error, residual, solution
from metaopt.workloads.registry import get_workload

KEY = jax.random.PRNGKey(0)
POINTS = jax.random.uniform(KEY, (50, 2))
PINN = get_workload("poisson_pinn")


@pytest.fixture(scope="module")
def params():
    params, state = PINN.init_model_fn(KEY)
    assert state is None
    return params


def field(params, point):
    return Field((32, 32)).apply({"params": params["field"]}, point)


def outputs(params, mode, points=POINTS):
    batch = {"inputs": points, "targets": jnp.zeros(len(points))}
    return jax.jit(lambda p: PINN.model_fn(p, batch, None, mode, KEY, False)[0])(params)


def test_the_exact_solution_has_zero_residual():
    residuals = jax.vmap(lambda point: residual(solution, point))(POINTS)

    np.testing.assert_allclose(residuals, 0, atol=2e-5)  # of terms up to 20


@pytest.mark.parametrize(
    "u, laplacian",
    [
        (lambda p: jnp.zeros(()), 0.0), (lambda p: p[0] ** 2 + 3.0 * p[1] ** 2, 8.0),
        (lambda p: p[0] * p[1], 0.0), (lambda p: jnp.exp(p[0]) * jnp.sin(p[1]), 0.0),
    ],
    ids=["zero", "a parabola", "a saddle", "a harmonic function"],
)  # fmt: skip
def test_the_residual_is_the_laplacian_plus_the_source(u, laplacian):
    residuals = jax.vmap(lambda point: residual(u, point))(POINTS)

    source = 2 * np.pi**2 * np.sin(np.pi * POINTS[:, 0]) * np.sin(np.pi * POINTS[:, 1])
    np.testing.assert_allclose(residuals, source + laplacian, rtol=1e-3, atol=1e-4)


def test_the_model_returns_residuals_in_training_and_the_field_in_evaluation(params):
    values = jax.vmap(lambda point: field(params, point))(POINTS)
    hessians = jax.vmap(jax.hessian(lambda point: field(params, point)))(POINTS)

    residuals = outputs(params, ForwardPassMode.TRAIN)

    np.testing.assert_allclose(outputs(params, ForwardPassMode.EVAL), values, rtol=1e-5, atol=1e-6)
    source = 2 * jnp.pi**2 * solution(POINTS)
    expected = jnp.trace(hessians, axis1=1, axis2=2) + source
    np.testing.assert_allclose(residuals, expected, rtol=1e-3, atol=1e-3)


def test_the_field_is_zero_on_the_boundary(params):
    along = jnp.linspace(0.0, 1.0, 9)
    sides = [jnp.stack(pair, 1) for at in (0.0, 1.0)
             for pair in ((along, at + 0 * along), (at + 0 * along, along))]  # fmt: skip

    values = outputs(params, ForwardPassMode.EVAL, jnp.concatenate(sides))

    np.testing.assert_array_equal(values, 0)
    np.testing.assert_allclose(solution(jnp.concatenate(sides)), 0, atol=1e-6)


def test_training_targets_are_zero_and_those_of_evaluations_the_solution():
    trained = next(PINN._build_input_queue(np.array([0, 1], np.uint32), "train"))
    evaluated = next(PINN._build_input_queue(None, "validation", "", 32))

    assert not np.any(trained["targets"])
    x, y = np.asarray(evaluated["inputs"]).T
    expected = np.sin(np.pi * x) * np.sin(np.pi * y)
    np.testing.assert_allclose(evaluated["targets"], expected, atol=1e-6)


def test_the_error_of_zero_is_one_and_that_of_the_solution_zero():
    axis = (jnp.arange(40.0) + 0.5) / 40
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    exact = solution(grid)

    errors = [float(relative_error(exact, guess, None)) for guess in (0 * exact, exact, 2 * exact)]

    assert errors == pytest.approx([1, 0, 1], abs=1e-4)


def test_the_fixed_form_reports_the_mean_squared_residual_that_it_trains(params):
    fixed = fix_batch(PINN)

    found = fixed.eval_model(64, params, None)

    residuals = outputs(params, ForwardPassMode.TRAIN, fixed.batch["inputs"])
    assert found["validation/loss"] == pytest.approx(float(jnp.square(residuals).mean()), rel=1e-4)
