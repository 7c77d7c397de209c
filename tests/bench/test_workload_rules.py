"""The contract of workloads: each rule finds one mistake, and nothing in a sound workload."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.rules.workloads import WORKLOAD_RULES, check_workload, load_workload
from metaopt.bench.spec import ParameterType, ShapeTuple
from metaopt.workloads.queues import ShuffledQueue

_count = itertools.count()


@dataclasses.dataclass(frozen=True)
class Line:
    """Fit one slope to points on a line: as small as a workload with a mask can be."""

    name: str = "line"
    step_hint: int = 10
    loss_type: int = 2
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


def start_elsewhere(self, rng):
    return jnp.asarray(float(next(_count))), None


def not_a_sum(self, *arguments, **named):
    loss = Line().loss_fn(*arguments, **named)
    return {**loss, "summed": loss["summed"] * loss["n_valid_examples"]}


MISTAKES = {
    "workload-interface": another(eval_model=None),
    "workload-hash": another(__hash__=None),
    "workload-start": another(init_model_fn=start_elsewhere),
    "workload-types": Line(model_params_types=(ParameterType.WEIGHT,)),
    "workload-shapes": another(param_shapes=jax.ShapeDtypeStruct((), jnp.float32)),
    "workload-queue": another(
        _build_input_queue=lambda self, *a, **b: WithoutSeek(Line()._build_input_queue(*a, **b))
    ),
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
    assert load_workload("metaopt.workloads.embedded:DIGITS_MLP").name == "digits_mlp"
