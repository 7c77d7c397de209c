"""Algorithm 6 against a literal transcription, exact expectations and its bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.theory.bco_memory import bco_step, init_bco, project_to_ball, regret_bound
from metaopt.theory.regret import growth_exponent, sample_sphere
from metaopt.theory.regret_experiments import bco_regrets


def test_draws_from_the_sphere_have_norm_1_and_no_direction():
    draws = jax.jit(jax.vmap(lambda key: sample_sphere(key, (2, 3)).ravel()))(
        jax.random.split(jax.random.PRNGKey(0), 20_000)
    )

    np.testing.assert_allclose(np.linalg.norm(draws, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.015)
    np.testing.assert_allclose(np.cov(draws.T), np.eye(6) / 6, atol=0.01)


@pytest.mark.parametrize("memory", [1, 3])
def test_rounds_equal_algorithm_6(memory):
    delta, rounds, d = 0.3, 12, 2
    loss = lambda y: jnp.sum((y[0] - 0.5) ** 2) + jnp.sum(y[-1] * y[0])  # noqa: E731
    state = init_bco(jnp.array([0.3, 0.1]), memory, delta, jax.random.PRNGKey(0))
    step = jax.jit(
        lambda state, key: bco_step(
            state, loss, 0.5 * state.round**-0.75, delta, project_to_ball(1.0), key
        )
    )

    states, costs = [state], []
    for key in jax.random.split(jax.random.PRNGKey(1), rounds):
        state, cost = step(states[-1], key)
        states.append(state)
        costs.append(cost)

    # Indexed by the paper's t; the noise is taken as drawn.
    u = {t: states[0].noise[t - 1] for t in range(1, memory + 1)}
    u |= {memory + i: state.noise[-1] for i, state in enumerate(states)}
    x = {t: np.array([0.3, 0.1]) for t in range(1, memory + 1)}
    y = {t: x[t] + delta * u[t] for t in x}
    g = {t: np.zeros(d) for t in range(1, memory)}
    for i, t in enumerate(range(memory, memory + rounds)):
        cost = loss(np.array([y[t - memory + 1 + j] for j in range(memory)]))
        g[t] = d / delta * cost * sum(u[t - j] for j in range(memory))
        moved = x[t] - 0.5 * t**-0.75 * g[t - memory + 1]
        x[t + 1] = moved * min(1, (1 - delta) / np.linalg.norm(moved))
        y[t + 1] = x[t + 1] + delta * u[t + 1]
        assert int(states[i].round) == t
        np.testing.assert_allclose(costs[i], cost, rtol=1e-4)
        np.testing.assert_allclose(states[i + 1].point, x[t + 1], rtol=1e-4, atol=1e-5)
    lengths = [np.linalg.norm(point) for point in x.values()]
    assert max(lengths) == pytest.approx(1 - delta)  # the shrunk set's edge was reached


def test_the_estimate_is_unbiased_for_the_gradient_of_a_quadratic_of_one_point():
    # Smoothing a quadratic adds a constant: its gradient on the diagonal is exact.
    memory, delta = 3, 0.5
    weights, x = jnp.array([0.5, -0.2, 0.9]), jnp.array([0.2, -0.4])
    loss = lambda y: 0.5 * jnp.sum((weights @ y - 1.0) ** 2)  # noqa: E731

    def estimate(key):
        state = init_bco(x, memory, delta, key)
        return bco_step(state, loss, 0.0, delta, project_to_ball(1.0), key)[0].estimates[-1]

    draws = np.float64(
        jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.PRNGKey(0), 200_000))
    )

    expected = 1.2 * (1.2 * np.asarray(x) - 1)
    error = 5 * draws.std(0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - expected) < error)
    assert np.all(error < 0.1 * np.abs(expected))


def test_regret_is_below_the_bound_and_grows_no_faster_than_it():
    rows = bco_regrets((128, 2048), seeds=32)

    for rounds, regret, _ in rows:
        # |mean - target| <= 2 in the unit ball: losses up to 2, slope of at most 2 / sqrt(L).
        bound = regret_bound(
            rounds=rounds, dimension=2, memory=3, diameter=2.0, bound=2.0, lipschitz=2 / 3**0.5,
            smoothness=1 / 3, rate_scale=0.3, delta=rounds**-0.25,
        )  # fmt: skip
        assert 0 < regret < bound
    assert growth_exponent(*np.array([row[:2] for row in rows]).T) < 0.75 + 0.05


def test_growth_exponent_recovers_a_power_and_refuses_non_positive_regret():
    rounds = np.array([10.0, 100.0, 1000.0])

    assert growth_exponent(rounds, 3 * rounds**0.75) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="`regrets` must be positive"):
        growth_exponent(rounds, rounds - 10)
