"""One door to three optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import (
    anytime_optimizer,
    fixed_batch_optimizer,
    long_memory_optimizer,
    self_tuning_optimizer,
)


def iterate(tx, x):
    """Return parameters after ten steps on changing quadratics."""

    def step(carry, target):
        x, state = carry
        value, grads = jax.value_and_grad(lambda x: jnp.sum((x - target) ** 2))(x)
        updates, state = tx.update(grads, state, x, value=value)
        return (x + updates, state), None

    targets = jnp.float32(np.random.default_rng(0).normal(size=(10, 2)))
    return jax.lax.scan(step, (x, tx.init(x)), targets)[0]


@pytest.mark.parametrize(
    "chosen, meant",
    [
        (lambda: self_tuning_optimizer(50, scale=3.0), lambda: long_memory_optimizer(50, 3.0)),
        (lambda: self_tuning_optimizer(weight_decay=0.5),
         lambda: anytime_optimizer(weight_decay=0.5)),
        (lambda: self_tuning_optimizer(fixed_batch=True, lower_bound=-1.0),
         lambda: fixed_batch_optimizer(lower_bound=-1.0)),
    ],
    ids=["a length", "no length", "a fixed batch"],
)  # fmt: skip
def test_it_is_the_optimizer_of_that_kind_of_run(chosen, meant):
    start = jnp.array([1.0, -2.0])

    jax.tree.map(np.testing.assert_array_equal, iterate(chosen(), start), iterate(meant(), start))


def test_a_length_on_a_fixed_batch_is_refused():
    with pytest.raises(ValueError, match="`steps` must be None on a fixed batch"):
        self_tuning_optimizer(100, fixed_batch=True)
