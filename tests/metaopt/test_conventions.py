"""Inside optax's conventions: jit, scan, vmap, chain, donation, dtypes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaopt
from metaopt import (
    DiagonalLags,
    FullLags,
    ScalarLags,
    frozen_control,
    meta_optimizer,
    start_episode,
)


@pytest.fixture
def learner(mlp):
    return meta_optimizer(
        mlp.loss, 0.3, example=mlp.data[0], history=4, rollout=2, meta_optimizer=optax.adam(1e-2)
    )


def step(tx, loss, carry, datum):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params, datum), state, params, datum=datum)
    return optax.apply_updates(params, updates), state


def stacked(data):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *data)


def test_jit_and_scan_change_nothing(mlp, learner):
    one = functools.partial(step, learner, mlp.loss)
    start = mlp.params, learner.init(mlp.params)

    jitted, compiled = start, jax.jit(one)
    for datum in mlp.data[:9]:
        jitted = compiled(jitted, datum)
    plain = one(jitted, mlp.data[9])  # with a rollout
    jitted = compiled(jitted, mlp.data[9])
    scanned, _ = jax.lax.scan(lambda c, d: (one(c, d), None), start, stacked(mlp.data[:10]))

    weights, points = (lambda c: c[1].controller.weights), (lambda c: mlp.ravel(c[0]))
    for other in (jitted, scanned):
        np.testing.assert_allclose(weights(plain), weights(other), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(points(plain), points(other), rtol=1e-4, atol=1e-5)


def test_vmap_over_runs_is_a_loop_over_runs(mlp, learner):
    starts = [jax.tree.map(lambda leaf, s=s: leaf * s, mlp.params) for s in (0.5, 1.5)]

    @jax.jit
    def run(params):
        body = lambda c, d: (step(learner, mlp.loss, c, d), None)  # noqa: E731
        (params, state), _ = jax.lax.scan(
            body, (params, learner.init(params)), stacked(mlp.data[:10])
        )
        return mlp.ravel(params), state.controller.weights

    together = jax.jit(jax.vmap(run))(stacked(starts))

    for index, start in enumerate(starts):
        for batched, alone in zip(together, run(start), strict=True):
            np.testing.assert_allclose(batched[index], alone, rtol=1e-3, atol=1e-4)


def test_a_second_step_does_not_compile_again_and_the_state_can_be_donated(mlp, learner):
    traces = []

    @functools.partial(jax.jit, donate_argnums=0)
    def one(carry, datum):
        traces.append(1)
        return step(learner, mlp.loss, carry, datum)

    params = jax.tree.map(jnp.array, mlp.params)
    carry = params, learner.init(params)
    for datum in mlp.data:
        before = carry[1].memory.rows["a"]
        carry = one(carry, datum)

    assert len(traces) == 1
    assert before.is_deleted()


def test_it_works_inside_a_chain(mlp, learner, train):
    chained = optax.chain(learner, optax.scale(1.0))
    one = jax.jit(functools.partial(step, chained, mlp.loss))

    params, state = mlp.params, chained.init(mlp.params)
    for datum in mlp.data[:8]:
        params, state = one((params, state), datum)
    alone = train(learner, mlp.loss, mlp.params, mlp.data[:8])

    weights = state[0].controller.weights
    np.testing.assert_allclose(weights, alone.weights[-1], rtol=1e-4, atol=1e-6)
    restarted = start_episode(state, mlp.params)
    assert int(restarted[0].count) == 0
    np.testing.assert_array_equal(restarted[0].controller.weights, weights)


def test_bfloat16_histories_stay_bfloat16_and_are_close(mlp, train):
    options = {"example": mlp.data[0], "history": 4, "meta_optimizer": optax.adam(1e-2)}
    half = train(
        meta_optimizer(mlp.loss, 0.3, history_dtype=jnp.bfloat16, **options),
        mlp.loss, mlp.params, mlp.data[:10],
    )  # fmt: skip
    full = train(meta_optimizer(mlp.loss, 0.3, **options), mlp.loss, mlp.params, mlp.data[:10])

    assert {row.dtype for row in half.state.memory.rows.values()} == {jnp.bfloat16.dtype}
    np.testing.assert_allclose(
        mlp.ravel(half.iterates[-1]), mlp.ravel(full.iterates[-1]), rtol=0.1, atol=0.02
    )


def test_package_all_lists_its_public_names():
    assert set(metaopt.__all__) <= set(dir(metaopt))
    with pytest.raises(AttributeError, match="no attribute 'nothing', only"):
        _ = metaopt.nothing


def test_a_control_is_the_same_spelled_out_or_not(mlp, train, monkeypatch):
    weights = jnp.linspace(0.1, -0.1, 6)
    tx = frozen_control(ScalarLags(weights), 0.1)

    spelled_out = train(tx, mlp.loss, mlp.params, mlp.data[:8])
    monkeypatch.setattr("metaopt.controllers.lags._SPELLED_OUT", 0)
    contracted = train(tx, mlp.loss, mlp.params, mlp.data[:8])

    for a, b in zip(spelled_out.iterates, contracted.iterates, strict=True):
        np.testing.assert_allclose(mlp.ravel(a), mlp.ravel(b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "meta", [optax.adam(1e-2), optax.contrib.prodigy()], ids=["adam", "one that keeps its start"]
)
def test_donating_the_state_leaves_the_controllers_weights_alone(mlp, meta):
    controller = ScalarLags(jnp.full(4, 0.01))
    tx = meta_optimizer(mlp.loss, 0.1, example=mlp.data[0], history=4, controller=controller,
                        meta_optimizer=meta)  # fmt: skip
    one = jax.jit(functools.partial(step, tx, mlp.loss), donate_argnums=0)

    for _ in range(2):
        params = jax.tree.map(jnp.array, mlp.params)
        one((params, tx.init(params)), mlp.data[0])

    np.testing.assert_allclose(controller.weights, 0.01)


@pytest.mark.parametrize(
    "kind, dtypes, history_dtype",
    [
        (ScalarLags, (jnp.bfloat16, jnp.float32), None),
        (DiagonalLags, (jnp.float16, jnp.float16), jnp.bfloat16),
        (FullLags, (jnp.bfloat16, jnp.float32), jnp.bfloat16),
    ],
    ids=["mixed", "half", "both"],
)
def test_narrow_parameters_with_a_transformed_disturbance_scan(kind, dtypes, history_dtype):
    params = {name: jnp.ones(3, dtype) for name, dtype in zip("ab", dtypes, strict=True)}
    loss = lambda x, datum: sum(jnp.sum((leaf * datum) ** 2) for leaf in x.values())  # noqa: E731
    tx = meta_optimizer(
        loss, 0.01, example=jnp.ones(()), history=3, controller=kind(),
        disturbance=optax.scale_by_adam(), history_dtype=history_dtype,
    )  # fmt: skip

    def body(carry, datum):
        with jax.numpy_dtype_promotion("standard"):
            return step(tx, loss, carry, datum), None

    (after, _), _ = jax.lax.scan(body, (params, tx.init(params)), jnp.ones(8))

    assert {name: leaf.dtype for name, leaf in after.items()} == {
        name: leaf.dtype for name, leaf in params.items()
    }
    assert all(jnp.isfinite(leaf).all() for leaf in after.values())


def test_a_datum_may_hold_typed_keys_and_numbers(mlp):
    loss = lambda x, datum: mlp.loss(x, datum[0]) + 0.0 * jax.random.uniform(datum[1]) * datum[2]  # noqa: E731
    datum = mlp.data[0], jax.random.key(0), 3
    tx = meta_optimizer(loss, 0.1, example=datum, history=2)

    one, carry = jax.jit(functools.partial(step, tx, loss)), (mlp.params, tx.init(mlp.params))
    for _ in range(5):
        carry = one(carry, datum)

    assert int(carry[1].count) == 5


def test_injected_rates_are_replayed_as_they_were(mlp):
    schedule = optax.piecewise_constant_schedule(0.3, {6: 0.1})
    arguments = {"history": 2, "rollout": 3, "meta_optimizer": optax.sgd(1.0)}
    plain = meta_optimizer(mlp.loss, schedule, example=mlp.data[0], **arguments)
    injected = optax.inject_hyperparams(
        meta_optimizer,
        static_args=(
            "value_fn", "example", "fixed", "history", "rollout", "meta_optimizer", "controller",
            "disturbance", "meta_every", "history_dtype",
        ),
    )(mlp.loss, learning_rate=schedule, example=mlp.data[0], **arguments)  # fmt: skip

    weights = []
    for tx in (plain, injected):
        carry = mlp.params, tx.init(mlp.params)
        compiled = jax.jit(functools.partial(step, tx, mlp.loss))
        for datum in mlp.data[:9]:
            carry = compiled(carry, datum)
        state = carry[1]
        weights.append(getattr(state, "inner_state", state).controller.weights)

    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-7)


def test_an_episode_of_a_masked_optimizer_starts(mlp):
    inner = meta_optimizer(lambda x, datum: 0.0, 0.1, fixed=True, history=2)
    tx = optax.masked(inner, {"a": True, "b": False, "c": True})

    restarted = start_episode(tx.init(mlp.params), mlp.params)

    assert int(restarted.inner_state.count) == 0
