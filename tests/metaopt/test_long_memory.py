"""The recipes that learn a step size: their formulas, what noise teaches, what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import (
    anytime_optimizer,
    end_learning,
    fixed_batch_optimizer,
    long_memory_optimizer,
)
from tests.metaopt.test_recipes import count_arrays, learners_in


def repeated(tx, gradients, losses, x=None):
    """Return W after each step, the sizes of the steps, and the last state."""
    x = jnp.ones(gradients.shape[1]) if x is None else x

    def step(state, given):
        gradient, loss = given
        updates, state = tx.update(gradient, state, x, value=loss)
        found = learners_in(state)[0].controller.weights, jnp.abs(updates).max()
        return state, found

    state, (weights, sizes) = jax.lax.scan(
        step, tx.init(x), (jnp.float32(gradients), jnp.float32(losses))
    )
    return np.asarray(weights), np.asarray(sizes), state


def test_a_long_memory_is_its_formulas_written_out():
    steps, decay, size = 100, 0.3, 4
    generator = np.random.default_rng(0)
    gradients = generator.normal(0.5, 1.0, size=(steps + 5, size))
    losses = generator.uniform(1.0, 1.2, steps + 5)

    tx = long_memory_optimizer(steps, guarded=False, weight_decay=decay)
    weights, sizes, _ = repeated(tx, gradients, losses)

    W, mean, square, past = np.log(0.01), np.zeros(size), np.zeros(size), np.zeros(size)
    slope_mean = slope_square = 0.0
    for count, (g, f) in enumerate(zip(gradients, losses, strict=True)):
        t = count + 1
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        ahead = 0.9 * mean / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        direction = ahead / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        if count:  # the first step has no past to learn from
            slope = -np.exp(W) * (g @ past) / f
            slope_mean = 0.9 * slope_mean + 0.1 * slope
            slope_square = 0.999 * slope_square + 0.001 * slope**2
            k = count
            adam = slope_mean / (1 - 0.9**k) / np.sqrt(slope_square / (1 - 0.999**k))
            rate = min(0.25, 10 / 20) * max(0.0, 1 - (k - 1) / 20)
            W -= rate * (adam + 0.7 * np.clip(W - np.log(0.01), -1, 1))
        past = (1 - 4 / steps) * past + direction
        share = np.clip((count - 20) / 80, 0, 1)
        step = min(1.0, t / 5) * 0.5 * (1 + np.cos(np.pi * share)) * np.exp(W)
        np.testing.assert_allclose(weights[count], W, rtol=1e-4)
        expected = np.abs(step * direction + decay * step).max()  # from parameters of one
        np.testing.assert_allclose(sizes[count], expected, rtol=1e-3, atol=1e-9)


def test_a_run_of_unknown_length_is_its_formulas_written_out():
    steps, decay, size = 60, 0.3, 4
    generator = np.random.default_rng(0)
    gradients = generator.normal(0.5, 1.0, size=(steps, size))
    losses = generator.uniform(1.0, 1.2, steps)

    tx = anytime_optimizer(guarded=False, direction=optax.identity(), weight_decay=decay)
    weights, sizes, _ = repeated(tx, gradients, losses)

    W, past, slope_mean, slope_square = np.log(0.01), np.zeros(size), 0.0, 0.0
    for count, (g, f) in enumerate(zip(gradients, losses, strict=True)):
        if count:  # the first step has no past to learn from
            slope = -np.exp(W) * (g @ past) / f
            slope_mean = 0.9 * slope_mean + 0.1 * slope
            slope_square = 0.999 * slope_square + 0.001 * slope**2
            adam = slope_mean / (1 - 0.9**count) / np.sqrt(slope_square / (1 - 0.999**count))
            W -= (adam + 0.7 * np.clip(W - np.log(0.01), -1, 1)) / (count + 9)
        past = count / (count + 1) * past + g
        step = min(1.0, (count + 1) / 15) * np.exp(W)
        np.testing.assert_allclose(weights[count], W, rtol=1e-4)
        expected = np.abs(step * g + decay * step).max()  # from parameters of one
        np.testing.assert_allclose(sizes[count], expected, rtol=1e-3, atol=1e-9)


def test_the_step_size_on_a_fixed_batch_is_its_formulas_written_out():
    steps, size = 60, 4
    generator = np.random.default_rng(0)
    gradients = generator.normal(0.5, 1.0, size=(steps, size))
    losses = generator.uniform(1.0, 1.2, steps)

    tx = fixed_batch_optimizer(disturbances=["step_size"], guarded=False)
    weights, sizes, _ = repeated(tx, gradients, losses)

    W, mean, square, past = np.log(3e-3), np.zeros(size), np.zeros(size), np.zeros(size)
    slope_mean = slope_square = 0.0
    for count, (g, f) in enumerate(zip(gradients, losses, strict=True)):
        t = count + 1
        mean, square = 0.9 * mean + 0.1 * g, 0.9 * square + 0.1 * g**2
        ahead = 0.9 * mean / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        direction = ahead / (np.sqrt(square / (1 - 0.9**t)) + 1e-8)
        if count:  # the first step has no past to learn from
            slope = -np.exp(W) * (g @ past) / f
            slope_mean = 0.9 * slope_mean + 0.1 * slope
            slope_square = 0.999 * slope_square + 0.001 * slope**2
            adam = slope_mean / (1 - 0.9**count) / np.sqrt(slope_square / (1 - 0.999**count))
            W -= 0.1 / (1 + (count - 1) / 100) * adam
        past = count / (count + 1) * past + direction
        np.testing.assert_allclose(weights[count], W, rtol=1e-4)
        np.testing.assert_allclose(sizes[count], np.abs(np.exp(W) * direction).max(), rtol=1e-3)


@pytest.mark.parametrize("scale", [1 / 30, 30.0])
def test_gradients_of_pure_noise_teach_no_step_far_from_the_usual(scale):
    noise = np.random.default_rng(0).normal(size=(1000, 100))

    weights, *_ = repeated(long_memory_optimizer(1000, scale), noise, np.ones(1000))

    assert abs(weights[0] - np.log(0.01 * scale)) < 0.1
    assert abs(weights[-1] - np.log(0.01)) < 0.7


def test_what_only_learning_needs_is_freed_without_a_change():
    noise = np.random.default_rng(0).normal(size=(100, 50))
    tx = long_memory_optimizer(100)
    *_, state = repeated(tx, noise[:25], np.ones(25))

    freed = end_learning(state)

    assert count_arrays(freed, 50) == 2
    x, given = jnp.ones(50), jnp.float32(noise[30])
    kept, _ = tx.update(given, state, x, value=jnp.ones(()))
    found, _ = tx.update(given, freed, x, value=jnp.ones(()))
    np.testing.assert_array_equal(found, kept)


@pytest.mark.parametrize("number", [np.nan, 1e6])
def test_one_broken_batch_hardly_changes_where_a_run_ends(mlp, number):
    data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *mlp.data)

    def losses_of(broken):
        tx = long_memory_optimizer(200)

        def step(carry, given):
            x, state = carry
            batch, factor = given
            value, grads = jax.value_and_grad(lambda x: factor * mlp.loss(x, batch))(x)
            updates, state = tx.update(grads, state, x, value=value)
            return (optax.apply_updates(x, updates), state), value

        batches = jax.tree.map(lambda leaf: leaf[np.arange(200) % len(leaf)], data)
        factors = np.ones(200)
        factors[100] = broken
        (x, state), _ = jax.lax.scan(
            step, (mlp.params, tx.init(mlp.params)), (batches, jnp.float32(factors))
        )
        return float(jax.vmap(lambda batch: mlp.loss(x, batch))(data).mean()), state

    usual, _ = losses_of(1.0)
    found, state = losses_of(number)

    assert int(state.held) == 1
    assert found == pytest.approx(usual, rel=0.05)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"steps": 10, "scale": 0.0}, "`scale` must be positive"),
        ({"steps": 10, "usual": -1.0}, "`usual` must be positive"),
        ({"steps": 10, "guarded": 1}, "`guarded`"),
        ({"steps": 10, "weight_decay": -1.0}, "`weight_decay` must be at least 0"),
    ],
)
def test_a_bad_argument_of_the_long_memory_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        long_memory_optimizer(**arguments)
