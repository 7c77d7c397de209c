"""Hypergradient descent: by hand, against finite differences, and inside JAX's transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import hypergradient_descent
from metaopt.hypergradient import hypergradient

CURVATURES = np.array([1.0, 5.0])


def quadratic(x):
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES, jnp.float32) * x**2)


def step(tx, loss, carry, _=None):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return (optax.apply_updates(params, updates), state), None


def run(tx, loss, start, steps):
    carry = start, tx.init(start)
    iterates, rates = [start], []
    for _ in range(steps):
        carry, _ = step(tx, loss, carry)
        iterates.append(carry[0])
        rates.append(carry[1].learning_rate)
    return np.array(iterates), np.array(rates)


def test_a_quadratic_by_hand():
    iterates, rates = run(hypergradient_descent(0.05, 0.01), quadratic, jnp.ones(2), 20)

    x, alpha, before = np.ones(2), 0.05, np.zeros(2)
    for iterate, rate in zip(iterates[1:], rates, strict=True):
        g = CURVATURES * x
        alpha = alpha + 0.01 * g @ before
        x, before = x - alpha * g, g
        np.testing.assert_allclose(iterate, x, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(rate, alpha, rtol=1e-5)


def test_a_hyper_rate_of_0_equals_gradient_descent_to_the_last_bit():
    ours, rates = run(hypergradient_descent(0.1, 0.0), quadratic, jnp.array([1.0, -2.0]), 20)

    x, sgd = jnp.array([1.0, -2.0]), optax.sgd(0.1)
    for iterate in ours[1:]:
        x = optax.apply_updates(x, sgd.update(jax.grad(quadratic)(x), sgd.init(x))[0])
        np.testing.assert_array_equal(iterate, x)
    assert set(rates.tolist()) == {np.float32(0.1)}


def test_the_rate_grows_if_gradients_agree_and_shrinks_if_they_oppose():
    _, slow = run(hypergradient_descent(0.01, 0.001), quadratic, jnp.ones(2), 5)
    _, overshooting = run(hypergradient_descent(0.35, 0.001), quadratic, jnp.ones(2), 5)

    assert (np.diff(slow) > 0).all()
    assert overshooting[1] < overshooting[0]


def test_the_hypergradient_is_the_slope_of_the_loss_by_the_last_rate(mlp):
    loss = functools.partial(mlp.flat_loss, datum=mlp.data[0])
    alpha, before = 0.3, jax.grad(loss)(mlp.vector)

    def loss_after(rate):
        return loss(mlp.vector - rate * before)

    slope = hypergradient(jax.grad(loss)(mlp.vector - alpha * before), before)

    small = 1e-2
    difference = (loss_after(alpha + small) - loss_after(alpha - small)) / (2 * small)
    np.testing.assert_allclose(slope, difference, rtol=1e-2)
    np.testing.assert_allclose(slope, jax.grad(loss_after)(alpha), rtol=1e-4)


def test_parameters_may_be_any_tree(mlp):
    def ravelled(params):
        return mlp.flat_loss(mlp.ravel(params), mlp.data[0])

    tx = hypergradient_descent(0.3, 0.1)
    carry = mlp.params, tx.init(mlp.params)
    for _ in range(10):
        carry, _ = step(tx, ravelled, carry)

    flat, rates = run(tx, functools.partial(mlp.flat_loss, datum=mlp.data[0]), mlp.vector, 10)
    np.testing.assert_allclose(mlp.ravel(carry[0]), flat[-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(carry[1].learning_rate, rates[-1], rtol=1e-5)


def test_jit_scan_and_vmap_change_nothing():
    def train(rate, hyper_rate):
        tx = hypergradient_descent(rate, hyper_rate)
        one = functools.partial(step, tx, quadratic)
        return jax.lax.scan(one, (jnp.ones(2), tx.init(jnp.ones(2))), length=20)[0]

    rates, hyper_rates = jnp.array([0.01, 0.1]), jnp.array([0.02, 0.0])
    together = jax.jit(jax.vmap(train))(rates, hyper_rates)

    for index in range(2):
        tx = hypergradient_descent(float(rates[index]), float(hyper_rates[index]))
        iterates, alphas = run(tx, quadratic, jnp.ones(2), 20)
        np.testing.assert_allclose(together[0][index], iterates[-1], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(together[1].learning_rate[index], alphas[-1], rtol=1e-5)


def test_bfloat16_parameters_stay_bfloat16_and_the_rate_float32():
    x = jnp.ones(3, jnp.bfloat16)
    tx = hypergradient_descent(0.1, jnp.asarray(0.01))

    updates, state = tx.update(x, tx.init(x), x)
    updates, state = tx.update(x, state, x)

    assert (updates.dtype, state.previous.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert state.learning_rate.dtype == jnp.float32
    np.testing.assert_allclose(state.learning_rate, 0.1 + 0.01 * 3, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((optax.constant_schedule(0.1), 0.1), "`learning_rate` must be a number, got a schedule"),
        ((0.1, jnp.ones(2)), r"`hyper_rate` must be a scalar, got shape \(2,\)"),
    ],
)
def test_a_schedule_or_a_vector_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hypergradient_descent(*arguments)
