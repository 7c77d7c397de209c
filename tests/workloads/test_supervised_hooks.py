"""Batches, metrics, model state and parameter types by rules of a workload's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.bench.rules.workload_check import check_workload
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.models.network import Network
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.supervised import SupervisedWorkload

KEY = jax.random.PRNGKey(0)
TRAIN = ForwardPassMode.TRAIN


class Linear(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(1, name="output")(inputs)[..., 0]


def load():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    part = {"inputs": x, "targets": x @ np.array([1, -2, 3], np.float32)}
    return Arrays(part, part, part)


def make(**changes):
    arguments = {
        "name": "mine", "summary": "for tests", "load": load, "model": Linear(),
        "loss_type": LossType.MEAN_SQUARED_ERROR, "reference_batch_size": 20, "step_hint": 100,
    }  # fmt: skip
    return SupervisedWorkload(**{**arguments, **changes})


def evaluate(workload, params, state=None):
    return workload.eval_model(workload.eval_batch_size, params, state)


def errors(workload):
    return [finding for finding in check_workload(workload) if finding.severity == "error"]


def test_evaluation_may_see_other_batches_than_training():
    def half(batch):
        return {**batch, "targets": batch["targets"] / 2}

    workload = make(complete=half, complete_eval=lambda batch: batch)
    params, _ = workload.init_model_fn(KEY)
    queues = [
        next(workload._build_input_queue(np.asarray(KEY), split, "", 60))
        for split in ("train", "eval_train")
    ]

    trained, evaluated = [np.sort(queue["targets"]) for queue in queues]
    np.testing.assert_allclose(trained, evaluated / 2)
    fixed = evaluate(fix_batch(workload), params)["train/loss"]  # evaluates what it trains
    batch = fix_batch(workload).batch
    predictions, _ = workload.model_fn(params, batch, None, TRAIN, KEY, False)
    expected = jnp.square(predictions - batch["targets"]).mean()
    assert fixed == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("size", [None, 7], ids=["whole", "chunks"])
def test_a_metric_may_read_further_arrays_of_the_batch(size):
    def load_scaled():
        part = {**load().train, "scale": np.arange(60, dtype=np.float32)}
        return Arrays(part, part, part)

    def scaled_error(label_batch, logits_batch, mask_batch):
        targets, scale = label_batch
        return jnp.average(scale * jnp.abs(logits_batch - targets), weights=mask_batch)

    workload = make(
        load=load_scaled, metrics={"scaled_error": scaled_error}, max_eval_batch_size=size,
        metric_inputs=("targets", "scale"), target_metric="scaled_error", target_better="lower",
    )  # fmt: skip
    params, _ = workload.init_model_fn(KEY)

    found = evaluate(workload, params)["test/scaled_error"]

    part = load().train
    predictions = part["inputs"] @ params["output"]["kernel"][:, 0] + params["output"]["bias"]
    expected = (np.arange(60) * np.abs(np.asarray(predictions) - part["targets"])).mean()
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_network_may_have_rules_of_its_own_for_the_model_state():
    class Forgetful(Network):
        def init(self, rng, batch):
            return super().init(rng, batch)[0], {}

        def apply(self, *arguments, **named):
            return super().apply(*arguments, **named)[0], None

    workload = make(network_type=Forgetful)
    params, state = workload.init_model_fn(KEY)
    batch = next(workload._build_input_queue(np.asarray(KEY), "train"))

    assert state == {}
    for form in (workload, fix_batch(workload)):
        assert form.model_fn(params, batch, state, TRAIN, KEY, True)[1] is None
        assert evaluate(form, params, state) == evaluate(form, params, None)
    assert errors(workload) == []


def test_types_may_be_algoperfs_with_keys_in_lower_case():
    class Capital(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Dense(1, name="Dense_0")(nn.LayerNorm(name="LayerNorm_0")(inputs))[..., 0]

    workload = make(model=Capital(), parameter_types=algoperf_types, output_layer="Dense_0")

    assert {
        layer: {name: kind.name for name, kind in types.items()}
        for layer, types in workload.model_params_types.items()
    } == {
        "dense_0": {"kernel": "WEIGHT", "bias": "BIAS"},
        "layernorm_0": {"scale": "LAYER_NORM_SCALE", "bias": "LAYER_NORM_BIAS"},
    }
    assert [workload.is_output_params(key) for key in ("Dense_0", "output")] == [True, False]
    assert errors(workload) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [  # as AlgoPerf types the arrays of these names in its own workloads
        ("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel", "ATTENTION_Q"),
        ("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/bias", "ATTENTION_BIAS"),
        ("Transformer/encoder_layernorm/scale", "LAYER_NORM_SCALE"),
        ("conv_patch_extract/bias", "BIAS"),
        ("ConformerBlock_0/ConvolutionBlock_0/Dense_0/kernel", "CONV_WEIGHT"),
        (
            "ConformerBlock_0/MultiHeadedSelfAttention_0/MultiHeadDotProductAttention_0/"
            "QueryScaler_0/scale",
            "WEIGHT",
        ),
        ("BottleneckResNetBlock_0/BatchNorm_proj/bias", "BATCH_NORM_BIAS"),
        ("node_embedding/kernel", "EMBEDDING"),
        ("node_embedding/bias", "BIAS"),
        ("embedding_table", "EMBEDDING"),
        ("shared_embedding/embedding", "EMBEDDING"),
        ("Dense_7/kernel", "WEIGHT"),
    ],
)
def test_types_of_algoperfs_names(path, expected):
    *layers, name = path.split("/")
    tree = {name: np.zeros(1)}
    for layer in reversed(layers):
        tree = {layer: tree}

    ((found, kind),) = jax.tree_util.tree_flatten_with_path(algoperf_types(tree))[0]

    assert "/".join(entry.key for entry in found) == path.lower()
    assert kind.name == expected
