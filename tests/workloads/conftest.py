"""Caches of processes go to a folder of the tests'; and a batch to train on."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory):
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def draw():
    """A call that returns a training batch without a queue, which compiles many at once."""

    def draw(workload, size, seed=0):
        rows = np.random.default_rng(seed).permutation(workload.num_train_examples)[:size]
        examples = jax.tree.map(lambda array: array[rows], workload.arrays["train"])
        return jax.jit(workload.complete)(examples)

    return draw
