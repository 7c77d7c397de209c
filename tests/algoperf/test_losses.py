"""Our losses are those of AlgoPerf's workloads: numbers, masks and label smoothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.workloads.losses import Loss
from metaopt.workloads.registry import get_workload


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


CASES = {
    "mnist": (jnp.arange(4), normal(4, 10)),
    "criteo1tb": (jnp.array([0.0, 1.0, 1.0, 0.0]), normal(4, 1)),
    "fastmri": (normal(4, 5, 5) + 1, normal(4, 5, 5)),
    "imagenet_resnet": (jnp.arange(4), normal(4, 1000)),
    "imagenet_vit": (jax.nn.softmax(normal(4, 1000)), normal(4, 1000)),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mask", [None, [1.0, 0.0, 1.0, 1.0]], ids=["whole", "masked"])
@pytest.mark.parametrize("name", CASES)
def test_a_loss_of_a_type_is_the_one_of_algoperfs_workload(name, mask, smoothing):
    if name == "criteo1tb":
        smoothing = 0.0  # which it ignores; ours does not
    labels, logits = CASES[name]
    mask = None if mask is None else jnp.array(mask)
    workload = get_workload(f"algoperf_{name}")

    found = Loss(workload.loss_type)(labels, logits, mask, smoothing)

    expected = workload.loss_fn(labels, logits, mask, smoothing)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)
