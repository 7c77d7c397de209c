"""What every workload must do, and what each one is."""

import dataclasses
import hashlib
import inspect
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.bench.measure.targets import load_targets
from metaopt.bench.rules.workload_check import WORKLOAD_RULES
from metaopt.workloads.data.datasets import data_root
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.registry import get_workload, list_workloads
from tests.conftest import free_workloads

ALL = sorted(list_workloads())
# The paper's sizes are for accelerators: their own files test their parts.
LARGE = {"cifar10_vgg16", "ende_transformer"}
NAMES = [name for name in ALL if name.removesuffix("_fixed") not in LARGE]
# Loading and compiling these takes most of the time.
LONG = ("cifar10_vgg16_small", "ende_transformer_small")


def marked(names):
    """Return parameters for workloads, those that take long marked."""
    return [
        pytest.param(name, marks=pytest.mark.slow if name.startswith(LONG) else ())
        for name in names
    ]


STOCHASTIC = marked(name for name in NAMES if not name.endswith("_fixed"))
# AlgoPerf's ogbg declares another loss than it computes, and so does its miniature.
NOTES = {"mini_ogbg": ["workload-loss-type"]}
CLASSIFIERS = {
    name
    for name in NAMES
    if not name.endswith("_fixed")
    and name not in NOTES
    and get_workload(name).loss_type
    in (LossType.SOFTMAX_CROSS_ENTROPY, LossType.SIGMOID_CROSS_ENTROPY)
}
# The fixed forms share their code: two of them stand for all where a test compiles the model.
COMPILED = [*STOCHASTIC, *marked(["breast_cancer_logistic_fixed", "digits_mlp_fixed"])]
ALGOPERF_NAMES = {
    "cifar", "criteo1tb", "fastmri", "finewebedu_lm", "imagenet_resnet", "imagenet_vit",
    "librispeech_conformer", "librispeech_deepspeech", "mnist", "ogbg", "wmt",
}  # fmt: skip
PARAMETERS = {
    "digits_mlp": 8_970, "breast_cancer_logistic": 31, "mnist_mlp": 89_610,
    "cifar10_vgg16_small": 231_746, "ende_transformer_small": 1_447_424,
    "digits_conv": 21_386, "digits_transformer": 20_081,
    "digits_autoencoder": 38_416, "mini_criteo": 20_489, "mini_fastmri": 16_068,
    "mini_resnet": 19_810, "mini_vit": 18_698, "poisson_pinn": 1_185,
    "mini_conformer": 17_899, "mini_deepspeech": 18_859, "mini_lm": 16_800, "mini_ogbg": 17_374,
    "mini_wmt": 22_528,
}  # fmt: skip
EXAMPLES = {
    "digits_conv": (10_376, 250, 250),
    "digits_mlp": (1079, 359, 359),
    "digits_transformer": (1545, 126, 126),
    "breast_cancer_logistic": (341, 114, 114),
    "mnist_mlp": (50_000, 10_000, 10_000),
    "cifar10_vgg16_small": (9_000, 1_000, 2_000),
    "ende_transformer_small": (28_156, 1_014, 1_000),  # training pairs of at most 32 subwords
    "digits_autoencoder": (1_079, 359, 359),
    "mini_criteo": (81_920, 2_048, 2_048),
    "mini_fastmri": (2_048, 200, 100),
    "mini_resnet": (10_376, 250, 250),
    "mini_vit": (10_376, 250, 250),
    "poisson_pinn": (8_192, 256, 256),
    "mini_conformer": (3_000, 250, 200),
    "mini_deepspeech": (3_000, 250, 200),
    "mini_lm": (4_000, 200, 200),
    "mini_ogbg": (1_397, 200, 200),
    "mini_wmt": (4_789, 200, 200),
}


@pytest.fixture(
    params=marked(NAMES), scope="module"
)  # so that the tests of a workload run together
def workload(request):
    workload = get_workload(request.param)
    try:
        workload.check_data()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    yield workload
    free_workloads()  # all of them at once would take gigabytes


@pytest.fixture
def short(workload):
    """The workload on its first examples; the last of its chunks, if it has chunks, is not full."""
    if workload.is_fixed_batch:
        return workload
    changes = {"max_eval_batch_size": workload.max_eval_batch_size and 100}
    if workload.more_metrics is not None:  # BLEU, which has its own tests
        changes |= {"more_metrics": None, "target_metric": "loss", "target_better": None}
    short = dataclasses.replace(workload, **changes)
    size = max(260, workload.reference_batch_size)
    vars(short)["arrays"] = jax.tree.map(lambda array: array[:size], workload.arrays)
    vars(short)["_init"] = workload._init  # compiled once
    return short


@pytest.fixture
def trees(workload):
    """Parameters and model state."""
    return workload.init_model_fn(jax.random.PRNGKey(0))


@pytest.fixture
def params(trees):
    return trees[0]


def test_names_differ_from_those_of_algoperf():
    assert not set(ALL) & ALGOPERF_NAMES


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"No workload 'nowhere', only \['breast_cancer"):
        get_workload("nowhere")


