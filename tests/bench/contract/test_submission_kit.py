"""What the submissions' common step hands to a workload, on one that writes it down."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.bench.contract import kit
from metaopt.bench.contract.return_values import as_namedtuple


class Noted:
    """Fits a number to tuples of targets; dropout and smoothing enter the loss as plain terms."""

    step_hint = 10

    def __init__(self):
        self.calls = []

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm, dropout_rate=0.5):
        self.calls.append((mode.name, update_batch_norm, dropout_rate))
        return (batch["inputs"][0] * params, batch["inputs"][1]), {"seen": model_state["seen"] + 1}

    def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.25):
        self.calls.append(label_smoothing)
        (labels, _), (logits, _) = label_batch, logits_batch
        mask = jnp.ones_like(labels) if mask_batch is None else mask_batch
        each = mask * (label_smoothing + 0.5 * (logits - labels) ** 2)
        return {"summed": each.sum(), "n_valid_examples": mask.sum(), "per_example": each}


def batch_of(**more):
    x, y = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([2.0, 1.0, 0.0, 5.0])
    return {"inputs": (x, jnp.zeros(4)), "targets": (y, jnp.zeros(4)), **more}


def take_step(workload, point, batch):
    baseline = kit.Baseline(lambda step_hint, *, rate: optax.sgd(rate), {"rate": 0.1})
    params = jnp.asarray(1.0)
    state = baseline.init_optimizer_state(workload, params, None, as_namedtuple(point), None)
    return baseline.update_params(
        workload, params, None, {"seen": jnp.zeros(())}, None, batch, None, state, [], 0,
        jax.random.PRNGKey(0),
    )  # fmt: skip


def test_the_step_is_the_gradient_over_examples_with_weight_one():
    mask = jnp.array([1.0, 0.0, 1.0, 0.0])

    _, whole, state = take_step(Noted(), None, batch_of())
    _, masked, _ = take_step(Noted(), None, batch_of(weights=mask))

    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 0.0, 5.0])
    gradients = x * (x * 1.0 - y)
    assert float(whole) == pytest.approx(1.0 - 0.1 * gradients.mean())
    assert float(masked) == pytest.approx(1.0 - 0.1 * gradients[[0, 2]].mean())
    assert float(state["seen"]) == 1.0


def test_what_a_point_does_not_name_is_the_workloads():
    workload = Noted()

    take_step(workload, {"rate": 0.1}, batch_of())

    assert workload.calls == [("TRAIN", True, 0.5), 0.25]


def test_dropout_and_smoothing_of_a_point_reach_the_workload_and_not_the_optimizer():
    workload = Noted()

    take_step(workload, {"rate": 0.1, "dropout_rate": 0.1, "label_smoothing": 0.2}, batch_of())

    assert workload.calls == [("TRAIN", True, 0.1), 0.2]


def test_other_names_are_refused_with_those_that_are_known():
    known = r"\['speed'\], known are \['dropout_rate', 'label_smoothing', 'rate'\]"
    with pytest.raises(ValueError, match=known):
        take_step(Noted(), {"speed": 0.1}, batch_of())


def test_a_fixed_batch_has_the_size_of_its_workload():
    assert kit.get_batch_size("digits_mlp_fixed") == kit.get_batch_size("digits_mlp")
    with pytest.raises(ValueError, match="No batch size for workload 'wmt_fixed_'"):
        kit.get_batch_size("wmt_fixed_")


def test_without_a_word_on_the_budget_it_goes_by_the_clock_of_algoperf():
    workload = types.SimpleNamespace(max_allowed_runtime_sec=10.0)

    assert kit.budget_fraction(workload, None) == 0.0
    assert kit.budget_fraction(workload, {"accumulated_submission_time": 7.5}) == 0.5
    said = {"budget_fraction": 0.3, "accumulated_submission_time": 9.0}
    assert kit.budget_fraction(workload, said) == 0.3
