"""Supervised workloads: losses, metrics, models, nested batches, and what is refused."""

import dataclasses
import enum

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.bench.rules.workload_check import check_workload
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.models.parameter_types import parameter_type
from metaopt.workloads.supervised import Arrays, SupervisedWorkload

KEY = jax.random.PRNGKey(0)
EVAL, TRAIN = ForwardPassMode.EVAL, ForwardPassMode.TRAIN


class Linear(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(1, name="output")(inputs)[..., 0]


class Frames(nn.Module):
    """Logits of each frame, and the paddings of the frames."""

    @nn.compact
    def __call__(self, inputs):
        features, paddings = inputs
        return nn.Dense(4, name="output")(features), paddings


class Net(nnx.Module):
    """Everything that a trial keeps: parameters, running averages, lists, dropout."""

    def __init__(self, width, *, rngs):
        self.hidden = nnx.Sequential(
            nnx.Linear(3, width, rngs=rngs), nnx.relu, nnx.Linear(width, width, rngs=rngs)
        )
        self.bn = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.0, rngs=rngs)
        self.output = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, inputs, *, train=False, dropout_rate=0.0):
        hidden = self.bn(self.hidden(inputs), use_running_average=not train)
        self.dropout.rate = dropout_rate
        return self.output(self.dropout(hidden, deterministic=not train))[..., 0]


def load():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    part = {"inputs": x, "targets": x @ np.array([1, -2, 3], np.float32)}
    return Arrays(part, part, part)


