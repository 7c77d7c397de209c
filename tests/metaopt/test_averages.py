"""Averages: the lags' policies without end, exact and recorded meta-gradients, what they keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Averages, frozen_control, meta_optimizer, online_control

DECAYS = (0.0, 0.5, 0.9)
WEIGHTS = jnp.array([0.2, 0.1, -0.05], jnp.float32)
A = jnp.array([1.0, 5.0])


def quadratic(x, datum):
    return 0.5 * jnp.sum(datum * x**2)


def lags_of(weights, space, count):
    """M[h] = sum_k M_k (1 - b_k) b_k^h, spelled out."""
    powers = np.array([[(1 - b) * b**h for h in range(count)] for b in DECAYS], np.float32)
    return (jnp.exp(weights) if space == "log" else weights) @ powers


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_one_average_equals_heavy_ball_with_infinite_history(train, mu):
    rate, x = 0.1, jnp.array([1.0, -2.0])
    controller = Averages((mu,), jnp.array([rate / (1 - mu)]), "linear")
    ours = frozen_control(controller)
    theirs = optax.sgd(rate, momentum=mu)

    iterates = train(ours, quadratic, x, [A] * 100).iterates

    state, expected = theirs.init(x), [x]
    for _ in range(100):
        updates, state = theirs.update(jax.grad(quadratic)(x, A), state)
        x = optax.apply_updates(x, updates)
        expected.append(x)
    np.testing.assert_allclose(iterates, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("space, rollout", [("linear", 1), ("log", 2), ("linear", 4)])
def test_runs_with_as_many_lags_as_steps_equal_the_transcription_of_the_paper(
    mlp, train, transcribe, rollout, space
):
    outer, data = optax.adam(1e-2), mlp.data[:14]
    weights = jnp.full(3, -3.0) if space == "log" else jnp.zeros(3)
    tx = meta_optimizer(
        mlp.loss, 0.3, example=mlp.data[0], meta_optimizer=outer, weight_decay=0.02,
        rollout=rollout, controller=Averages(DECAYS, weights, space),
    )  # fmt: skip

    ours = train(tx, mlp.loss, mlp.params, data)
    theirs = transcribe(
        mlp.flat_loss, mlp.vector, data, rate=lambda t: 0.3, decay=0.02, outer=outer,
        history=14, rollout=rollout, first=1 + rollout, weights=weights,
        as_lags=lambda weights: lags_of(weights, space, 14),
    )  # fmt: skip

    assert np.abs(theirs.weights[-1] - np.asarray(weights)).max() > 1e-2
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-3, atol=1e-4)
    iterates = np.array([mlp.ravel(x) for x in ours.iterates])
    np.testing.assert_allclose(iterates, theirs.iterates, rtol=1e-4, atol=1e-5)


def test_in_log_space_the_meta_gradient_is_that_by_the_logarithm(mlp):
    linear, log = (
        Averages(DECAYS, weights, space)
        for space, weights in (("linear", jnp.exp(WEIGHTS)), ("log", WEIGHTS))
    )
    memory = linear.observe(linear.init_memory(mlp.params, 0), mlp.params)

    by_weights = linear.meta_gradient(memory, [mlp.params], ago=0)
    by_logarithm = log.meta_gradient(memory, [mlp.params], ago=0)

    np.testing.assert_allclose(by_logarithm, jnp.exp(WEIGHTS) * by_weights, rtol=1e-6)


@pytest.mark.parametrize("decays", [(0.9,), (0.0, 0.9, 0.99)], ids=len)
@pytest.mark.parametrize("rollout", [1, 2, 3])
def test_the_state_holds_the_documented_number_of_parameter_sized_arrays(decays, rollout):
    size, loss = 1009, lambda x, datum: jnp.sum(datum * x)

    bank = Averages(decays)

    def count(tx):
        return sum(leaf.size for leaf in jax.tree.leaves(tx.init(jnp.ones(size)))) // size

    exact = meta_optimizer(loss, 0.1, example=jnp.ones(()), controller=bank, rollout=rollout)
    assert count(exact) == len(decays) + 2 * rollout
    assert count(online_control(bank, optax.sgd(0.1))) == count(frozen_control(bank)) == len(decays)


def test_jit_scan_vmap_and_narrow_memories_change_nothing_but_rounding(mlp):
    tx = meta_optimizer(
        mlp.loss, 0.0, example=mlp.data[0], meta_optimizer=optax.adam(1e-2),
        controller=Averages(DECAYS, jnp.full(3, -2.0)),
    )  # fmt: skip

    def step(carry, datum, tx=tx):
        params, state = carry
        grads = jax.grad(mlp.loss)(params, datum)
        updates, state = tx.update(grads, state, params, datum=datum)
        return (optax.apply_updates(params, updates), state), None

    data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *mlp.data[:6])
    start = mlp.params, tx.init(mlp.params)
    plain = functools.reduce(lambda carry, datum: step(carry, datum)[0], mlp.data[:6], start)
    scanned = jax.lax.scan(step, start, data)[0]
    both = jax.vmap(lambda s: jax.lax.scan(step, s, data)[0])(
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), start)
    )

    expected = mlp.ravel(plain[0])
    np.testing.assert_allclose(mlp.ravel(scanned[0]), expected, rtol=1e-4, atol=1e-5)
    one = jax.tree.map(lambda leaf: leaf[1], both[0])
    np.testing.assert_allclose(mlp.ravel(one), expected, rtol=1e-4, atol=1e-5)

    narrow = meta_optimizer(
        mlp.loss, 0.0, example=mlp.data[0], meta_optimizer=optax.adam(1e-2),
        controller=Averages(DECAYS, jnp.full(3, -2.0)), history_dtype=jnp.bfloat16,
    )  # fmt: skip
    start = mlp.params, narrow.init(mlp.params)
    params, state = jax.lax.scan(functools.partial(step, tx=narrow), start, data)[0]
    kept = {leaf.dtype for leaf in jax.tree.leaves(state.memory.averages)}
    assert kept == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(mlp.ravel(params), expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"decays": ()}, "`decays` must hold at least one decay, got none"),
        ({"decays": (0.9, 1.0)}, r"`decays` must lie in \[0, 1\), got \[0.9, 1.0\]"),
        ({"decays": (1.0 - 1e-9,)}, r"got \[0.999999999\], rounded to 32 bits"),
        ({"decays": (0.9, 0.9 + 1e-9)}, "must all be different"),
        ({"decays": (-0.1,)}, r"must lie in \[0, 1\), got \[-0.1\]"),
        ({"decays": (float("nan"),)}, r"must lie in \[0, 1\), got \[nan\]"),
        ({"decays": (0.9, 0.5, 0.9)}, r"must all be different, got \[0.9, 0.5, 0.9\]"),
        ({"space": "cubic"}, "`space` must be 'linear' or 'log', got 'cubic'"),
        ({"weights": jnp.ones(2)}, r"each of the 3 decays, got shape \(2,\)"),
    ],
)
def test_a_bad_bank_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Averages(**arguments)
