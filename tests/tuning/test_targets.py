"""The procedure that sets targets: its rule by hand, and all of it with few trials."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

import tuning.targets
from metaopt.bench.measure.targets import Target
from metaopt.workloads.registry import get_workload
from tuning.targets import NoTargetError, examine, set_targets, worst_test_value

LOSS = Target("validation/loss", -1e30, "lower")
ACCURACY = Target("validation/accuracy", 1e30, "higher")


def curve(values, tests=None, period=10):
    """Return a curve with an evaluation every ten gradient evaluations."""
    tests = values if tests is None else tests
    costs = [period * (index + 1) for index in range(len(values))]
    return list(zip(costs, values, tests, strict=True))


def test_the_candidate_is_what_eighteen_of_twenty_have_reached_by_the_fraction():
    # Run k has 1 - k / 100 at the half and better values later; two runs stay far behind.
    runs = [curve([2.0] * 4 + [1 - k / 100] + [0.1] * 5) for k in range(18)]
    runs += [curve([5.0] * 9 + [0.5])] * 2

    found = examine(runs, [], 0.5, 100, LOSS)

    assert found.value == 1.0  # the worst of the eighteen
    assert found.reached == 20
    costs = [50.0] * 18 + [100.0] * 2
    assert found.variation == pytest.approx(np.std(costs, ddof=1) / np.mean(costs))


def test_directions_mirror_each_other():
    random = np.random.default_rng(0)
    values = np.cumsum(random.random((20, 10)), axis=1) + random.normal(size=(20, 10))
    studies = [[curve(row)] for row in values + 0.3]

    up = examine([curve(row) for row in values], studies, 0.6, 100, ACCURACY)
    mirrored = [[curve(-np.array([v for _, v, _ in c])) for c in s] for s in studies]
    down = examine([curve(-row) for row in values], mirrored, 0.6, 100, LOSS)

    assert up.value == -down.value
    assert (up.variation, up.reached, up.arrived) == (down.variation, down.reached, down.arrived)


def test_a_run_that_never_arrives_costs_a_hint_and_values_that_are_not_finite_count_nothing():
    runs = [curve([1.0, 1.0])] * 19 + [curve([math.nan, -math.inf])]

    found = examine(runs, [], 0.5, 20, LOSS)

    costs = [10.0] * 19 + [20.0]
    assert found.reached == 19
    assert found.variation == pytest.approx(np.std(costs, ddof=1) / np.mean(costs))


def test_a_study_arrives_by_any_of_its_trials():
    runs = [curve([1.0])] * 20
    studies = [[curve([2.0]), curve([0.5])], [curve([2.0])], []]

    assert examine(runs, studies, 1.0, 10, LOSS).arrived == 1


def test_too_many_failures_make_no_candidate():
    runs = [curve([math.nan])] * 3 + [curve([1.0])] * 17

    assert not examine(runs, [[curve([1.0])]] * 10, 1.0, 10, LOSS).accepted


@pytest.mark.parametrize(
    "variation, arrived, accepted",
    [(0.25, 8, True), (0.26, 10, False), (0.1, 7, False)],
)
def test_a_candidate_must_repeat_and_be_reached(variation, arrived, accepted):
    candidate = tuning.targets.Candidate(0.5, 1.0, variation, 20, arrived)
    assert candidate.accepted is accepted


def test_a_value_below_the_floor_is_raised_to_it():
    runs = [curve([1.0, 1e-4, 1e-6])] * 20

    found = examine(runs, [], 1.0, 30, LOSS, floor=1e-4)

    assert found.value == 1e-4
    assert found.variation == 0.0


def test_the_test_target_is_the_worst_where_the_validation_target_was_met():
    runs = [curve([2.0, 1.0, 0.5], [9.0, 3.0, 1.0]), curve([0.9], [4.0]), curve([2.0], [99.0])]

    assert worst_test_value(runs, dataclasses.replace(LOSS, value=1.0)) == 4.0
    assert worst_test_value(runs, dataclasses.replace(ACCURACY, value=2.0)) == 9.0


@pytest.fixture
def few(monkeypatch):
    """Make the procedure short: one baseline, few reruns and checks."""
    for name, value in {
        "BASELINES": ("sgd",), "FINALISTS": 2, "FINAL_RUNS": 3, "RERUNS": 4,
        "MUST_REACH": 3, "CHECKS": 2, "MUST_ARRIVE": 0,
        "CHECK_BUDGET": {False: "2x", True: "2x"}, "CHECKED_BY": "sgd+random",
        "LARGEST_VARIATION": 1.0,
    }.items():  # fmt: skip
        monkeypatch.setattr(tuning.targets, name, value)


def test_what_is_frozen_follows_from_the_records(few, tmp_path):
    name = "breast_cancer_logistic"

    found = set_targets(name, tmp_path, points=3)

    assert found.validation.version == found.test.version == tuning.targets.VERSION
    runs = {
        stage: [json.loads(p.read_text()) for p in (tmp_path / name / stage).rglob("run.json")]
        for stage in ("search", "finalists", "reruns", "check")
    }
    assert len(runs["search"]) == 3
    # Independently of the records' reader: the two best of three points, three runs each.
    finals = {}
    for path in (tmp_path / name / "finalists").rglob("eval_measurements.csv"):
        point = path.with_name("hparams.json").read_text()
        finals.setdefault(point, []).append(pd.read_csv(path)["validation/loss"].iloc[-1])
    assert [len(values) for values in finals.values()] == [3, 3]
    assert len(runs["reruns"]) == 4
    best = found.provenance["best"]
    assert {json.dumps(run["hyperparameters"]) for run in runs["reruns"]} == {
        json.dumps(best["hyperparameters"])
    }
    assert best["median_final_value"] == min(np.median(values) for values in finals.values())
    assert best["hyperparameters"] in [run["hyperparameters"] for run in runs["search"]]
    assert all(run["ledger"]["cost"]["steps"] == found.step_hint for run in runs["reruns"])
    assert {run["budget"]["eval_period"] for run in runs["reruns"]} == {25}
    assert len({run["seeds"]["trial"] for run in runs["reruns"] + runs["search"]}) == 7
    assert len({run["seeds"]["trial"] for run in runs["finalists"]}) == 3


def test_a_procedure_resumes_from_its_records(few, tmp_path, monkeypatch):
    name = "breast_cancer_logistic_fixed"
    whole = set_targets(name, tmp_path / "whole", points=2)
    check = tuning.targets._Procedure.check
    monkeypatch.setattr(tuning.targets._Procedure, "check", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        set_targets(name, tmp_path / "killed", points=2)
    monkeypatch.setattr(tuning.targets._Procedure, "check", check)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("study.json")}

    assert set_targets(name, tmp_path / "killed", points=2) == whole
    assert before
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert whole.test.value == whole.validation.value  # one batch is all there is
    assert {target.value for target in whole.also} == set(tuning.targets.FIXED_BESIDE)


def test_a_workload_that_cannot_have_a_target_is_told_what_to_do(few, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning.targets, "MUST_ARRIVE", 3)

    with pytest.raises(NoTargetError, match="no candidate repeats and is reached"):
        set_targets("breast_cancer_logistic", tmp_path, points=2)


def test_a_search_in_which_everything_fails_is_refused(few, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "metaopt.workloads.supervised.SupervisedWorkload.init_model_fn",
        lambda self, rng, *args: 1 / 0,
    )

    with pytest.raises(ValueError, match="one with: ZeroDivisionError"):
        set_targets("breast_cancer_logistic", tmp_path, points=1)


@pytest.mark.parametrize("metric, better", [("loss", None), ("accuracy", None), ("gain", "higher")])
def test_nothing_meets_the_target_of_the_runs(metric, better, tmp_path):
    workload = dataclasses.replace(
        get_workload("digits_mlp"), target_metric=metric, target_better=better,
        more_metrics=lambda *_: {},
    )  # fmt: skip

    target = tuning.targets._Procedure(workload, tmp_path).unreachable

    assert not any(target.is_met(value) for value in (-1e9, 0.0, 100.0, 1e9, math.inf, -math.inf))
    assert target.better == (better or ("lower" if metric == "loss" else "higher"))