def test_summary_states_the_number_of_parameters(workload, params):
    base = workload.name.removesuffix("_fixed")
    sizes = sum(leaf.size for leaf in jax.tree.leaves(params))

    assert sizes == PARAMETERS[base]
    assert f"{sizes:,} parameters" in workload.summary or f"({sizes} parameters" in workload.summary
    counts = workload.num_train_examples, workload.num_validation_examples
    assert (*counts, workload.num_test_examples) == EXAMPLES[base]


@pytest.mark.parametrize("workload", STOCHASTIC, indirect=True)
def test_data_description_identifies_the_data(workload):
    described = workload.describe_data()

    assert described["examples"] == dict(
        zip(("train", "validation", "test"), EXAMPLES[workload.name.removesuffix("_fixed")],
            strict=True)
    )  # fmt: skip
    assert described["whole"] is True
    assert json.loads(json.dumps(described)) == described
    paths = {path for source in workload.files for path in source.paths()}
    assert described["files"] == {
        str(path.relative_to(data_root())): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


@pytest.mark.parametrize("workload", COMPILED, indirect=True)
def test_no_rule_is_broken(short):
    # One test for all rules: they share the data and the compiled start.
    found = [finding for rule in WORKLOAD_RULES for finding in rule.check(short)]

    assert [finding.rule for finding in found] == NOTES.get(short.name, []), found
    assert {finding.severity for finding in found} <= {"note"}


@pytest.fixture
def some_logits(workload, trees):
    """A batch, and logits of the shape that the model gives it in training."""
    batch = next(workload._build_input_queue(None, "eval_train", "", 16))
    shape, _ = jax.eval_shape(
        lambda params, state: workload.model_fn(
            params, batch, state, ForwardPassMode.TRAIN, jax.random.PRNGKey(0), True
        ),
        *trees,
    )
    return batch, jax.random.normal(jax.random.PRNGKey(1), shape.shape, shape.dtype)


@pytest.mark.parametrize(
    "workload", marked(name for name in NAMES if name in CLASSIFIERS), indirect=True
)
def test_the_loss_is_scikit_learns(workload, some_logits):
    batch, logits = some_logits
    if logits.shape == (*batch["targets"].shape, 1):
        logits = logits[..., 0]

    loss = workload.loss_fn(batch["targets"], logits, batch.get("weights"))

    probabilities = np.asarray(workload.output_activation_fn(logits), np.float64)
    targets, labels = np.asarray(batch["targets"]), [0, 1]
    if logits.ndim > targets.ndim:
        probabilities /= probabilities.sum(-1, keepdims=True)  # to double precision
        labels = list(range(logits.shape[-1]))
    valid = np.asarray(batch.get("weights", jnp.ones(targets.shape))) > 0
    expected = log_loss(targets[valid], probabilities[valid], labels=labels)
    assert loss["summed"] / loss["n_valid_examples"] == pytest.approx(expected, rel=1e-4)
    assert loss["per_example"].sum() == pytest.approx(float(loss["summed"]), rel=1e-5)


@pytest.mark.parametrize("workload", COMPILED, indirect=True)
def test_evaluation_agrees_with_a_loop_over_the_split(short, trees):
    workload = short
    params, model_state = jax.tree.map(lambda p: p + 0.01, trees[0]), trees[1]
    metrics = workload.eval_model(
        workload.eval_batch_size, params, model_state, jax.random.PRNGKey(0), "", "", 0
    )
    assert {name for name in metrics if "/num_" not in name} == workload.metric_names

    mode = ForwardPassMode.EVAL
    if workload.is_fixed_batch:
        batches = [next(workload._build_input_queue(None, "train"))]
        mode = ForwardPassMode.TRAIN  # the function that is trained
    else:
        batches = list(workload._build_input_queue(None, "validation", global_batch_size=100))
    forward = jax.jit(
        lambda batch: workload.model_fn(
            params, batch, model_state, mode, jax.random.PRNGKey(0), False
        )[0]
    )
    summed = correct = count = 0.0
    for batch in batches:
        logits = forward(batch)
        mask = batch.get("weights")
        loss = workload.loss_fn(batch["targets"], logits, mask)
        summed += float(loss["summed"])
        if "validation/accuracy" in metrics:
            targets = np.asarray(batch["targets"])
            mask = np.ones(targets.shape) if mask is None else np.asarray(mask)
            guess = np.asarray(logits.argmax(-1) if logits.ndim > targets.ndim else logits > 0)
            correct += float(((guess == targets) * mask).sum())
        count += float(loss["n_valid_examples"])
    assert metrics["validation/loss"] == pytest.approx(summed / count, rel=1e-4)
    if "validation/accuracy" in metrics:
        # Chunks of another size may round a tie of two logits otherwise.
        assert metrics["validation/accuracy"] == pytest.approx(correct / count, rel=1e-3)


@pytest.mark.parametrize("form", ["", "_fixed"], ids=["stochastic", "fixed"])
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda params, state: (0, state), "`params` must have .* 6 arrays, got 1 arrays"),
        (lambda params, state: (None, state), "`params` must have .* got 0 arrays: no "),
        (lambda params, state: ({**params, "more": 0}, state), r"got 7 arrays: .*\['more'\]"),
        (lambda params, state: (params, params), "`model_state` must have .* 0 arrays, got 6"),
    ],
)
def test_evaluation_refuses_trees_of_another_structure(form, change, message):
    workload = get_workload(f"digits_mlp{form}")
    params, state = workload.init_model_fn(jax.random.PRNGKey(0))

    with pytest.raises(ValueError, match=message):
        workload.eval_model(64, *change(params, state), jax.random.PRNGKey(0), "", None, 0)
    workload.eval_model(64, params, {}, jax.random.PRNGKey(0), "", None, 0)  # as good as None


