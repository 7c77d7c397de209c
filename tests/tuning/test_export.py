"""An exported study is what its records say, at any time and again and again."""

import dataclasses
import datetime
import json
import os

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from metaopt.bench import records
from metaopt.bench.measure.targets import Target
from metaopt.bench.records.outcomes import value_of
from tuning.contenders import Contender
from tuning.export import export_studies
from tuning.study import run_study

SPACE = {
    "rate": {"min": 1e-2, "max": 0.9, "scaling": "log"},
    "decay": {"min": 0.0, "max": 0.01, "scaling": "linear"},
    "kind": {"feasible_points": ["plain", "other"]},
}
SEARCHED = {
    "rate": FloatDistribution(1e-2, 0.9, log=True),
    "decay": FloatDistribution(0.0, 0.01),
    "kind": CategoricalDistribution(["plain", "other"]),
}
POINTS = [
    {"rate": 0.1, "decay": 0.0, "kind": "plain"},
    {"rate": 0.5, "decay": 0.0, "kind": "other"},
    {"rate": 0.1, "decay": 0.01, "kind": "plain"},
    {"rate": 0.9, "decay": 0.0, "kind": "plain"},
]


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is not on the disk yet matters to a power cut only, and waiting for it takes long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def url(tmp_path):
    return f"journal:{tmp_path}/storage.log"


@pytest.fixture
def run(tmp_path, clock, make_fake_study):
    """Run a study of a submission that lies in no folder, in ``<tmp_path>/out``."""

    def run(tuner, space=None, **changes):
        plan = make_fake_study(tuner, clock, space=space or SPACE, **changes)
        run_study(plan, tmp_path / "out" / "logs", clock=clock, checkpoint_seconds=0)
        return tmp_path / "out"

    return run


def load(url):
    (name,) = optuna.get_all_study_names(open_storage(url))
    return optuna.load_study(study_name=name, storage=open_storage(url))


def open_storage(url):
    if not url.startswith("journal:"):
        return url
    backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:"))
    return optuna.storages.JournalStorage(backend)


def content(url):
    """Everything that a study holds."""
    return [
        (t.state, t.values, t.params, t.distributions, t.user_attrs, t.intermediate_values,
         t.datetime_start, t.datetime_complete)
        for t in load(url).trials
    ]  # fmt: skip


def change_records(folder, change):
    for path in folder.rglob(records.RUN_FILE):
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))


def test_a_study_has_the_times_the_names_and_the_space_of_its_records(run, url, read_trials):
    out = run("random")
    started = "2024-05-06T07:08:09+00:00"
    change_records(out, lambda document: document.update(started_at=started))

    assert list(export_studies(out, url)) == [("test/fake+random/quadratic/study_1", 3)]

    study = load(url)
    assert study.metric_names == ["tuner's value (validation/loss)"]
    for trial, record in zip(study.trials, read_trials(out), strict=True):
        start = datetime.datetime.fromisoformat(started).astimezone().replace(tzinfo=None)
        ledger = record.ledger
        seconds = ledger.cost.seconds + ledger.evaluation_seconds + ledger.logging_seconds
        assert seconds > 0
        assert trial.datetime_start == start
        assert trial.duration.total_seconds() == pytest.approx(seconds, abs=1e-5)
        assert trial.distributions == SEARCHED
        assert trial.params == record.hyperparameters
        assert (trial.state, trial.value) == (TrialState.COMPLETE, value_of(record))
        assert trial.user_attrs["trial"] == record.trial
        rows = records.read_evaluations(
            out
            / "logs/fake+random/study_1/quadratic_jax"
            / f"trial_{record.trial}/{records.EVAL_FILE}"
        )
        assert trial.intermediate_values == {r["global_step"]: r["validation/loss"] for r in rows}


def test_a_list_of_points_is_the_values_of_each_hyperparameter(run, url):
    out = run("grid", POINTS)

    list(export_studies(out, url))

    distributions = {
        "rate": CategoricalDistribution([0.1, 0.5, 0.9]),
        "decay": CategoricalDistribution([0.0, 0.01]),
        "kind": CategoricalDistribution(["plain", "other"]),
    }
    assert [trial.distributions for trial in load(url).trials] == [distributions] * 3


