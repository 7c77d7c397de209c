"""The contract of workloads: each rule finds one mistake, and nothing in a sound workload."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.bench.contract.spec import LossType, ParameterType, ShapeTuple
from metaopt.bench.rules.workload_check import WORKLOAD_RULES, check_workload, load_workload
from metaopt.workloads.data.queues import ShuffledQueue

_count = itertools.count()


@dataclasses.dataclass(frozen=True)
class Line:
    """Fit one slope to points on a line: as small as a workload with a mask can be."""

    name: str = "line"
    step_hint: int = 10
    loss_type: LossType | int | None = LossType.MEAN_SQUARED_ERROR
    reference_batch_size: int = 4
    eval_batch_size: int = 8
    eval_period_time_sec: float = 1.0
    max_allowed_runtime_sec: float = 1.0
    model_params_types: ParameterType | tuple = ParameterType.WEIGHT
    is_fixed_batch: bool = False
    target_metric: str = "loss"
    param_shapes = ShapeTuple(())
    metrics_logger = None

    def _build_input_queue(self, data_rng, split, data_dir="", global_batch_size=None):
        points = jnp.arange(8.0)
        return ShuffledQueue({"inputs": points, "targets": 2 * points}, data_rng, global_batch_size)

    def init_model_fn(self, rng):
        return jnp.ones(()), None

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm):
        return params * batch["inputs"], model_state

    def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
        mask = jnp.ones(label_batch.shape) if mask_batch is None else mask_batch
        each = mask * (label_batch - logits_batch) ** 2
        return {"summed": each.sum(), "n_valid_examples": mask.sum(), "per_example": each}

    def eval_model(self, size, params, model_state, rng, data_dir, v2, global_step=0):
        return {f"{split}/loss": 1.0 for split in ("train", "validation", "test")}


class WithoutSeek:
    def __init__(self, queue):
        self.queue = queue

    def __next__(self):
        return next(self.queue)


def another(**functions):
    """Return the sound workload with other methods."""
    return type("Line", (Line,), functions)()


def unmasked(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
    return Line().loss_fn(label_batch, logits_batch)


def half_masked(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
    count = Line().loss_fn(label_batch, logits_batch, mask_batch)["n_valid_examples"]
    return {**Line().loss_fn(label_batch, logits_batch), "n_valid_examples": count}


def start_elsewhere(self, rng):
    return jnp.asarray(float(next(_count))), None


def not_a_sum(self, *arguments, **named):
    loss = Line().loss_fn(*arguments, **named)
    return {**loss, "summed": loss["summed"] * loss["n_valid_examples"]}


def root_of_square(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
    loss = Line().loss_fn(label_batch, logits_batch, mask_batch)
    each = jnp.sqrt(loss["per_example"])
    return {**loss, "summed": each.sum(), "per_example": each}


MISTAKES = {
    "workload-interface": another(eval_model=None),
    "workload-hash": another(__hash__=None),
    "workload-start": another(init_model_fn=start_elsewhere),
    "workload-types": Line(model_params_types=(ParameterType.WEIGHT,)),
    "workload-shapes": another(param_shapes=jax.ShapeDtypeStruct((), jnp.float32)),
    "workload-queue": another(
        _build_input_queue=lambda self, *a, **b: WithoutSeek(Line()._build_input_queue(*a, **b))
    ),
    "workload-loss-type": another(loss_fn=root_of_square),
    "workload-mask": another(loss_fn=unmasked),
    "workload-evaluation": another(eval_model=lambda self, *_: {"validation/loss": np.nan}),
}  # fmt: skip


def test_a_sound_workload_breaks_no_rule():
    assert check_workload(Line()) == []


@pytest.mark.parametrize("rule", MISTAKES)
def test_each_mistake_is_found_by_its_rule_and_by_no_other(rule):
    found = check_workload(MISTAKES[rule])

    assert {finding.rule for finding in found} == {rule}, found
    assert all(finding.fix and finding.where == "line" for finding in found)


@pytest.mark.parametrize(
    "change", [{"step_hint": -1}, {"reference_batch_size": 0}, {"eval_period_time_sec": 0.0},
               {"eval_batch_size": 8.0}, {"max_allowed_runtime_sec": float("nan")}], ids=str,
)  # fmt: skip
def test_a_number_that_is_not_positive_is_found(change):
    ((name, value),) = change.items()

    (found,) = check_workload(Line(**change))

    assert (found.rule, found.what) == ("workload-interface", f"`{name}` is {value!r}")


def test_a_mask_that_only_the_count_heeds_is_found():
    (found,) = check_workload(another(loss_fn=half_masked))

    assert (found.rule, found.what) == ("workload-mask", "`summed` counts masked examples")


def check_loss(workload):
    """Return what the two rules find that look at the loss alone."""
    rules = (rule for rule in WORKLOAD_RULES if rule.id in ("workload-loss-type", "workload-mask"))
    return [finding for rule in rules for finding in rule.check(workload)]


@pytest.mark.parametrize("loss_type", [2, "MEAN_SQUARED_ERROR"], ids=repr)
def test_a_loss_type_that_algoperf_does_not_have_is_found(loss_type):
    (found,) = check_loss(Line(loss_type=loss_type))

    assert found.what == f"loss_type is {loss_type!r}, which is not a LossType"


@pytest.mark.parametrize("declared", LossType)
def test_only_the_type_that_is_computed_can_be_declared(declared):
    found = check_loss(Line(loss_type=declared))

    rules = [(finding.rule, finding.severity) for finding in found]
    sound = declared is LossType.MEAN_SQUARED_ERROR
    assert rules == ([] if sound else [("workload-loss-type", "error")])


def test_a_loss_of_no_type_is_compared_with_nothing_and_noted():
    (found,) = check_loss(type(MISTAKES["workload-loss-type"])(loss_type=None))

    assert (found.rule, found.severity) == ("workload-loss-type", "note")


def test_a_loss_that_is_another_one_with_a_mask_is_found():
    def twice(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
        loss = Line().loss_fn(label_batch, logits_batch, mask_batch)
        factor = 1.0 if mask_batch is None else 2.0
        return {
            **loss,
            "summed": factor * loss["summed"],
            "per_example": factor * loss["per_example"],
        }

    (found,) = check_loss(another(loss_fn=twice))

    assert found.rule == "workload-loss-type"
    assert "on a few numbers with a mask of ones; loss_fn gives" in found.what


class Tasks(Line):
    """Two binary tasks with labels that are missing, as AlgoPerf's ogbg has them."""

    def _build_input_queue(self, data_rng, split, data_dir="", global_batch_size=None):
        points = jnp.arange(8.0)
        pairs = jnp.stack([points % 2, points % 3 % 2], axis=1)
        there = jnp.ones((8, 2)).at[::3, 1].set(0.0)
        arrays = {"inputs": points, "targets": pairs, "weights": there}
        return ShuffledQueue(arrays, data_rng, global_batch_size)

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm):
        return params * jnp.stack([batch["inputs"]] * 2, axis=1), model_state

    def loss_fn(self, label_batch, logits_batch, mask_batch, label_smoothing=0.0):
        p = jax.nn.sigmoid(logits_batch)
        each = -jnp.log(jnp.where(label_batch == 1, p, 1 - p)) * mask_batch
        return {"summed": each.sum(), "n_valid_examples": mask_batch.sum(), "per_example": each}


