"""A plain training loop."""

import jax
import optax
import pytest


@pytest.fixture
def train():
    """Run a transformation over data and return the iterates."""

    def run(tx, value_fn, x, data):
        state, iterates = tx.init(x), [x]
        for datum in data:
            updates, state = tx.update(jax.grad(value_fn)(x, datum), state, x, datum=datum)
            x = optax.apply_updates(x, updates)
            iterates.append(x)
        return iterates

    return run
