"""What a step keeps in memory, what it copies, and what it computes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import (
    Averages,
    DiagonalLags,
    FullLags,
    ScalarLags,
    frozen_control,
    guard,
    meta_optimizer,
    online_control,
    restart_learning,
)
from metaopt.xla.rings import after


def step(tx, loss, carry, datum):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params, datum), state, params, datum=datum)
    return optax.apply_updates(params, updates), state


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
    "make, guarded",
    [
        (lambda: frozen_control(Averages()), False),
        (lambda: online_control(Averages(), optax.adam(1e-3)), False),
        (lambda: online_control(Averages(), optax.adam(1e-3)), True),
        (lambda: frozen_control(ScalarLags()), False),
        (lambda: online_control(ScalarLags(), optax.adam(1e-3)), False),  # guarded, copied once
    ],
)
def test_a_step_without_rollouts_updates_its_state_in_place(make, guarded):
    # A step of online control reads the past, for the meta-gradient, before it writes it.
    loss = lambda x, datum: 0.5 * jnp.sum((datum @ x) ** 2)  # noqa: E731
    x, datum = jnp.ones((40, 25)), jnp.ones((30, 40))
    tx = guard(make(), restart=restart_learning) if guarded else make()

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
def test_after_forces_an_order_without_changing_values(known):
    values = jnp.array([1.1, -0.0, 3e38, math.inf, math.nan])

    waited = jax.jit(after)(jnp.full(3, known), {"x": values})

    np.testing.assert_array_equal(waited["x"], values)
    assert np.signbit(waited["x"][1])


@pytest.mark.parametrize("controller", [ScalarLags(), DiagonalLags(), FullLags()])
def test_a_frozen_step_allocates_no_array_as_large_as_its_state(controller):
    # Neither M nor the history is brought into another order: that would be a copy of it.
    loss = lambda x, datum: 0.5 * jnp.sum((datum @ x) ** 2)  # noqa: E731
    x, datum = jnp.ones(120), jnp.ones((3, 120))
    tx = frozen_control(controller.init(x, 64), 0.1)
    state = tx.init(x)

    one = jax.jit(functools.partial(step, tx, loss), donate_argnums=0)
    needed = one.lower((x, state), datum).compile().memory_analysis().temp_size_in_bytes

    assert needed < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 4


@pytest.mark.parametrize("history, rollout", [(1, 1), (4, 1), (4, 2), (32, 3)])
def test_the_state_holds_the_documented_number_of_parameter_sized_arrays(history, rollout):
    loss = lambda x, datum: jnp.sum(datum * x)  # noqa: E731
    size = 1009
    x = jnp.ones(size)

    def count(tx):
        return sum(leaf.size for leaf in jax.tree.leaves(tx.init(x))) // size

    learner = meta_optimizer(loss, 0.1, example=jnp.ones(()), history=history, rollout=rollout)
    lags = ScalarLags(jnp.zeros(history))
    assert count(learner) == history + 3 * rollout
    assert count(frozen_control(lags)) == history
    assert count(online_control(lags, optax.sgd(0.1))) == history


@pytest.mark.parametrize("rollout", [1, 3])
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
    frozen = flops(frozen_control(ScalarLags(jnp.zeros(2)), 0.1)) / sgd

    # The inner products with the history are on top: here H is small, so they hardly count.
    assert 0.99 <= (3 * rollout - 1) / learning <= 1.3
    assert 0.99 <= 1 / frozen <= 1.3
