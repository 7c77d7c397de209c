"""Algorithm 5 against system (2), exact expectations and the best fixed controller."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.theory.bandit import (
    BanditSettings,
    BanditState,
    bandit_inner,
    bandit_step,
    init_bandit,
    lag_bounds,
    project_weights,
    redirect,
)
from metaopt.theory.dynamics import transition
from metaopt.theory.reduction import nonconvex_meta_optimization
from metaopt.theory.regret import growth_exponent
from metaopt.theory.regret_experiments import bandit_regrets


def settings_with(**changes):
    common = {"learning_rate": 0.1, "weight_decay": 0.05, "kappa": 1.0, "gamma": 0.3}
    return BanditSettings(**{**common, "history": 2, "perturbation": 0.2, **changes})


Q = np.array([[2.0, 0.5], [0.5, 1.0]])


def quadratic(x):
    return 0.5 * (x - 1) @ jnp.asarray(Q, jnp.float32) @ (x - 1)


@functools.partial(jax.jit, static_argnums=0)  # compiled once for all tests of the same settings
def step(settings, state, rate, key, *last):
    return bandit_step(settings, state, quadratic, rate, key, *last)


def play(settings, rounds, rate=0.01, resets=()):
    """Return states and infos of a run on a quadratic in two dimensions."""
    states, infos = [init_bandit(settings, jnp.array([1.0, -1.0]))], []
    keys = jax.random.split(jax.random.PRNGKey(0), rounds)
    for s, key in enumerate(keys, start=1):
        last = (jnp.array([0.5, float(s)]),) if s in resets else ()
        state, info = step(settings, states[-1], rate, key, *last)
        states.append(state)
        infos.append(info)
    return states, infos


def test_states_follow_the_printed_system_and_equation_8_moves_them_to_the_start():
    states, infos = play(settings_with(), 12, resets=(5, 10))
    matrix = transition(Q, 0.1, 0.05)

    for s, (before, info, after) in enumerate(zip(states, infos, states[1:], strict=False), 1):
        pushed = np.concatenate([info.control[:2], np.zeros(4)])
        moved = matrix @ np.float64(before.state) + pushed + np.float64(info.disturbance)
        np.testing.assert_allclose(after.state, moved, rtol=1e-4, atol=1e-4)
        if s in (5, 10):
            np.testing.assert_allclose(after.state, [0.5, s, 0.5, s, 0, 0], atol=1e-6)
        else:
            gradient = Q @ (np.float64(before.state[2:4]) - 1)
            np.testing.assert_allclose(info.disturbance, [0, 0, 0, 0, *gradient], atol=1e-5)


def test_controls_estimates_and_updates_equal_algorithm_5():
    lags, size, rate, settings = 2, 6, 0.01, settings_with()
    states, infos = play(settings, 12, rate, resets=(5,))

    eps = {s: np.float64(states[s].noise[0]) for s in range(1, 13)}
    w = {s: np.float64(infos[s - 1].disturbance) for s in range(1, 13)}
    weights, g = np.zeros((lags, size, size)), {}
    for s in range(1, 13):
        acting = weights + 0.2 * eps[s]
        control = sum(
            acting[lag - 1] @ w.get(s - lag, np.zeros(size)) for lag in range(1, lags + 1)
        )
        np.testing.assert_allclose(infos[s - 1].control, control, rtol=1e-4, atol=1e-5)
        x = np.float64(states[s - 1].state[:2])
        total = sum(eps.get(s - lag, np.zeros_like(weights)) for lag in range(1, lags + 1))
        cost = 0.5 * (x - 1) @ Q @ (x - 1)
        g[s] = (9 * 2**2 * lags / 0.2) * cost * total * (s >= lags)
        np.testing.assert_allclose(infos[s - 1].estimate, g[s], rtol=1e-3, atol=1e-3)
        moved = weights - rate * g.get(s - lags, 0)
        weights = np.float64(project_weights(settings, jnp.float32(moved)))
        np.testing.assert_allclose(states[s].weights, weights, rtol=1e-3, atol=1e-4)
    assert np.linalg.norm(weights) > 0.05


@pytest.mark.parametrize("lags", [1, 2])
def test_the_estimator_is_unbiased_for_the_smoothed_loss_with_m_fixed(lags):
    # d = 1 and f(x) = (x - c)^4. With memory L = 1 or 2, x_s is affine in each perturbation:
    # x_s = p + delta_M sum_l <a_l, eps_l>. The gradient by block l of the loss smoothed over the
    # ball in l and the sphere in the others is a_l 4 (p^3 + 3 p delta_M^2 sum of second moments),
    # |a|^2 / (D + 2) in a ball of R^D and |a|^2 / D on its sphere; odd moments are 0.
    eta, delta, size, c = 0.1, 0.05, 9 * lags, 0.3
    settings = settings_with(history=lags, perturbation=0.9)
    rng = np.random.default_rng(0)
    weights = 0.1 * rng.normal(size=(lags, 3, 3)) * (0.01 if lags == 2 else 0.1)
    past, (x, before, slope) = rng.normal(size=(lags, 3)), (1.0, 0.4, 0.2)
    shape = (lags, lags, 3, 3)
    first = BanditState(
        jnp.array([x, before, slope]), jnp.float32(weights), jnp.float32(past),
        jnp.zeros(shape), jnp.zeros(shape), jnp.asarray(100),
    )  # fmt: skip

    @jax.vmap
    def estimate(key):
        state = first
        for k in jax.random.split(key, lags):
            state, _ = bandit_step(settings, state, lambda x: jnp.sum(x**2), 0.0, k)
        return bandit_step(settings, state, lambda x: jnp.sum((x - c) ** 4), 0.0, key)[1].estimate

    draws = np.concatenate(
        [
            np.float64(jax.jit(estimate)(keys))
            for keys in jax.random.split(jax.random.PRNGKey(1), (8, 25_000))
        ]
    )

    seen, arms, point = list(past), [], np.array([x, before, slope])
    for _ in range(lags):  # the same rounds without noise, and how far each block reaches
        arms = [(1 - delta) * arm for arm in arms] + [np.array(seen[:lags])]
        moved = (1 - delta) * point[0] - eta * point[2]
        moved += sum((weights[lag] @ seen[lag])[0] for lag in range(lags))
        seen.insert(0, np.array([0, 0, 2 * point[1]]))
        point = np.array([moved, point[0], 2 * point[0]])
    p, lengths = point[0] - c, [np.sum(arm**2) for arm in arms]
    expected = np.zeros((lags, 3, 3))
    for block, arm in enumerate(arms):
        second = sum(n / (size + 2 if block == other else size) for other, n in enumerate(lengths))
        expected[:, 0] += 4 * (p**3 + 3 * p * 0.9**2 * second) * arm
    plain = np.zeros_like(expected)
    plain[:, 0] = 4 * p**3 * sum(arms)

    error = draws.std(0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - expected) < 5 * error)
    assert np.abs((plain - expected) / error).max() > 10  # smoothing shows


def test_m_stays_in_its_shrunk_set_even_under_violent_updates():
    settings = settings_with()

    states, _ = play(settings, 30, rate=10.0)

    norms = np.linalg.norm(np.array([s.weights for s in states]), 2, axis=(2, 3))
    bounds = 0.8 * np.array([0.7, 0.49])  # (1 - delta_M) kappa^3 (1 - gamma)^l
    np.testing.assert_allclose(lag_bounds(settings) * 0.8, bounds, rtol=1e-6)
    assert np.all(norms <= bounds * (1 + 1e-5))
    assert np.all(norms.max(0) > 0.99 * bounds)


def test_the_projection_satisfies_its_variational_inequality():
    settings, rng = settings_with(), np.random.default_rng(0)
    given = rng.normal(size=(2, 6, 6))

    nearest = np.float64(project_weights(settings, jnp.float32(given)))

    for _ in range(50):
        inside = rng.normal(size=(2, 6, 6))
        inside *= (0.8 * np.array([0.7, 0.49]) / np.linalg.norm(inside, 2, axis=(1, 2)))[
            :, None, None
        ]
        assert np.sum((given - nearest) * (inside - nearest)) <= 1e-5
        np.testing.assert_allclose(
            project_weights(settings, jnp.float32(inside * 0.99)), inside * 0.99, atol=1e-6
        )


def test_a_redirected_reset_is_a_reset_to_the_other_start():
    settings, other, key = settings_with(), jnp.array([-3.0, 2.0]), jax.random.PRNGKey(1)
    state = play(settings, 7)[0][-1]

    direct, _ = step(settings, state, 0.01, key, other)
    elsewhere, _ = step(settings, state, 0.01, key, jnp.ones(2))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        redirect(elsewhere, other),
        direct,
    )


def test_inside_algorithm_2_epochs_start_at_the_average_and_episodes_at_their_start():
    settings = settings_with(perturbation=0.05)
    starts = jnp.array([[1.0, 0.0], [0.0, -2.0]])
    carry = init_bandit(settings, starts[0]), jax.random.PRNGKey(0)

    ran = nonconvex_meta_optimization(
        lambda x, _: quadratic(x), starts, jnp.zeros((2, 3, 5)),
        bandit_inner(settings, lambda s: 1e-3 * s**-0.75), carry, 1.0,
    )  # fmt: skip

    np.testing.assert_allclose(ran.centres[:, 0], starts, atol=1e-6)
    np.testing.assert_allclose(ran.iterates[:, :, 0], ran.centres[:, :-1], atol=1e-5)
    np.testing.assert_allclose(ran.iterates.mean(2), ran.centres[:, 1:], atol=1e-5)
    assert int(ran.carry[0].round) == 1 + 2 * 3 * 5
    assert np.linalg.norm(ran.carry[0].weights) > 0


def test_regret_against_the_best_fixed_controller_grows_slower_than_linearly():
    rows = bandit_regrets((300, 2700), seeds=16)

    exponent = growth_exponent(*np.array([row[:2] for row in rows]).T)

    assert all(row.spread < row.regret / 5 for row in rows)
    assert 0 < exponent < 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"history": 0}, "`history`"), ({"perturbation": 1.0}, "`perturbation`"),
     ({"kappa": 0.5}, "kappa=0.5")],
    ids=["no lags", "too much noise", "kappa below 1"],
)  # fmt: skip
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings_with(**changes)