def test_what_a_variant_fixes_has_one_value(tmp_path, clock, make_fake_study, url):
    plan = make_fake_study("random", clock, space=SPACE)
    fixed = Contender("mine", plan.contender.submission, None, "random", {"rate": 0.95})
    plan = dataclasses.replace(plan, contender=fixed)
    run_study(plan, tmp_path / "out" / "logs", clock=clock)

    list(export_studies(tmp_path / "out", url))

    expected = SEARCHED | {"rate": CategoricalDistribution([0.95])}
    assert [trial.distributions for trial in load(url).trials] == [expected] * 3


def test_without_a_search_space_the_values_that_were_tried_are_the_distribution(run, url):
    out = run("none")

    list(export_studies(out, url))

    expected = {
        "rate": CategoricalDistribution([0.1]),
        "decay": CategoricalDistribution([0.0]),
        "kind": CategoricalDistribution(["plain"]),
    }
    assert [trial.distributions for trial in load(url).trials] == [expected] * 3


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_trials_that_have_not_changed_stay(kind, run, tmp_path):
    url = f"journal:{tmp_path}/log" if kind == "journal" else f"sqlite:///{tmp_path}/storage.db"
    out = run("random")
    last = max(out.rglob("trial_*"))
    last.rename(tmp_path / "later")
    list(export_studies(out, url))
    before = [trial._trial_id for trial in load(url).trials]
    (tmp_path / "later").rename(last)

    list(export_studies(out, url))

    assert [trial._trial_id for trial in load(url).trials][:2] == before


@pytest.mark.parametrize("tuner", ["asha", "hyperband", "median"])
def test_exports_while_a_study_runs_end_with_the_export_of_the_whole(
    tuner, run, url, tmp_path, killed, read_trials
):
    calls = {"left": 0}

    def before_step(_):
        calls["left"] -= 1
        if calls["left"] == 0:
            raise killed

    paused = 0
    while True:
        calls["left"] = 17
        try:
            out = run(tuner, before_step=before_step)
            break
        except killed:
            trials = read_trials(tmp_path / "out")
            if not trials:
                continue
            list(export_studies(tmp_path / "out", url))
            held = load(url).trials
            assert [t.user_attrs["trial"] for t in held] == [t.trial for t in trials]
            for trial, record in zip(held, trials, strict=True):
                assert trial.user_attrs["steps"] == record.ledger.cost.steps
                assert (trial.state == TrialState.RUNNING) == (record.status == "paused")
                assert max(trial.intermediate_values) == record.ledger.cost.steps
                paused += record.status == "paused"

    list(export_studies(out, url))

    fresh = f"journal:{tmp_path}/fresh.log"
    list(export_studies(out, fresh))
    assert content(url) == content(fresh)
    assert paused > 0 or tuner == "median"
    for trial, record in zip(load(url).trials, read_trials(out), strict=True):
        stopped = record.status in ("paused", "pruned")
        assert trial.state == (TrialState.PRUNED if stopped else TrialState.COMPLETE)
        assert trial.value == value_of(record)


def test_a_failure_is_a_failed_trial_with_its_cause(run, url, read_trials):
    def before_step(step):
        if step == 7:
            raise ValueError("no luck")

    out = run("random", before_step=before_step)

    list(export_studies(out, url))

    trials = load(url).trials
    assert {trial.state for trial in trials[:-1]} == {TrialState.FAIL}  # the budget cuts the last
    assert {trial.user_attrs["value"] for trial in trials[:-1]} == {3.0}
    assert trials[0].user_attrs["cause"].startswith("ValueError: no luck (test_export.py:")


def test_a_trial_whose_metric_is_missing_is_exported(run, url):
    out = run("random", target=Target("validation/f1", 0.2, "lower"))
    for path in out.rglob(records.EVAL_FILE):
        path.unlink()

    list(export_studies(out, url))

    assert {trial.state for trial in load(url).trials} == {TrialState.FAIL}
    assert [trial.intermediate_values for trial in load(url).trials] == [{}] * 17


def test_a_study_that_somebody_else_made_is_left_alone(run, url):
    out = run("random")
    name = "test/fake+random/quadratic/study_1"
    study = optuna.create_study(storage=open_storage(url), study_name=name)
    study.add_trial(optuna.trial.create_trial(value=1.0))

    with pytest.raises(ValueError, match="that was not copied from records"):
        list(export_studies(out, url))

    assert len(load(url).trials) == 1
