"""Honest submissions pass the audits, and their passes are counted exactly."""

import dataclasses
import math
import random

import jax
import pytest

from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.trial.audits.recording import STEPS
from tests.bench.trial.audits.conftest import RATE, declare, descend, gradient


def test_honest_descent_passes_and_is_counted_exactly(audit_of, make_gradient_descent):
    record = audit_of(descend(make_gradient_descent))

    assert record.findings == ()
    assert record.ratio == 1.0
    assert {window.kind for window in record.windows} == {"start", "sampled", "evaluation"}
    assert all(w.counted == w.charged == w.steps for w in record.windows)
    assert record.windows[0].steps == STEPS  # those near the end have fewer
    assert all(w.deviation == 0.0 for w in record.windows)
    # Each coordinate keeps (1 - rate a)^8 of its noise.
    (start,) = record.starts
    assert (1 - 5 * RATE) ** 8 < start.response < (1 - RATE) ** 8


@pytest.mark.parametrize("passes, failed", [(1, None), (2, False), (3, True)])
def test_passes_beyond_what_is_charged_are_noted_and_then_fail(
    audit_of, make_gradient_descent, passes, failed
):
    record = audit_of(descend(make_gradient_descent, passes))

    assert record.ratio == passes
    assert [f.failed for f in record.findings] == ([] if failed is None else [failed])


def test_a_submission_that_declares_its_passes_is_not_flagged(audit_of, make_gradient_descent):
    count = {"steps": 0}

    def update_params(**arguments):
        count["steps"] += 1
        return inner(**arguments)

    submission = descend(make_gradient_descent, 3)
    inner, submission.module.update_params = submission.module.update_params, update_params
    submission.module.report = lambda state: {
        "gradient_evaluations": 3.0 * count["steps"], "episode": 0, "phase": "training",
    }  # fmt: skip

    assert audit_of(submission).findings == ()


def test_an_episode_that_starts_afresh_passes(audit_of, make_gradient_descent):
    functions = declare(float, episode=lambda steps: max(0, steps - 1) // 20)
    inner = functions["update_params"]

    def update_params(*, workload, current_param_container, optimizer_state, rng, **arguments):
        steps = optimizer_state[0]["steps"]
        params = current_param_container
        if steps and steps % 20 == 0:
            params, _ = workload.init_model_fn(rng)
        return inner(
            workload=workload, current_param_container=params, optimizer_state=optimizer_state,
            rng=rng, **arguments,
        )  # fmt: skip

    submission = descend(make_gradient_descent, **{**functions, "update_params": update_params})
    record = audit_of(submission)

    assert record.findings == ()
    assert [start.kind for start in record.starts] == ["trial", "episode"]
    assert record.starts[1].step in (20, 40, 60)


def test_a_window_that_begins_without_finite_parameters_passes(audit_of, make_gradient_descent):
    """Such as one in which a guard returns to its last finite parameters."""

    def init(workload, params, *_):
        return {"steps": 0, "kept": params}, None

    def update_params(*, workload, model_state, optimizer_state, **_):
        steps, kept = optimizer_state[0]["steps"], optimizer_state[0]["kept"]
        kept = kept - RATE * gradient(workload, kept)
        shown = jax.numpy.full_like(kept, math.nan) if 2 <= steps % 16 < 12 else kept
        return ({"steps": steps + 1, "kept": kept}, None), shown, model_state

    functions = {"init_optimizer_state": init, "update_params": update_params}
    submission = descend(make_gradient_descent, **functions)
    records = [audit_of(submission, draw=random.Random(seed)) for seed in range(3)]

    windows = [window for record in records for window in record.windows]
    assert any(w.norm == w.moved > 0 and w.deviation == 0 for w in windows)
    assert all(record.findings == () for record in records)


def draws_ahead(make):
    """Draw 16 batches at once, take a step with each, and declare each step."""

    def select(workload, queue, optimizer_state, *_):
        if optimizer_state[0]["steps"] % 16 == 0:
            return [next(queue) for _ in range(16)]
        return {}

    return descend(make, **{**declare(float), "data_selection": select})


def accumulates_without_declaring(make):
    """Draw 2 batches in each step, take 2 passes, and leave the count to the draws."""

    def select(workload, queue, *_):
        return [next(queue) for _ in range(2)]

    return descend(make, 2, data_selection=select)


def shows_its_average(make):
    """Evaluate at an average of the iterates, and train on from the last one."""

    def init(workload, params, *_):
        return {"average": params, "iterate": params}, None

    def update_params(*, workload, model_state, optimizer_state, **_):
        average, iterate = optimizer_state[0]["average"], optimizer_state[0]["iterate"]
        iterate = iterate - RATE * gradient(workload, iterate)
        state = {"average": 0.9 * average + 0.1 * iterate, "iterate": iterate}
        return (state, None), iterate, model_state

    def prepare(*, model_state, optimizer_state, **_):
        return optimizer_state, optimizer_state[0]["average"], model_state

    functions = {"update_params": update_params, "prepare_for_eval": prepare}
    return descend(make, init_optimizer_state=init, **functions)


def ends_early(make):
    """Say that the run is complete after 5 steps."""

    def update_params(*, global_step, **arguments):
        if global_step == 5:
            raise TrainingCompleteError
        return inner(global_step=global_step, **arguments)

    submission = descend(make)
    inner, submission.module.update_params = submission.module.update_params, update_params
    return submission


def ends_early_at_a_random_point(make):
    """Evaluate at a point with noise, in a run that is complete after 5 steps."""

    def prepare(*, optimizer_state, current_param_container, model_state, rng, **_):
        params = current_param_container
        return optimizer_state, params + jax.random.normal(rng, params.shape), model_state

    submission = ends_early(make)
    submission.module.prepare_for_eval = prepare
    return submission


def decays_with_its_budget(make):
    """Let the rate fall with the share of the budget that is spent."""

    def update_params(
        *, workload, current_param_container, model_state, optimizer_state, train_state, **_
    ):
        rate = RATE * (1 - train_state["budget_fraction"])
        params = current_param_container - rate * gradient(workload, current_param_container)
        return optimizer_state, params, model_state

    return dataclasses.replace(descend(make, update_params=update_params), wants_train_state=True)


@pytest.mark.parametrize(
    "honest",
    [
        draws_ahead, accumulates_without_declaring, shows_its_average, ends_early,
        ends_early_at_a_random_point, decays_with_its_budget,
    ],
)  # fmt: skip
def test_honest_but_unusual_submissions_pass(audit_of, make_gradient_descent, honest):
    record = audit_of(honest(make_gradient_descent), steps=32.0, eval_period=32.0)

    assert record.findings == ()
