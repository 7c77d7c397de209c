"""The models of mini_criteo, mini_fastmri, mini_resnet and mini_vit have AlgoPerf's structures.

The tables are those of its JAX models, at commit 2c90454f, without the sizes.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.workloads.data.queues import as_stored
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.registry import get_workload

KEY = jax.random.PRNGKey(0)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL
B = 6  # rows of a batch

LOGITS = {
    "mini_criteo": (B, 1), "mini_fastmri": (B, 32, 32), "mini_resnet": (B, 10), "mini_vit": (B, 10),
}  # fmt: skip
TOP_LEVEL = {
    "mini_criteo": {*(f"Dense_{index}" for index in range(8)), "embedding_table"},
    "mini_fastmri": {
        *(f"ConvBlock_{index}" for index in range(5)),
        *(f"TransposeConvBlock_{index}" for index in range(2)), "Conv_0",
    },
    "mini_resnet": {
        "Conv_init", "BatchNorm_init", *(f"ResNetBlock_{index}" for index in range(3)), "Dense_0",
    },
    "mini_vit": {"Transformer", "conv_patch_extract", "head", "pre_logits"},
}  # fmt: skip
OUTPUTS = {
    "mini_criteo": "Dense_7", "mini_fastmri": "Conv_0", "mini_resnet": "Dense_0",
    "mini_vit": "head",
}  # fmt: skip
# The kinds are AlgoPerf's, the counts those of fewer layers.
TYPES = {
    "mini_criteo": {"WEIGHT": 8, "BIAS": 8, "EMBEDDING": 1},
    "mini_fastmri": {"CONV_WEIGHT": 8, "BIAS": 1},
    "mini_resnet": {
        "CONV_WEIGHT": 9, "BATCH_NORM_SCALE": 9, "BATCH_NORM_BIAS": 9, "WEIGHT": 1, "BIAS": 1,
    },
    "mini_vit": {
        "WEIGHT": 6, "BIAS": 7, "CONV_WEIGHT": 1, "LAYER_NORM_SCALE": 5, "LAYER_NORM_BIAS": 5,
        **dict.fromkeys(["ATTENTION_Q", "ATTENTION_K", "ATTENTION_V", "ATTENTION_OUT"], 2),
        "ATTENTION_BIAS": 8,
    },
}  # fmt: skip
NAMES = sorted(LOGITS)


@pytest.fixture(params=NAMES, scope="module")
def workload(request):
    return get_workload(request.param)


@pytest.fixture(scope="module")
def trees(workload):
    """Parameters and model state."""
    return workload.init_model_fn(KEY)


def test_parameters_have_algoperfs_names_and_types_with_lower_case_keys(workload, trees):
    params, types = trees[0], workload.model_params_types
    kinds = [kind.name for kind in jax.tree.leaves(types)]

    assert set(params) == TOP_LEVEL[workload.name]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == TYPES[workload.name]
    paths = [
        [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
        for tree in (params, types)
    ]
    assert sorted(path.lower() for path in paths[0]) == sorted(paths[1]) != sorted(paths[0])
    assert {key for key in params if workload.is_output_params(key)} == {OUTPUTS[workload.name]}
    assert 15_000 <= sum(leaf.size for leaf in jax.tree.leaves(params)) <= 40_000


def test_attention_has_kernels_with_an_axis_of_heads():
    params, _ = get_workload("mini_vit").init_model_fn(KEY)
    attention = params["Transformer"]["encoderblock_0"]["MultiHeadDotProductAttention_1"]

    split = {"kernel": (32, 2, 16), "bias": (2, 16)}
    assert jax.tree.map(jnp.shape, attention) == {
        "query": split, "key": split, "value": split,
        "out": {"kernel": (2, 16, 32), "bias": (32,)},
    }  # fmt: skip


@pytest.mark.parametrize("mode", [TRAIN, EVAL], ids=["train", "eval"])
def test_logits_have_algoperfs_shapes(workload, trees, mode):
    batch = workload.batch_shapes(B)

    logits, _ = jax.eval_shape(
        lambda params, state, batch: workload.model_fn(params, batch, state, mode, KEY, False),
        *trees, batch,
    )  # fmt: skip

    assert (logits.dtype, logits.shape) == (jnp.float32, LOGITS[workload.name])


def test_model_states_are_algoperfs(workload, trees):
    params, state = trees
    _, new = jax.eval_shape(
        lambda params, state, batch: workload.model_fn(params, batch, state, TRAIN, KEY, True),
        params, state, workload.batch_shapes(B),
    )  # fmt: skip

    if workload.name == "mini_resnet":
        assert set(state) == {"batch_stats"}
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    else:
        assert (state, new) == ({} if workload.name == "mini_vit" else None, None)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_only_softmax_losses_are_smoothed_as_algoperfs(workload, smoothing, draw):
    batch = draw(workload, B)
    logits = jax.random.normal(KEY, LOGITS[workload.name])

    def loss(**named):
        return workload.loss_fn(batch["targets"], logits, **named)["per_example"]

    expected = loss()
    if workload.loss_type is LossType.SOFTMAX_CROSS_ENTROPY:
        classes = np.asarray(batch["targets"])
        one_hot = np.eye(10)[classes] if classes.ndim == 1 else classes
        mixed = (1 - smoothing) * one_hot + smoothing / 10
        expected = -(mixed * np.asarray(jax.nn.log_softmax(logits))).sum(1)
    np.testing.assert_allclose(loss(label_smoothing=smoothing), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name, acts",
    [("mini_criteo", True), ("mini_fastmri", False), ("mini_resnet", False), ("mini_vit", True)],
)
def test_dropout_acts_in_training_where_algoperfs_does(name, acts, draw):
    workload = get_workload(name)
    params, state = workload.init_model_fn(KEY)
    params = jax.tree.map(lambda p: p + 0.1, params)  # no layer is 0 any more
    forward = jax.jit(workload.model_fn, static_argnums=(3, 5))
    batch = draw(workload, B)

    def difference(mode):
        one, other = (
            forward(params, batch, state, mode, KEY, mode is TRAIN, rate)[0] for rate in (0.0, 0.5)
        )
        return jnp.abs(one - other).max()

    assert (difference(TRAIN) > 1e-3) == acts
    assert difference(EVAL) == 0


STATES = {  # (update_batch_norm, use_running_average_bn): which statistics normalise, do they move
    (True, None): ("batch", True), (False, None): ("averages", False),
    (True, True): ("averages", False), (True, False): ("batch", True),
    (False, True): ("averages", False), (False, False): ("batch", False),
}  # fmt: skip


class Normed(nn.Module):
    """Batch normalisation alone, which makes rules quick to test."""

    @nn.compact
    def __call__(self, inputs, *, train=False, dropout_rate=None):
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(inputs)


def test_batch_norm_of_the_residual_network_ignores_the_mode():
    network = get_workload("mini_resnet").network_type(Normed(), has_modes=True)
    batch = {"inputs": 1.0 + 2.0 * jax.random.normal(KEY, (8, 3))}
    params, state = network.init(KEY, batch)
    values = np.asarray(batch["inputs"])
    normed = {"averages": values, "batch": (values - values.mean(0)) / values.std(0)}

    for mode in (TRAIN, EVAL):
        for (update, averages), (statistics, moves) in STATES.items():
            logits, new = network.apply(params, batch, state, mode, KEY, update, None, averages)
            np.testing.assert_allclose(logits, normed[statistics], rtol=1e-3, atol=1e-4)
            mean = new["batch_stats"]["BatchNorm_0"]["mean"]
            assert (jnp.abs(mean).max() > 0) == moves


def test_blocks_of_the_residual_network_start_as_the_identity():
    params, _ = get_workload("mini_resnet").init_model_fn(KEY)

    assert not np.any(params["ResNetBlock_0"]["BatchNorm_1"]["scale"])
    assert np.all(params["BatchNorm_init"]["scale"] == 1)


def test_mixup_mixes_the_batch_by_one_weight_with_itself_rolled_by_one(draw):
    workload = get_workload("mini_vit")
    plain = dataclasses.replace(workload, complete=as_stored)

    mixed, stored = draw(workload, B), draw(plain, B)

    weight = float(stored["mixup"][0])
    classes = np.eye(10)[np.asarray(stored["targets"])]
    for found, values in (
        (mixed["inputs"], np.asarray(stored["inputs"])), (mixed["targets"], classes),
    ):  # fmt: skip
        expected = weight * values + (1 - weight) * np.concatenate([values[-1:], values[:-1]])
        np.testing.assert_allclose(found, expected, atol=1e-6)
    weights = np.asarray(workload.arrays["train"]["mixup"])
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)  # of Beta(a, a)


def test_the_fixed_form_evaluates_the_mixed_batch_that_it_trains():
    workload = fix_batch(get_workload("mini_vit"))
    params, _ = workload.init_model_fn(KEY)
    params["head"]["kernel"] = jax.random.normal(KEY, params["head"]["kernel"].shape)

    found = workload.eval_model(16, params, None)["validation/loss"]

    batch = workload.batch
    assert batch["targets"].shape == (16, 10)
    logits = jax.jit(lambda params: workload.model_fn(params, batch, None, TRAIN, KEY, True)[0])
    loss = workload.loss_fn(batch["targets"], logits(params))
    assert found == pytest.approx(float(loss["summed"]) / 16, rel=1e-5)


@pytest.mark.parametrize("name", ["mini_resnet", "mini_vit"])
def test_noisy_digits_of_different_splits_are_different_images(name):
    arrays = get_workload(name).arrays
    images = {
        split: np.asarray(part["inputs"]).reshape(len(part["inputs"]), -1)
        for split, part in arrays.items()
    }
    train = images["train"]

    assert (train.mean(), train.std()) == pytest.approx((0, 1), abs=1e-5)
    copies = train.reshape(8, -1, 64)
    # Copies differ by their noise alone, whose deviation is the same everywhere.
    noise = (copies[0] - copies[1]) / np.sqrt(2)
    assert noise.std(0) == pytest.approx(noise.std(), rel=0.2)
    assert np.corrcoef(copies[0].ravel(), copies[1].ravel())[0, 1] > 0.6
    nearest = max(np.corrcoef(images["validation"][:20], train[: len(train) // 8])[:20, 20:].max(1))
    assert nearest < 0.99
