"""Passes are counted when they run, whatever transformation they run under."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.bench.trial.audits.counting import NOISE, CountingFacade, counting_facade, norm
from metaopt.workloads.registry import get_workload

SIZE = 8
PARAMS = {"w": jnp.ones(3)}
BATCH = {"inputs": jnp.ones((SIZE, 3)), "targets": jnp.ones(SIZE)}


class Linear:
    """A linear model that knows nothing of counting."""

    name = "linear"

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm):
        return batch["inputs"] @ params["w"], model_state

    def init_model_fn(self, rng):
        return {"w": jnp.zeros(3), "steps": jnp.zeros(3, jnp.int32)}, None


@pytest.fixture
def facade():
    facade = CountingFacade(Linear(), SIZE)
    facade.show_batch(BATCH)
    return facade


def loss(facade, params, batch, mode=ForwardPassMode.TRAIN):
    return (facade.model_fn(params, batch, None, mode, None, False)[0] ** 2).sum()


def gradient(facade, params=PARAMS, batch=BATCH):
    return jax.grad(lambda p: loss(facade, p, batch))(params)


def in_a_scan(facade):
    return jax.lax.scan(lambda p, _: (gradient(facade, p), None), PARAMS, None, length=5)


def in_a_loop_that_ends_early(facade):
    return jax.lax.while_loop(
        lambda carry: carry[0] < 4, lambda carry: (carry[0] + 1, gradient(facade, carry[1])),
        (0, PARAMS),
    )  # fmt: skip


def in_a_branch_that_is_not_taken(facade):
    return jax.lax.cond(jnp.ones(()) > 2, lambda: gradient(facade), lambda: PARAMS)


def over_many_parameters(facade):
    many = jax.tree.map(lambda w: jnp.stack([w] * 3), PARAMS)
    return jax.vmap(lambda p: gradient(facade, p))(many)


def example_by_example(facade):
    def one(inputs, target):
        return gradient(facade, PARAMS, {"inputs": inputs, "targets": target})

    return jax.vmap(one)(BATCH["inputs"], BATCH["targets"])


def over_many_keys(facade):
    def one(key):
        return facade.model_fn(PARAMS, BATCH, None, ForwardPassMode.TRAIN, key, False)[0].sum()

    return jax.vmap(one)(jax.random.split(jax.random.key(0), 3))


def on_half_a_batch(facade):
    return gradient(facade, PARAMS, jax.tree.map(lambda a: a[: SIZE // 2], BATCH))


def on_a_stack_of_batches(facade):
    return gradient(facade, PARAMS, jax.tree.map(lambda a: jnp.stack([a] * 4), BATCH))


def with_a_small_array_before_the_inputs(facade):
    return gradient(facade, batch={"_": jnp.zeros(()), **BATCH})


def on_a_frozen_batch_with_a_small_array(facade):
    return gradient(facade, batch=FrozenDict({"_": jnp.zeros(()), **BATCH}))


def with_rematerialisation(facade):
    return jax.grad(jax.checkpoint(lambda p: loss(facade, p, BATCH) ** 2))(PARAMS)


def forward_over_reverse(facade):
    return jax.jvp(lambda p: gradient(facade, p), (PARAMS,), (PARAMS,))


def only_forward(facade):
    return loss(facade, PARAMS, BATCH)


COUNTS = {
    gradient: 1,
    in_a_scan: 5,
    in_a_loop_that_ends_early: 4,
    in_a_branch_that_is_not_taken: 0,
    over_many_parameters: 3,
    example_by_example: 1,
    over_many_keys: 3,
    on_half_a_batch: 0.5,
    on_a_stack_of_batches: 4,
    with_a_small_array_before_the_inputs: 1,
    on_a_frozen_batch_with_a_small_array: 1,
    with_rematerialisation: 2,
    forward_over_reverse: 1,
    only_forward: 1,
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("function", COUNTS, ids=lambda function: function.__name__)
def test_each_pass_of_a_batch_counts_once(facade, function, compiled):
    run = jax.jit(lambda: function(facade)) if compiled else lambda: function(facade)

    for _ in range(2):  # the second from the cache
        facade.reset()
        jax.block_until_ready(run())
        jax.effects_barrier()

        assert facade.examples[ForwardPassMode.TRAIN] == COUNTS[function] * SIZE


def test_modes_are_counted_apart(facade):
    loss(facade, PARAMS, BATCH, ForwardPassMode.EVAL)
    jax.effects_barrier()

    assert facade.examples == {ForwardPassMode.TRAIN: 0, ForwardPassMode.EVAL: SIZE}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_noise_is_switched_on_and_off_without_another_trace(facade, compiled):
    init = jax.jit(facade.init_model_fn) if compiled else facade.init_model_fn
    norms = []

    for noise in (0.0, NOISE, 0.0):
        facade.noise = noise
        params, _ = init(jax.random.PRNGKey(0))
        norms.append(norm(params))
        np.testing.assert_allclose(norms[-1], facade.noise_norm(params), rtol=1e-6)

    assert norms[0] == norms[2] == 0.0 < norms[1]


def test_counting_facades_are_shared_only_where_what_is_traced_is_the_same():
    workload = get_workload("breast_cancer_logistic")
    hint = workload.step_hint
    facade = counting_facade(workload, 16, hint)

    longer = counting_facade(workload, 16, 7)

    assert facade is counting_facade(workload, 16, hint)
    assert facade not in (longer, counting_facade(workload, 32, hint))
    assert (facade.step_hint, longer.step_hint) == (hint, 7)
