"""A failure is recorded with its cause; only finite numbers meet a target or enter a record."""

import dataclasses
import itertools
import json
import math
import os

import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.spaces import check_point, parse_space
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import TrialRecord, best_value, find_reached, metric_of
from metaopt.bench.records.failures import describe_stall
from metaopt.bench.records.outcomes import WORST_LOSS, read_curve
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))

BROKEN = """
from . import helper


def get_batch_size(workload_name):
    return 1


def init_optimizer_state(workload, *_):
    return {"nothing": 0}, None


def data_selection(workload, input_queue, *_):
    return next(input_queue)


def update_params(*, current_param_container, model_state, optimizer_state, global_step, **_):
    helper.act(global_step)
    return optimizer_state, current_param_container, model_state
"""


@pytest.fixture
def make_submission(tmp_path):
    """Load a submission that does ``act`` at each step, a function in a module of its own."""

    def make(act):
        folder = tmp_path / "broken"
        folder.mkdir()
        (folder / "submission.py").write_text(BROKEN)
        (folder / "helper.py").write_text(f"def act(step):\n    {act}\n")
        return load_submission(folder, tmp_path)

    return make


@pytest.mark.parametrize(
    "act, status, cause",
    [
        ("if step == 25: print(learning_rat)", "crashed",
         "NameError: name 'learning_rat' is not defined (helper.py:2)"),
        ("{}['rate']", "crashed", "KeyError: 'rate' (helper.py:2)"),
        ("raise MemoryError", "out_of_memory", "MemoryError (helper.py:2)"),
        ("raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory\\nallocating 8 bytes')",
         "out_of_memory",
         "RuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes (helper.py:2)"),
        ("raise SystemExit(3)", "crashed", "SystemExit: 3 (helper.py:2)"),
    ],
    ids=["typo", "key", "memory", "device memory", "exit"],
)  # fmt: skip
def test_the_cause_of_a_failure_is_its_type_its_message_and_the_line_of_the_submission(
    tmp_path, make_plan, make_submission, act, status, cause
):
    record = run_trial(make_plan(make_submission(act), WORKLOAD), tmp_path / "out")

    assert (record.status, record.cause) == (status, cause)
    assert record.error.startswith("Traceback (most recent call last)")


def test_an_error_that_never_was_in_the_submission_names_the_line_that_raised_it(
    tmp_path, make_plan, make_submission
):
    class Unevaluable(Quadratic):
        def eval_model(self, *_, **__):
            raise OSError("no disk")

    record = run_trial(make_plan(make_submission("pass"), Unevaluable()), tmp_path / "out")

    here = record.cause.removeprefix("OSError: no disk (trial/test_failures.py:")
    assert here.removesuffix(")").isdigit()


def test_an_error_raised_again_elsewhere_names_the_line_it_came_from(
    tmp_path, make_plan, make_submission
):
    submission = make_submission("1 / 0")
    update_params = submission.module.update_params

    def wrapped(**arguments):
        try:
            return update_params(**arguments)
        except ZeroDivisionError as error:
            raise RuntimeError("no step") from error

    submission.module.update_params = wrapped

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path / "out")

    assert record.cause == "RuntimeError: no step (helper.py:2)"


def test_a_broken_contract_is_a_cause(tmp_path, make_plan, make_gradient_descent):
    submission = make_gradient_descent()
    submission.module.update_params = lambda **_: None

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert record.cause.startswith("WrongReturnError: update_params must return (optimizer_state, ")


def test_the_cause_of_a_divergence_is_the_metrics_that_were_not_finite_and_their_step(
    tmp_path, make_plan, make_gradient_descent
):
    record = run_trial(make_plan(make_gradient_descent(rate=1e30), WORKLOAD), tmp_path)

    assert (record.status, record.error) == ("diverged", None)
    assert record.cause == (
        "After step 10: test/loss is nan, train/loss is nan, validation/loss is nan."
    )