@pytest.mark.parametrize("name", ["digits_mlp", "digits_mlp_fixed"])
def test_evaluation_takes_algoperfs_arguments_in_its_order(name):
    parameters = inspect.signature(get_workload(name).eval_model).parameters

    assert list(parameters) == [
        "global_batch_size", "params", "model_state", "rng", "data_dir", "imagenet_v2_data_dir",
        "global_step",
    ]  # fmt: skip


def test_both_forms_share_data_and_initialisation():
    base, fixed = get_workload("digits_mlp"), get_workload("digits_mlp_fixed")

    assert fixed.arrays is base.arrays
    starts = [workload.init_model_fn(jax.random.PRNGKey(0))[0] for workload in (base, fixed)]
    jax.tree.map(np.testing.assert_array_equal, *starts)


def test_targets_are_frozen_with_their_provenance(workload):
    if workload.name not in load_targets():
        pytest.skip(f"{workload.name} has no frozen targets yet")
    targets = workload.targets

    assert targets.step_hint == workload.step_hint
    assert targets.validation.metric == f"validation/{workload.target_metric}"
    found = targets.provenance
    assert found["reruns"] == 20
    assert workload.name in found["command"]
    assert targets.test.version == targets.validation.version
    if targets.validation.version == 1:
        floor = 1e-4 if workload.is_fixed_batch else -math.inf
        assert targets.validation.value == max(floor, found["median_of_best"])
    else:
        *refused, accepted = found["examined"]
        assert targets.validation.value == accepted["value"]
        assert accepted["variation"] == found["variation"] <= 0.25
        assert accepted["arrived"] / 10 == found["share_reached"] >= 0.8
        assert all(one["variation"] > 0.25 or one["arrived"] < 8 for one in refused)
        assert [one["fraction"] for one in found["examined"]] == [0.75, 0.6, 0.5, 0.4][
            : len(found["examined"])
        ]
    if workload.is_fixed_batch:
        assert [target.value for target in targets.also] == [1e-2, 1e-6]


@pytest.mark.parametrize("name", ["digits_mlp_fixed", "breast_cancer_logistic_fixed"])
def test_the_seed_chooses_the_fixed_batch_and_all_splits_report_it(name):
    one = get_workload(name)
    same, other = (dataclasses.replace(one, batch_seed=seed) for seed in (one.batch_seed, 7))

    np.testing.assert_array_equal(one.batch["inputs"], same.batch["inputs"])
    assert not np.array_equal(one.batch["inputs"], other.batch["inputs"])
    params, _ = one.init_model_fn(jax.random.PRNGKey(0))
    params = jax.tree.map(lambda p: p + 0.01, params)
    metrics = one.eval_model(64, params, None, None)
    assert metrics["train/loss"] == metrics["validation/loss"] == metrics["test/loss"]
    assert metrics["train/loss"] != other.eval_model(64, params, None, None)["train/loss"]


def test_splits_do_not_overlap():
    arrays = get_workload("digits_mlp").arrays
    rows = [tuple(row) for part in arrays.values() for row in np.asarray(part["inputs"])]

    assert len(set(rows)) == len(rows) == 1797


def test_data_that_is_first_touched_inside_a_trace_is_data_outside_it():
    untouched = dataclasses.replace(get_workload("digits_mlp"))
    workload = fix_batch(untouched)

    inside = jax.jit(lambda: workload.batch["inputs"].sum())()

    np.testing.assert_allclose(np.asarray(workload.batch["inputs"]).sum(), inside, rtol=1e-5)


def test_an_initialisation_that_is_first_traced_works_outside_the_trace():
    workload = dataclasses.replace(get_workload("digits_mlp"))

    shapes, _ = jax.eval_shape(workload.init_model_fn, jax.random.PRNGKey(0))

    params, _ = workload.init_model_fn(jax.random.PRNGKey(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_changing_a_taken_fixed_batch_does_not_change_the_next_one():
    workload = get_workload("digits_mlp_fixed")
    queue = workload._build_input_queue(None, "train")
    batch = next(queue)

    batch["inputs"] = batch["inputs"] * 0.5

    np.testing.assert_array_equal(next(queue)["inputs"], workload.batch["inputs"])
    assert not np.array_equal(batch["inputs"], workload.batch["inputs"])