def load_speech():
    """Frames that spell their tokens, in rows of different lengths; 7 do not fill chunks of 4."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, 4, (7, 3))
    lengths = random.integers(1, 4, 7)
    features = np.repeat(np.eye(4, dtype=np.float32)[tokens], 2, axis=1)  # two frames each
    padded = (np.arange(3) >= lengths[:, None]).astype(np.float32)
    part = {
        "inputs": (features, np.repeat(padded, 2, axis=1)),
        "targets": (tokens.astype(np.float32), padded),
    }
    return Arrays(part, part, part)


def make(**changes):
    arguments = {
        "name": "mine", "summary": "for tests", "load": load, "model": Linear(),
        "loss_type": LossType.MEAN_SQUARED_ERROR, "reference_batch_size": 20, "step_hint": 100,
    }  # fmt: skip
    return SupervisedWorkload(**{**arguments, **changes})


def make_speech(**changes):
    arguments = {"load": load_speech, "model": Frames(), "reference_batch_size": 4}
    return make(loss_type=LossType.CTC_LOSS, **{**arguments, **changes})


def huber(label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
    each = optax.huber_loss(logits_batch, label_batch)
    mask = jnp.ones(each.shape) if mask_batch is None else mask_batch
    each = each * mask
    return {"summed": each.sum(), "n_valid_examples": mask.sum(), "per_example": each}


def bias(label_batch, logits_batch, mask_batch):
    return jnp.average(logits_batch - label_batch, weights=mask_batch)


OWN = {"loss_type": None, "loss_fn": huber, "metrics": {"bias": bias}}


def evaluate(workload, params, state=None):
    return workload.eval_model(workload.eval_batch_size, params, state)


def errors(workload):
    return [finding for finding in check_workload(workload) if finding.severity == "error"]


def test_a_declared_squared_error_is_trained_and_scored():
    workload = make()
    params, _ = workload.init_model_fn(KEY)

    metrics = evaluate(workload, params)

    part = load().train
    predictions = part["inputs"] @ params["output"]["kernel"][:, 0] + params["output"]["bias"]
    difference = np.asarray(predictions) - part["targets"]
    assert metrics["validation/loss"] == pytest.approx((difference**2).mean(), rel=1e-5)
    expected = np.abs(difference).mean()
    assert metrics["test/mean_absolute_error"] == pytest.approx(expected, rel=1e-5)
    assert "validation/accuracy" not in metrics
    assert errors(workload) == []


@pytest.mark.parametrize("size", [None, 7], ids=["whole", "chunks"])
def test_a_loss_and_metrics_of_ones_own_are_used_in_both_forms(size):
    workload = make(**OWN, target_metric="bias", target_better="lower", max_eval_batch_size=size)
    fixed = fix_batch(workload)
    params, _ = workload.init_model_fn(KEY)

    found, found_fixed = evaluate(workload, params), evaluate(fixed, params)

    for metrics, part in ((found, load().train), (found_fixed, fixed.batch)):
        predictions, _ = workload.model_fn(params, part, None, EVAL, KEY, False)
        loss = optax.huber_loss(predictions, part["targets"]).mean()
        assert metrics["validation/loss"] == pytest.approx(float(loss), rel=1e-5)
        expected = float((predictions - part["targets"]).mean())
        assert metrics["validation/bias"] == pytest.approx(expected, abs=1e-5)
        assert "validation/mean_absolute_error" not in metrics
    assert size is None or errors(workload) == errors(fixed) == []


def test_a_copy_of_another_type_has_the_loss_of_that_type():
    other = dataclasses.replace(make(), loss_type=LossType.MEAN_ABSOLUTE_ERROR)

    assert other.loss_fn(jnp.zeros(2), jnp.array([3.0, 1.0]))["summed"] == 4
    assert list(other.metric_functions) == ["mean_squared_error"]


def test_batches_may_be_nested_and_chunks_change_nothing():
    whole = make_speech(target_metric="error_rate")
    chunked = make_speech(max_eval_batch_size=4)
    batch = next(whole._build_input_queue(np.asarray(KEY), "train"))
    assert jax.tree.map(jnp.shape, batch) == {
        "inputs": ((4, 6, 4), (4, 6)), "targets": ((4, 3), (4, 3)),
    }  # fmt: skip
    assert jax.tree.structure(whole.batch_shapes(2)) == jax.tree.structure(batch)
    assert whole.describe_data()["examples"] == {"train": 7, "validation": 7, "test": 7}
    params, _ = whole.init_model_fn(KEY)

    one, other = evaluate(whole, params), evaluate(chunked, params)

    assert one == pytest.approx(other, rel=1e-5)
    assert one["validation/error_rate"] > 0
    # Frames spell their tokens: with the identity all of them are read, but for repetitions.
    exact = {"output": {"kernel": 9 * jnp.eye(4), "bias": jnp.zeros(4)}}
    part = load_speech().test
    true = [row[: int((1 - pad).sum())] for row, pad in zip(*part["targets"], strict=True)]
    joined = sum(int((row[1:] == row[:-1]).sum()) for row in true)
    expected = joined / sum(map(len, true))
    assert evaluate(whole, exact)["test/error_rate"] == pytest.approx(expected, rel=1e-6)
    assert errors(chunked) == []


def test_an_nnx_model_has_parameters_state_and_modes():
    workload = make(model=lambda rngs: Net(4, rngs=rngs), has_modes=True, dropout_rate=0.5)
    params, state = workload.init_model_fn(KEY)
    batch = next(workload._build_input_queue(np.asarray(KEY), "train"))

    @jax.jit
    def forward(params, key):
        return workload.model_fn(params, batch, state, TRAIN, key, True)

    one, moved = forward(params, KEY)
    again, _ = forward(params, KEY)
    other, _ = forward(params, jax.random.PRNGKey(1))
    calm, kept = workload.model_fn(params, batch, state, EVAL, KEY, False)

    np.testing.assert_array_equal(one, again)
    assert jnp.abs(one - other).max() > 0.01  # dropout follows the key
    assert kept is state
    first, second = params["hidden"]["layers"][0], params["hidden"]["layers"][2]
    hidden = jax.nn.relu(batch["inputs"] @ first["kernel"] + first["bias"][None])
    hidden = hidden @ second["kernel"] + second["bias"][None]
    mean, found = hidden.mean(0), moved["batch_stats"]["bn"]["mean"]
    np.testing.assert_allclose(found, 0.01 * mean, rtol=1e-4)  # nnx's momentum
    hidden = hidden / jnp.sqrt(1 + 1e-5)  # by the running averages at the start
    expected = (hidden @ params["output"]["kernel"])[:, 0] + params["output"]["bias"]
    np.testing.assert_allclose(calm, expected, rtol=1e-4)
    assert workload.model_params_types["bn"]["scale"].name == "BATCH_NORM_SCALE"
    assert errors(workload) == []


@pytest.mark.parametrize(
    "path, expected",
    [
        ("Dense_0/kernel", "WEIGHT"), ("Dense_0/bias", "BIAS"), ("Conv_0/kernel", "CONV_WEIGHT"),
        ("ConvTranspose_1/bias", "BIAS"), ("conv1/kernel", "CONV_WEIGHT"),
        ("LayerNorm_0/scale", "LAYER_NORM_SCALE"), ("norm1/bias", "LAYER_NORM_BIAS"),
        ("RMSNorm_0/scale", "LAYER_NORM_SCALE"), ("BatchNorm_0/scale", "BATCH_NORM_SCALE"),
        ("batch_norm/bias", "BATCH_NORM_BIAS"), ("Embed_0/embedding", "EMBEDDING"),
        ("MultiHeadDotProductAttention_0/query/kernel", "ATTENTION_Q"),
        ("attention/key/kernel", "ATTENTION_K"), ("SelfAttention_0/out/bias", "ATTENTION_BIAS"),
        ("attention/value/kernel", "ATTENTION_V"), ("attention/gate/kernel", "WEIGHT"),
        ("attention/query_ln/scale", "LAYER_NORM_SCALE"), ("GRUCell_0/hn/kernel", "WEIGHT"),
        ("subnet/kernel", "WEIGHT"), ("temperature", "WEIGHT"), ("0/1/bias", "BIAS"),
    ],
)  # fmt: skip
def test_parameter_types_follow_from_the_names_of_layers(path, expected):
    assert parameter_type(path.split("/")).name == expected


class Copied(enum.Enum):
    TRAIN = 0


@pytest.mark.parametrize("mode", [Copied.TRAIN, 0, None], ids=str)
def test_an_invalid_mode_is_refused(mode):
    workload = make()
    params, _ = workload.init_model_fn(KEY)

    with pytest.raises(ValueError, match=r"`mode` must be a .*ForwardPassMode"):
        workload.model_fn(params, load().train, None, mode, KEY, False)


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_empty_batches_are_refused(split, size):
    with pytest.raises(ValueError, match=rf"batch.* {size}"):
        make()._build_input_queue(np.asarray(KEY), split, global_batch_size=size)


def test_another_framework_is_refused():
    with pytest.raises(ValueError, match="`framework` must be 'jax', got 'pytorch'"):
        make().output_activation_fn(jnp.zeros(3), "pytorch")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": ""}, "`name` must be a non-empty text"),
        ({"load": load()}, "`load` must be a function, got Arrays"),
        ({"loss_type": 2}, r"`loss_type` must be a LossType, one of .*, got 2"),
        ({"loss_type": "mse"}, "got 'mse'"),
        ({"loss_type": None}, "`loss_type` must be a LossType"),
        ({"loss_type": None, "loss_fn": "huber"}, "`loss_fn` must be None or a function"),
        ({"target_metric": "accuracy"}, r"one of \['loss', 'mean_absolute_error'\], got 'acc"),
        ({"target_metric": "validation/loss"}, "`target_metric` must be a metric of the workload"),
        ({**OWN, "target_metric": "bias"}, "`target_better` must be 'lower' or 'higher' for"),
        ({"target_better": "less"}, r"`target_better` must be .*'lower', 'higher'.*, got 'less'"),
        ({"metrics": bias}, "`metrics` must be None or a mapping"),
        ({"metrics": {"loss": bias}}, r"`metrics` must .* not one of \('loss'"),
        ({"metrics": {"train/bias": bias}}, "without '/'"),
        ({"more_metrics": {}}, "`more_metrics` must be None or a function"),
        ({"reference_batch_size": 0}, "`reference_batch_size` must be .* at least 1, got 0"),
        ({"reference_batch_size": 20.0}, "`reference_batch_size` must be an integer .*, got 20.0"),
        ({"max_eval_batch_size": 0}, "`max_eval_batch_size` must be None or an integer"),
        ({"max_eval_batch_size": -5}, "got -5"),
        ({"step_hint": -1}, "`step_hint` must be an integer of at least 1, got -1"),
        ({"step_hint": True}, "`step_hint` must be an integer of at least 1, got True"),
        ({"eval_train_size": 0}, "`eval_train_size` must be"),
        ({"max_allowed_runtime_sec": -1.0}, "`max_allowed_runtime_sec` must be a positive number"),
        ({"eval_period_time_sec": float("nan")}, "`eval_period_time_sec` must be .*, got nan"),
        ({"dropout_rate": 1.0, "has_modes": True}, r"`dropout_rate` must be in \[0, 1\), got 1.0"),
        ({"dropout_rate": -0.1, "has_modes": True}, "got -0.1"),
        ({"dropout_rate": 0.1}, "`dropout_rate` must be 0 unless `has_modes=True`"),
        ({"has_modes": 1}, "`has_modes` must be True or False, got 1"),
        ({"model_inputs": "inputs"}, "`model_inputs` must be a tuple of keys"),
        ({"model_inputs": ()}, "`model_inputs` must be a tuple of keys"),
        ({"files": ("data.csv",)}, "`files` must be a tuple of sources"),
        ({"whole": {"valid": 60}}, "`whole` must be a mapping from some of"),
        ({"complete": None}, "`complete` must be a function"),
        ({"complete_eval": 3}, "`complete_eval` must be None or a function"),
        ({"pad": None}, "`pad` must be a function"),
        ({"metric_inputs": "targets"}, "`metric_inputs` must be a tuple of keys"),
        ({"network_type": None}, "`network_type` must be a function"),
        ({"parameter_types": {}}, "`parameter_types` must be a function"),
        ({"output_layer": ""}, "`output_layer` must be a non-empty text"),
        ({"model": Linear}, "`model` must be a flax.linen module, .* Got the class Linear"),
        ({"model": Net(2, rngs=nnx.Rngs(0))}, "function of `rngs` .* object of class Net"),
        ({"model": None}, "object of class NoneType"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_argument_that_cannot_be_used_is_refused_when_the_workload_is_made(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_a_metric_of_more_metrics_may_be_the_target_if_its_names_allow_it():
    def more(workload, params, model_state):
        return {"validation/ssim": 0.5}

    assert make(more_metrics=more, target_metric="ssim").metric_names is None
    more.names = ("validation/ssim",)
    assert "validation/ssim" in make(more_metrics=more, target_metric="ssim").metric_names
    with pytest.raises(
        ValueError, match=r"one of \['loss', 'mean_absolute_error', 'ssim'\], got 'w"
    ):
        make(more_metrics=more, target_metric="wer")


@pytest.mark.parametrize("name", ["loss_fn", "metrics"])
def test_a_method_with_the_name_of_an_argument_is_refused(name):
    kind = type("Mine", (SupervisedWorkload,), {name: huber})
    fields = {field.name: getattr(make(), field.name) for field in dataclasses.fields(kind)}

    with pytest.raises(ValueError, match=f"`{name}` must be an argument, not a method of Mine"):
        kind(**fields)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"targets": np.zeros(4)}, r"`train` needs as many targets as inputs, .*\(5,\).*\(4,\)"),
        ({"inputs": (np.zeros(5), np.zeros(6))}, r"lengths .*'inputs': \[\(5,\), \(6,\)\]"),
        ({"targets": np.zeros(0), "inputs": np.zeros(0)}, "at least one"),
        ({"targets": 1.0, "inputs": 2.0}, "at least one"),
        ({"targets": None}, "at least one"),
    ],
)
def test_data_that_does_not_belong_together_is_refused(change, message):
    part = {"inputs": np.zeros((5, 2)), "targets": np.zeros(5)}

    with pytest.raises(ValueError, match=message):
        Arrays({**part, **change}, part, part)
    with pytest.raises(ValueError, match=r"`test` has no \['targets'\], only \['inputs'\]"):
        Arrays(part, part, {"inputs": np.zeros(5)})
