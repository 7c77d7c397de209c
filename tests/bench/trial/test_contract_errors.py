"""Errors and broken contracts become records that name them."""

import dataclasses
import math
import re

import jax.numpy as jnp
import pytest

from metaopt.bench import records
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def raise_at(step_of_harm, exception):
    def before_step(step):
        if step == step_of_harm:
            raise exception

    return before_step


@pytest.mark.parametrize(
    "exception, status",
    [
        (KeyError("lost"), "crashed"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), "out_of_memory"),
    ],
)
def test_what_raises_becomes_a_record_at_the_cost_it_had(
    tmp_path, make_plan, make_gradient_descent, exception, status
):
    submission = make_gradient_descent(before_step=raise_at(25, exception))

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == status
    assert record.status in records.FAILURES
    assert record.ledger.cost.steps == 25
    assert type(exception).__name__ in record.error
    assert record.reached is None


def test_a_nan_is_a_divergence_and_never_a_number(tmp_path, make_plan, make_gradient_descent):
    record = run_trial(make_plan(make_gradient_descent(rate=1e30), WORKLOAD), tmp_path)

    assert record.status == "diverged"
    assert record.reached is None
    assert record.best is None
    rows = records.read_evaluations(tmp_path / "eval_measurements.csv")
    assert math.isnan(rows[-1]["validation/loss"])


@pytest.mark.parametrize(
    "returned, message",
    [
        (lambda state, params, model: (state, params), "must return"),
        (lambda state, params, model: None, "must return"),
        (lambda state, params, model: (state, params[:1], model), "changed the structure"),
        (lambda state, params, model: (state, params.astype(jnp.float16), model), "dtypes"),
        (lambda state, params, model: ({"nothing": 0}, params, model), "the optimizer state as"),
    ],
    ids=["pair", "nothing", "other shape", "other dtype", "other state"],
)
def test_breaking_the_contract_is_named(
    tmp_path, make_plan, make_gradient_descent, returned, message
):
    submission = make_gradient_descent()
    submission.module.update_params = (
        lambda *, optimizer_state, current_param_container, model_state, **_: returned(
            optimizer_state, current_param_container, model_state
        )
    )

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert message in record.error


@pytest.mark.parametrize(
    "function, returned, message",
    [
        ("init_optimizer_state", lambda *_: {"nothing": 0}, "init_optimizer_state must return"),
        ("prepare_for_eval", lambda **_: None, "prepare_for_eval must return"),
    ],
)
def test_what_breaks_the_contract_outside_of_the_step_is_named_too(
    tmp_path, make_plan, make_gradient_descent, function, returned, message
):
    submission = make_gradient_descent()
    setattr(submission.module, function, returned)

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert message in record.error


def counting_submission(make_gradient_descent, ruleset="self-tuning", **declared):
    """Return gradient descent that declares one gradient evaluation a step, or as given."""
    count = {"steps": 0}

    def before_step(_):
        count["steps"] += 1

    def report(_):
        said = {"gradient_evaluations": float(count["steps"]), "episode": 0, "phase": "training"}
        return said | {name: value(count["steps"]) for name, value in declared.items()}

    submission = make_gradient_descent(before_step=before_step, report=report)
    return dataclasses.replace(submission, ruleset=ruleset), count


@pytest.mark.parametrize(
    "declared, message",
    [
        ({"gradient_evaluations": lambda steps: math.inf}, "cumulative number"),
        ({"gradient_evaluations": lambda steps: math.nan}, "cumulative number"),
        ({"gradient_evaluations": lambda steps: -steps}, "cumulative number"),
        ({"gradient_evaluations": lambda steps: 0.0}, "no gradient evaluation in 1000 steps"),
        ({"episode": lambda steps: None}, r"report\(\) must return numbers"),
        ({"restarts": lambda steps: "few"}, "must give 'restarts' as a number, got 'few'"),
        ({"restarts": lambda steps: -steps}, "cumulative number of 'restarts', got -10 after 0"),
    ],
    ids=[
        "infinite",
        "NaN",
        "falling",
        "standing still",
        "no episode",
        "no number",
        "negative",
    ],
)
def test_a_report_that_makes_no_sense_is_refused(
    tmp_path, make_plan, make_gradient_descent, declared, message
):
    submission, _ = counting_submission(make_gradient_descent, **declared)
    submission.module.data_selection = lambda *_: {}  # a batch that is drawn is charged

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert re.search(message, record.error)


def test_a_submission_that_exits_has_crashed(tmp_path, make_plan, make_gradient_descent):
    submission = make_gradient_descent(before_step=raise_at(5, SystemExit(0)))

    assert run_trial(make_plan(submission, WORKLOAD), tmp_path).status == "crashed"
