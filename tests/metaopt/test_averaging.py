"""The average of the parameters: its weights, where it is found, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import average_params, evaluation_params


def walk(tx, steps=30):
    """Return all parameters and averages of gradient descent along a noisy slope."""
    slopes = np.random.default_rng(0).normal(1.0, 2.0, size=(steps, 3))

    def step(carry, slope):
        x, state = carry
        updates, state = tx.update(slope, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, evaluation_params(state, x))

    start = jnp.ones(3)
    return jax.lax.scan(step, (start, tx.init(start)), jnp.float32(slopes))[1]


def test_with_power_0_it_is_the_mean_of_all_parameters():
    path, averages = walk(average_params(optax.sgd(0.1), power=0.0))

    expected = np.cumsum(path, axis=0) / np.arange(1, 31)[:, None]
    np.testing.assert_allclose(averages, expected, rtol=1e-5)


def test_weights_are_those_of_polynomial_decay():
    """With r = 2, parameters i count i (i + 1), up to a constant."""
    path, averages = walk(average_params(optax.sgd(0.1), power=2.0))

    numbers = np.arange(1, 31)
    weights = numbers * (numbers + 1.0)
    np.testing.assert_allclose(averages[-1], weights @ path / weights.sum(), rtol=1e-4)


def test_the_parameters_are_trained_as_without_it():
    alone = optax.adam(0.1)

    path, averages = walk(average_params(alone))

    np.testing.assert_array_equal(path, walk(alone)[0])
    assert not np.allclose(path[-1], averages[-1])


def test_without_an_average_the_parameters_are_evaluated():
    path, evaluated = walk(optax.adam(0.1))

    np.testing.assert_array_equal(path, evaluated)


def test_it_is_found_inside_of_other_transformations():
    tx = optax.chain(optax.clip(1.0), average_params(optax.sgd(0.1), power=0.0))

    path, averages = walk(tx)

    np.testing.assert_allclose(averages[-1], path.mean(axis=0), rtol=1e-5)


def test_a_negative_power_and_missing_parameters_are_refused():
    with pytest.raises(ValueError, match="`power` must be at least 0, got -1"):
        average_params(optax.sgd(0.1), power=-1)
    tx = average_params(optax.sgd(0.1))
    with pytest.raises(ValueError, match="`params` must be passed to update"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
