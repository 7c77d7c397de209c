"""Sums of updates: learners side by side are one learner over all of their averages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import (
    Averages,
    ScalarLags,
    guard,
    meta_optimizer,
    online_control,
    restart_learning,
    sum_updates,
)

WEIGHTS = jnp.log(jnp.array([0.2, 0.1, 0.05]))


def learner(controller):
    return online_control(controller, optax.adam(0.03))


def run(tx, mlp, steps=12):
    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(mlp.loss)(params, mlp.data[0])
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    params, state = mlp.params, tx.init(mlp.params)
    for _ in range(steps):
        params, state = step(params, state)
    return mlp.ravel(params), state


def test_a_sum_of_single_average_learners_equals_one_learner_of_all_averages(mlp):
    whole, state = run(learner(Averages((0.0, 0.5, 0.9), WEIGHTS)), mlp)
    parts = sum_updates(
        *(learner(Averages((b,), w[None])) for b, w in zip((0.0, 0.5, 0.9), WEIGHTS, strict=True))
    )
    sum_of_parts, states = run(parts, mlp)

    np.testing.assert_allclose(sum_of_parts, whole, rtol=1e-4, atol=1e-6)
    learned = np.concatenate([part.controller.weights for part in states])
    np.testing.assert_allclose(learned, state.controller.weights, rtol=1e-4)
    assert np.abs(learned - WEIGHTS).max() > 0.05


def test_a_sum_of_one_optimizer_equals_it_to_the_last_bit(mlp):
    alone, _ = run(optax.with_extra_args_support(optax.adam(0.1)), mlp)
    summed, _ = run(sum_updates(optax.adam(0.1)), mlp)

    np.testing.assert_array_equal(summed, alone)


def test_a_guard_restarts_every_learner_of_a_sum(mlp):
    parts = learner(Averages((0.0, 0.9), WEIGHTS[:2])), learner(ScalarLags(0.01 * jnp.ones(3)))
    tx = guard(sum_updates(*parts), restart=restart_learning)
    _, state = run(tx, mlp)

    grads = jax.grad(mlp.loss)(mlp.params, mlp.data[0])
    update = jax.jit(tx.update)
    _, held = update(grads, state, mlp.params, value=jnp.float32(jnp.nan))
    _, after = update(grads, held, mlp.params, value=jnp.float32(jnp.nan))

    averages, lags = zip(state.inner, after.inner, strict=True)
    before, now = (np.exp(part.controller.weights) for part in averages)
    np.testing.assert_allclose(now, 0.5 * before, rtol=1e-6)
    before, now = (part.controller.weights for part in lags)
    np.testing.assert_allclose(now, 0.5 * before, rtol=1e-6)
    for before, now in (averages, lags):
        jax.tree.map(np.testing.assert_array_equal, before.meta_state, now.meta_state)
        assert all(not leaf.any() for leaf in jax.tree.leaves(now.memory))


def test_rollouts_beside_another_optimizer_are_refused(mlp):
    tx = sum_updates(optax.sgd(0.1), meta_optimizer(mlp.loss, 0.1, fixed=True))

    with pytest.raises(ValueError, match="`optimizers` must not hold a `meta_optimizer` beside"):
        tx.init(mlp.params)


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`optimizers` must be at least one, got none"):
        sum_updates()
