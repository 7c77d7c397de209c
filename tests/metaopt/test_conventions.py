"""Inside optax's conventions: jit, scan, vmap, chain, donation, dtypes, memory, cost, errors."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaopt
from metaopt import (
    Averages,
    DiagonalLags,
    FullLags,
    ScalarLags,
    guard,
    meta_optimizer,
    start_episode,
)
from metaopt.mixtures import restart_learning
from metaopt.xla.rings import after


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

    plain = start
    for datum in mlp.data[:12]:
        plain = one(plain, datum)
    jitted = start
    for datum in mlp.data[:12]:
        jitted = jax.jit(one)(jitted, datum)
    scanned, _ = jax.lax.scan(lambda c, d: (one(c, d), None), start, stacked(mlp.data[:12]))

    for other in (jitted, scanned):
        np.testing.assert_allclose(plain[1].weights, other[1].weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(mlp.ravel(plain[0]), mlp.ravel(other[0]), rtol=1e-4, atol=1e-5)


def test_vmap_over_runs_is_a_loop_over_runs(mlp, learner):
    starts = [jax.tree.map(lambda leaf, s=s: leaf * s, mlp.params) for s in (0.5, 1.0, 1.5)]

    def run(params):
        body = lambda c, d: (step(learner, mlp.loss, c, d), None)  # noqa: E731
        (params, state), _ = jax.lax.scan(
            body, (params, learner.init(params)), stacked(mlp.data[:15])
        )
        return mlp.ravel(params), state.weights

    together = jax.vmap(run)(stacked(starts))

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


@pytest.mark.skipif(jax.__version__ == "0.7.0", reason="its XLA copies the history: slower")
def test_the_history_is_written_in_place():
    # XLA copies an array that is read before it is written: with a history that would be most of
    # the cost of a step. The compiled step must not hold a copy of the ring.
    loss = lambda x, datum: 0.5 * jnp.sum((datum @ x) ** 2)  # noqa: E731
    x, datum = jnp.ones((40, 25)), jnp.ones((30, 40))
    tx = meta_optimizer(loss, 0.1, example=datum, history=8, rollout=3)

    one = jax.jit(functools.partial(step, tx, loss), donate_argnums=0)
    text = one.lower((x, tx.init(x)), datum).compile().as_text()

    for ring in ("f32[11,1000]", "f32[3,1000]", "f32[3,1200]"):  # history, base points, data
        lines = [line for line in text.splitlines() if ring in line]
        assert lines
        assert not [line for line in lines if " copy(" in line]


@pytest.mark.skipif(jax.__version__ == "0.7.0", reason="its XLA copies the history: slower")
@pytest.mark.parametrize(
    ("controller", "kind"),
    [
        (Averages(), "frozen"),
        (Averages(), "recorded"),
        (Averages(), "guarded"),
        (ScalarLags(), "frozen"),
        (ScalarLags(), "recorded"),  # guarded, they are copied once
    ],
)
def test_what_a_step_without_rollouts_keeps_is_written_in_place(controller, kind):
    # A recorded step reads the past, for the meta-gradient, before it writes it.
    loss = lambda x, datum: 0.5 * jnp.sum((datum @ x) ** 2)  # noqa: E731
    x, datum = jnp.ones((40, 25)), jnp.ones((30, 40))
    learn = kind != "frozen"
    tx = meta_optimizer(None, 0.1, controller=controller, learn=learn, recorded=learn)
    if kind == "guarded":
        tx = guard(tx, restart=restart_learning(controller))

    def one(carry, datum):
        x, state = carry
        value, slope = jax.value_and_grad(loss)(x, datum)
        updates, state = tx.update(slope, state, x, value=value)
        return optax.apply_updates(x, updates), state

    state = tx.init(x)
    text = jax.jit(one, donate_argnums=0).lower((x, state), datum).compile().as_text()

    kept = {f"f32[{leaf.shape[0]},1000]" for leaf in jax.tree.leaves(state) if leaf.size >= 3000}
    assert kept
    for rows in kept:
        lines = [line for line in text.splitlines() if rows in line]
        assert lines
        assert not [line for line in lines if " copy(" in line]


@pytest.mark.parametrize("known", [0.3, -math.inf, math.nan])
def test_waiting_for_a_number_changes_none(known):
    values = jnp.array([1.1, -0.0, 3e38, math.inf, math.nan])

    waited = jax.jit(after)(jnp.full(3, known), {"x": values})

    np.testing.assert_array_equal(waited["x"], values)
    assert np.signbit(waited["x"][1])


@pytest.mark.parametrize("controller", [ScalarLags(), DiagonalLags(), FullLags()])
def test_a_frozen_step_makes_nothing_as_large_as_what_it_keeps(controller):
    # Neither M nor the history is brought into another order: that would be a copy of it.
    loss = lambda x, datum: 0.5 * jnp.sum((datum @ x) ** 2)  # noqa: E731
    x, datum = jnp.ones(120), jnp.ones((3, 120))
    tx = meta_optimizer(None, 0.1, history=64, controller=controller, learn=False)
    state = tx.init(x)

    one = jax.jit(functools.partial(step, tx, loss), donate_argnums=0)
    needed = one.lower((x, state), datum).compile().memory_analysis().temp_size_in_bytes

    assert needed < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 4


def test_it_works_inside_a_chain(mlp, learner, train):
    chained = optax.chain(learner, optax.scale(1.0))

    state = chained.init(mlp.params)
    params = mlp.params
    for datum in mlp.data[:12]:
        params, state = step(chained, mlp.loss, (params, state), datum)
    alone = train(learner, mlp.loss, mlp.params, mlp.data[:12])

    np.testing.assert_allclose(state[0].weights, alone.weights[-1], rtol=1e-4, atol=1e-6)
    restarted = start_episode(state, mlp.params)
    assert int(restarted[0].count) == 0
    np.testing.assert_array_equal(restarted[0].weights, state[0].weights)


def test_bfloat16_histories_stay_bfloat16_and_are_close(mlp, train):
    options = {"example": mlp.data[0], "history": 4, "meta_optimizer": optax.adam(1e-2)}
    half = train(
        meta_optimizer(mlp.loss, 0.3, history_dtype=jnp.bfloat16, **options),
        mlp.loss, mlp.params, mlp.data,
    )  # fmt: skip
    full = train(meta_optimizer(mlp.loss, 0.3, **options), mlp.loss, mlp.params, mlp.data)

    assert {row.dtype for row in half.state.memory.rows.values()} == {jnp.bfloat16.dtype}
    np.testing.assert_allclose(
        mlp.ravel(half.iterates[-1]), mlp.ravel(full.iterates[-1]), rtol=0.1, atol=0.02
    )


@pytest.mark.parametrize("history, rollout", [(1, 1), (4, 1), (4, 2), (32, 3)])
def test_the_state_holds_as_many_parameter_sized_arrays_as_it_says(history, rollout):
    loss = lambda x, datum: jnp.sum(datum * x)  # noqa: E731
    size = 1009
    x = jnp.ones(size)

    def count(**options):
        tx = meta_optimizer(loss, 0.1, example=jnp.ones(()), history=history, rollout=rollout,
                            **options)  # fmt: skip
        return sum(leaf.size for leaf in jax.tree.leaves(tx.init(x))) // size

    assert count() == history + 3 * rollout
    assert count(learn=False) == history


@pytest.mark.parametrize("rollout", [1, 2, 3])
def test_nominal_costs_agree_with_the_flops_that_xla_counts(rollout):
    sizes = [256, 256, 256, 10]
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
    params = [jax.random.normal(k, (a, b)) * 0.05 for k, a, b in shapes]
    datum = jnp.ones((512, 256)), jnp.zeros(512, jnp.int32)

    def loss(params, datum):
        hidden = datum[0]
        for layer in params[:-1]:
            hidden = jnp.tanh(hidden @ layer)
        logits = hidden @ params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, datum[1]).mean()

    def flops(tx):
        tx = optax.with_extra_args_support(tx)
        one = jax.jit(functools.partial(step, tx, loss))
        return one.lower((params, tx.init(params)), datum).compile().cost_analysis()["flops"]

    options = {"fixed": True, "history": 2, "rollout": rollout}
    sgd = flops(optax.sgd(0.1))
    learning = flops(meta_optimizer(loss, 0.1, **options)) / sgd
    frozen = flops(meta_optimizer(None, 0.1, history=2, learn=False)) / sgd

    # The inner products with the history are on top: here H is small, so they hardly count.
    assert 0.99 <= (3 * rollout - 1) / learning <= 1.3
    assert 0.99 <= 1 / frozen <= 1.3


SUM = lambda x, datum: jnp.sum(datum * x)  # noqa: E731


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"history": 0}, "`history` must be an integer of at least 1, got 0"),
        ({"rollout": 0}, "`rollout` must be an integer of at least 1, got 0"),
        ({"meta_every": 1.5}, "`meta_every` must be an integer of at least 1, got 1.5"),
        ({"value_fn": None}, "`value_fn` must be given"),
        ({"episode_steps": 33}, r"at least `history` \+ `rollout`, 32 \+ 2, got 33"),
        ({"episode_steps": 0}, "`episode_steps` must be at least `history`"),
        ({"fixed": False}, "`example` must be given for a rollout of 2 on changing data"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_traced(arguments, message):
    with pytest.raises(ValueError, match=message):
        meta_optimizer(**{"value_fn": SUM, "learning_rate": 0.1, "fixed": True, **arguments})


@pytest.mark.parametrize("options", [{"episode_steps": 34}, {"episode_steps": 9, "learn": False}])
def test_an_episode_as_long_as_a_rollouts_past_will_do_and_frozen_any(options):
    meta_optimizer(SUM, 0.1, fixed=True, **options)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"params": None, "datum": jnp.ones(3)}, "`params` must be passed to update"),
        ({"params": jnp.ones(3)}, "`datum` must be passed to update"),
        ({"params": jnp.ones(3), "datum": jnp.ones(4)}, r"\[4\] where `example` has float32\[3\]"),
        ({"params": jnp.ones(3), "datum": jnp.ones(3, jnp.int32)}, r"int32\[3\] where"),
        ({"params": jnp.ones(3), "datum": [jnp.ones(3)]}, "`datum` has the structure"),
    ],
)  # fmt: skip
def test_a_bad_update_is_refused_with_what_was_expected(arguments, message):
    tx = meta_optimizer(SUM, 0.1, example=jnp.ones(3))
    arguments = dict(arguments)
    params = arguments.pop("params")

    with pytest.raises(ValueError, match=message):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)), params, **arguments)


def test_matrices_that_do_not_fit_are_refused_with_their_size():
    tx = meta_optimizer(SUM, 0.1, fixed=True, controller=FullLags())

    with pytest.raises(ValueError, match=r"32 matrices of 89,610 x 89,610: 957.2 GiB, above its"):
        tx.init(jax.ShapeDtypeStruct((89_610,), jnp.float32))


@pytest.mark.parametrize(
    "controller",
    [ScalarLags(jnp.ones(3)), DiagonalLags(jnp.ones((4, 3))), FullLags(jnp.ones((4, 3, 3)))],
)
def test_weights_of_another_shape_are_refused(controller):
    tx = meta_optimizer(SUM, 0.1, fixed=True, history=4, controller=controller)

    with pytest.raises(ValueError, match="`controller` has weights of shape"):
        tx.init(jnp.ones(5))


def test_an_episode_needs_a_state_of_ours_and_parameters_of_its_size(learner, mlp):
    with pytest.raises(ValueError, match="holds no MetaOptimizerState"):
        start_episode(optax.sgd(0.1).init(mlp.params), mlp.params)
    with pytest.raises(ValueError, match="`params` have 1 arrays with 2 numbers, the state"):
        start_episode(learner.init(mlp.params), jnp.ones(2))


def test_the_package_lists_what_it_offers():
    assert set(metaopt.__all__) <= set(dir(metaopt))
    with pytest.raises(AttributeError, match="no attribute 'nothing', only"):
        _ = metaopt.nothing


def test_a_control_is_the_same_spelled_out_or_not(mlp, train, monkeypatch):
    weights = jnp.linspace(0.1, -0.1, 6)
    tx = meta_optimizer(None, 0.1, history=6, controller=ScalarLags(weights), learn=False)

    spelled_out = train(tx, mlp.loss, mlp.params, mlp.data)
    monkeypatch.setattr("metaopt.controllers.lags._SPELLED_OUT", 0)
    contracted = train(tx, mlp.loss, mlp.params, mlp.data)

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


@pytest.mark.parametrize("kind", [ScalarLags, DiagonalLags, FullLags])
@pytest.mark.parametrize(
    "dtypes, history_dtype",
    [((jnp.bfloat16, jnp.float32), None), ((jnp.float16, jnp.float16), jnp.bfloat16)],
    ids=["mixed", "half"],
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

    params, state = mlp.params, tx.init(mlp.params)
    for _ in range(5):
        params, state = step(tx, loss, (params, state), datum)

    assert int(state.count) == 5


def test_injected_rates_are_replayed_as_they_were(mlp):
    schedule = optax.piecewise_constant_schedule(0.3, {6: 0.1})
    arguments = {"history": 2, "rollout": 3, "meta_optimizer": optax.sgd(1.0)}
    plain = meta_optimizer(mlp.loss, schedule, example=mlp.data[0], **arguments)
    injected = optax.inject_hyperparams(
        meta_optimizer,
        static_args=(
            "value_fn", "example", "fixed", "history", "rollout", "meta_optimizer", "controller",
            "disturbance", "learn", "meta_every", "history_dtype",
        ),
    )(mlp.loss, learning_rate=schedule, example=mlp.data[0], **arguments)  # fmt: skip

    weights = []
    for tx in (plain, injected):
        carry = mlp.params, tx.init(mlp.params)
        compiled = jax.jit(functools.partial(step, tx, mlp.loss))
        for datum in mlp.data[:9]:
            carry = compiled(carry, datum)
        state = carry[1]
        weights.append(getattr(state, "inner_state", state).weights)

    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-7)


def test_an_episode_of_a_masked_optimizer_starts(mlp):
    inner = meta_optimizer(lambda x, datum: 0.0, 0.1, fixed=True, history=2)
    tx = optax.masked(inner, {"a": True, "b": False, "c": True})

    restarted = start_episode(tx.init(mlp.params), mlp.params)

    assert int(restarted.inner_state.count) == 0