def test_algoperfs_ogbg_alone_may_declare_softmax_and_compute_masked_sigmoid():
    class Ogbg(Tasks):
        base_name = "ogbg"

    def severities(workload):
        return [(f.rule, f.severity) for f in check_loss(workload)]

    declared = LossType.SOFTMAX_CROSS_ENTROPY
    rule = "workload-loss-type"
    assert severities(Tasks(loss_type=LossType.SIGMOID_CROSS_ENTROPY)) == []
    assert severities(Tasks(loss_type=declared)) == [(rule, "error")]
    assert severities(Ogbg(name="ogbg", loss_type=declared)) == [(rule, "error")]
    assert severities(Ogbg(name="algoperf_ogbg_gelu", loss_type=declared)) == [(rule, "note")]


class Speech(Line):
    """Losses as AlgoPerf's librispeech: a mask for each example does not fit its tokens."""

    base_name = "librispeech_conformer"

    def _build_input_queue(self, data_rng, split, data_dir="", global_batch_size=None):
        tokens = jnp.asarray(np.random.default_rng(0).integers(1, 3, (8, 2)), jnp.float32)
        targets = tokens, jnp.zeros((8, 2)).at[::2, 1].set(1.0)
        arrays = {"inputs": jnp.ones((8, 5, 3)), "targets": targets}
        return ShuffledQueue(arrays, data_rng, global_batch_size)

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm):
        return (params * batch["inputs"], jnp.zeros(batch["inputs"].shape[:2])), model_state

    def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
        tokens, paddings = label_batch
        each = optax.ctc_loss(*logits_batch, jnp.asarray(tokens, jnp.int32), paddings)
        mask = 1 - paddings
        if mask_batch is not None:
            each, mask = each * mask_batch, jnp.logical_and(mask_batch, mask)
        return {"summed": each.sum(), "n_valid_examples": mask.sum(), "per_example": each}


def test_algoperfs_speech_alone_may_stop_at_a_mask_of_examples():
    theirs, others = (
        check_loss(Speech(name=name, loss_type=LossType.CTC_LOSS))
        for name in ("algoperf_librispeech_conformer_gelu", "speech")
    )

    assert theirs == []
    assert {finding.rule for finding in others} == {"workload-loss-type", "workload-mask"}
    assert all("it raises" in finding.what for finding in others)


def test_a_loss_that_is_no_sum_is_found():
    found = {finding.rule for finding in check_workload(another(loss_fn=not_a_sum))}

    assert "workload-loss" in found


def test_every_rule_has_its_mistake():
    assert {*MISTAKES, "workload-loss"} == {rule.id for rule in WORKLOAD_RULES}


def test_a_workload_that_raises_is_a_finding():
    def raises(self, rng):
        raise KeyError("no weights")

    found = check_workload(another(init_model_fn=raises))

    assert all("it raises KeyError: 'no weights'" in finding.what for finding in found)
    assert "workload-start" in {finding.rule for finding in found}


@pytest.mark.parametrize("name", ["nowhere", "metaopt.nowhere:X", "metaopt.workloads.mnist:X"])
def test_a_workload_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match="No workload"):
        load_workload(name)


def test_an_object_is_found_by_its_module():
    assert load_workload("metaopt.workloads.digits_mlp:DIGITS_MLP").name == "digits_mlp"