@dataclasses.dataclass(frozen=True)
class Reporting(Quadratic):
    """A quadratic with more metrics."""

    more: tuple[tuple[str, object], ...] = ()

    def eval_model(self, *arguments, **named):
        return {**super().eval_model(*arguments, **named), **dict(self.more)}


def test_any_metric_that_is_not_finite_is_a_divergence(tmp_path, make_plan, make_gradient_descent):
    workload = Reporting(more=(("test/ce_loss", math.inf),))

    record = run_trial(make_plan(make_gradient_descent(), workload), tmp_path)

    assert (record.status, record.cause) == ("diverged", "After step 10: test/ce_loss is inf.")


def test_a_trial_that_succeeds_has_no_cause(tmp_path, make_plan, make_gradient_descent):
    record = run_trial(make_plan(make_gradient_descent(), WORKLOAD), tmp_path)

    assert (record.status, record.cause, record.error) == ("trial_budget", None, None)


def test_the_cause_of_a_stall_is_the_line_at_which_the_submission_stands(tmp_path):
    mine = tmp_path / "mine" / "submission.py"
    stacks = f"""Timeout (0:01:03)!
Thread 0x00007f5c (most recent call first):
  File "/usr/lib/python3/threading.py", line 3 in wait
  File "{mine}", line 12 in update_params
  File "{mine}", line 30 in outer
  File "{tmp_path}/runner.py", line 7 in run
"""

    cause = describe_stall(60.0, stacks, tmp_path / "mine")

    assert "60 s" in cause and cause.endswith("(submission.py:12)")


def test_a_process_that_died_twice_is_a_cause(tmp_path, make_plan, make_gradient_descent, killed):
    def die(step):
        raise killed

    plan = make_plan(make_gradient_descent(before_step=die), WORKLOAD)
    with pytest.raises(killed):
        run_trial(plan, tmp_path)
    progress = tmp_path / "progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_text()), "died": True}))

    record = run_trial(plan, tmp_path)

    assert record.status == "crashed"
    assert record.cause.startswith("The process that ran this trial died twice")


@pytest.mark.parametrize(
    "text, cause",
    [
        ("import optx\n", "ModuleNotFoundError: No module named 'optx' (submission.py:1)."),
        ("x = 1\ny = x +\n", "(submission.py:2)."),
        ("raise SystemExit\n", "SystemExit (submission.py:1)."),
    ],
    ids=["import", "syntax", "exit"],
)
def test_a_submission_that_cannot_be_imported_is_refused_with_the_line(tmp_path, text, cause):
    (tmp_path / "submission.py").write_text(text)

    with pytest.raises(ValueError, match=r"submission.py cannot be imported: ") as refused:
        load_submission(tmp_path, tmp_path)

    assert str(refused.value).endswith(cause)


# Only finite numbers.

NO_NUMBERS = [math.nan, math.inf, -math.inf]
TARGETS = [Target("m", 0.5, "lower"), Target("m", 0.5, "higher")]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("target", TARGETS, ids=["lower", "higher"])
def test_only_finite_numbers_meet_a_target_or_improve_on_anything(target, value):
    assert target.is_met(value) is np.False_ or target.is_met(value) is False
    assert not target.is_improvement(value, None)
    assert not target.is_improvement(value, 0.1)
    assert target.distance(value) == 1.0
    assert not target.is_met(np.array([value, value])).any()
    row = {"m": value, "global_step": 1, "gradient_evaluations": 1.0}
    row["accumulated_submission_time"] = 1.0
    good = {**row, "m": 0.5}
    assert find_reached([row], target) is None
    assert find_reached([row, good], target).evaluation == 1
    assert best_value([row], target) is None
    assert best_value([good, row], target) == best_value([row, good], target) == 0.5
    budget = records.BudgetRecord(currency="steps", study=1, trial=1, eval_period=1)
    assert [reading.loss for reading in read_curve([row], target, budget)] == [WORST_LOSS]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_target_is_a_finite_number(value):
    with pytest.raises(ValueError, match=f"must be a finite number, got {value} for 'm'"):
        Target("m", value, "lower")


