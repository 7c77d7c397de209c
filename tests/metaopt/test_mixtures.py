"""Mixtures: learners side by side are one learner over all of their averages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Averages, ScalarLags, guard, meta_optimizer, mixture, restart_learning

WEIGHTS = jnp.log(jnp.array([0.2, 0.1, 0.05]))


def learner(controller, rate=0.03, **options):
    return meta_optimizer(
        None, 0.0, recorded=True, controller=controller, meta_optimizer=optax.adam(rate), **options
    )


def run(tx, mlp, steps=12):
    params, state = mlp.params, tx.init(mlp.params)
    for _ in range(steps):
        value, grads = jax.value_and_grad(mlp.loss)(params, mlp.data[0])
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
    return mlp.ravel(params), state


def test_learners_of_one_average_each_are_the_learner_of_all(mlp):
    whole, state = run(learner(Averages((0.0, 0.5, 0.9), WEIGHTS)), mlp)
    parts = mixture(
        *(learner(Averages((b,), w[None])) for b, w in zip((0.0, 0.5, 0.9), WEIGHTS, strict=True))
    )
    sum_of_parts, states = run(parts, mlp)

    np.testing.assert_allclose(sum_of_parts, whole, rtol=1e-4, atol=1e-6)
    learned = np.concatenate([part.weights for part in states])
    np.testing.assert_allclose(learned, state.weights, rtol=1e-4)
    assert np.abs(learned - WEIGHTS).max() > 0.05


def test_a_mixture_of_one_is_that_one_to_the_last_bit(mlp):
    alone, _ = run(optax.with_extra_args_support(optax.adam(0.1)), mlp)
    mixed, _ = run(mixture(optax.adam(0.1)), mlp)

    np.testing.assert_array_equal(mixed, alone)


def test_a_guard_restarts_every_learner_of_a_mixture(mlp):
    controllers = Averages((0.0, 0.9), WEIGHTS[:2]), ScalarLags(0.01 * jnp.ones(3))
    parts = learner(controllers[0]), learner(controllers[1], history=3)
    tx = guard(mixture(*parts), restart=restart_learning(*controllers))
    _, state = run(tx, mlp)

    grads = jax.grad(mlp.loss)(mlp.params, mlp.data[0])
    _, held = tx.update(grads, state, mlp.params, value=jnp.float32(jnp.nan))
    _, after = tx.update(grads, held, mlp.params, value=jnp.float32(jnp.nan))

    averages, lags = zip(state.inner, after.inner, strict=True)
    np.testing.assert_allclose(
        *(jnp.exp(s.weights) * f for s, f in zip(averages, (0.5, 1), strict=True))
    )
    np.testing.assert_allclose(lags[1].weights, 0.5 * lags[0].weights, rtol=1e-6)
    for before, now in (averages, lags):
        jax.tree.map(np.testing.assert_array_equal, before.meta_state, now.meta_state)
        assert all(not leaf.any() for leaf in jax.tree.leaves(now.memory))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_restart_needs_the_controller_of_every_learner(mlp, count):
    kind = Averages((0.0,))
    tx = guard(mixture(learner(kind), learner(kind)), restart=restart_learning(*[kind] * count))
    state = tx.init(mlp.params)

    with pytest.raises(ValueError, match=f"those of the 2 meta-optimizers, got {count}"):
        tx.update(mlp.params, state, mlp.params, value=1.0)


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`optimizers` must be at least one, got none"):
        mixture()