def test_a_target_has_a_direction():
    with pytest.raises(ValueError, match="'lower' or 'higher', got 'smaller'"):
        Target("m", 0.5, "smaller")


@pytest.mark.parametrize("value", ["nan", "0.1", "", None, True])
def test_what_is_no_number_in_a_file_of_evaluations_is_no_metric(value):
    assert math.isnan(metric_of({"m": value}, "m"))
    assert best_value([{"m": value}], TARGETS[0]) is None
    assert find_reached([{"m": value}], TARGETS[0]) is None


def test_a_metric_is_a_number_whatever_kind_of_number_it_is(
    tmp_path, make_plan, make_gradient_descent
):
    class Single(Quadratic):
        def eval_model(self, *arguments, **named):
            found = super().eval_model(*arguments, **named)
            return {name: np.float32(value) for name, value in found.items()}

    target = Target("validation/loss", 0.5, "lower")

    record = run_trial(make_plan(make_gradient_descent(), Single(), target=target), tmp_path)

    assert record.status == "target"
    assert record.reached.evaluation == 0
    assert 0 < record.best <= 0.5


def test_a_metric_that_is_no_number_is_named(tmp_path, make_plan, make_gradient_descent):
    workload = Reporting(more=(("validation/note", "nan"),))

    record = run_trial(make_plan(make_gradient_descent(), workload), tmp_path)

    assert record.status == "invalid"
    assert "The metric 'validation/note' must be a number, got 'nan'." in record.cause


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1e39, 10**400, None, [1.0]])
def test_a_hyperparameter_is_a_finite_number_a_string_or_a_boolean(value):
    with pytest.raises(ValueError, match="somewhere: 'rate': values are finite 32-bit numbers"):
        check_point({"kind": "plain", "rate": value}, "somewhere")
    with pytest.raises(ValueError, match="rate"):
        parse_space({"rate": {"feasible_points": [0.1, value]}}, "somewhere")
    with pytest.raises(ValueError, match="rate"):
        parse_space([{"rate": value}], "somewhere")
    with pytest.raises(ValueError, match="rate"):
        parse_space({"rate": {"min": 0.0, "max": value, "scaling": "linear"}}, "somewhere")


@pytest.mark.parametrize("size", [0, -1, 2.5, "64", None, math.inf])
def test_a_batch_size_that_is_no_positive_integer_breaks_the_contract(
    tmp_path, make_plan, make_gradient_descent, size
):
    submission = make_gradient_descent()
    submission.module.get_batch_size = lambda name: size

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert (record.status, record.batch_size) == ("invalid", 0)
    assert "get_batch_size must return a positive integer" in record.cause


@pytest.mark.parametrize("count", ["episode", "restarts"])
def test_a_count_that_is_infinite_breaks_the_contract(
    tmp_path, make_plan, make_gradient_descent, count
):
    steps = itertools.count(1.0)

    def report(_):
        said = {"gradient_evaluations": next(steps), "episode": 0, "phase": "training"}
        return {**said, count: math.inf}

    record = run_trial(make_plan(make_gradient_descent(report=report), WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert "got inf" in record.cause or "'episode': inf" in record.cause


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '"nan"', '"inf"'])
@pytest.mark.parametrize("key", ["best", "value", "gradient_evaluations", "study"])
def test_a_record_with_a_number_that_is_none_is_refused(
    tmp_path, make_plan, make_gradient_descent, key, text
):
    folder = tmp_path / "trial"
    record = run_trial(make_plan(make_gradient_descent(), WORKLOAD, allowance=10.0), folder)
    document = json.dumps(record.model_dump(mode="json"))
    assert TrialRecord.model_validate_json(document) == record
    number = {"best": record.best, "value": -1.0, "gradient_evaluations": 10.0, "study": 100.0}
    path = folder / "changed.json"
    path.write_text(document.replace(f'"{key}": {number[key]}', f'"{key}": {text}', 1))
    assert text in path.read_text()

    with pytest.raises(ValueError, match="finite number"):
        records.read_trial(path)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is not on the disk yet matters to a power cut only, and waiting for it takes long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
