"""Every tuner spends the stated budget, in every currency, and a killed study changes nothing."""

import itertools
import os

import pytest

from metaopt.bench import records
from metaopt.bench.measure.budget import CURRENCIES
from metaopt.bench.measure.targets import Target
from metaopt.workloads.registry import get_workload
from tuning.contenders import parse_contender
from tuning.executor import check_budgets
from tuning.study import StudyPlan, run_study

BUDGET, TRIAL, PERIOD = 60, 27, 5
BANDITS = ("asha", "hyperband")


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is not on the disk yet matters to a power cut only, and waiting for it takes long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("currency", CURRENCIES)
def test_every_tuner_spends_its_budget_to_within_one_period_in_every_currency(
    any_tuner, currency, tmp_path, clock, make_fake_study, read_trials
):
    plan = make_fake_study(
        any_tuner,
        clock,
        limits=records.BudgetRecord(
            currency=currency, study=BUDGET, trial=TRIAL, eval_period=PERIOD
        ),
    )

    study = run_study(plan, tmp_path, clock=clock)

    trials = read_trials(tmp_path)
    assert study.ended == "budget"
    assert abs(study.spent.amount(currency) - BUDGET) <= PERIOD
    check_budgets([study])  # what a campaign asserts at its end
    for unit in CURRENCIES:
        total = sum(trial.ledger.cost.amount(unit) for trial in trials)
        assert study.spent.amount(unit) == pytest.approx(total)
    assert (study.trials, max(trial.trial for trial in trials)) == (len(trials), len(trials))


@pytest.mark.parametrize("name", BANDITS)
def test_the_segments_of_a_bandits_trials_fill_the_studys_budget_without_a_gap(
    name, tmp_path, clock, make_fake_study, read_trials
):
    study = run_study(make_fake_study(name, clock), tmp_path, clock=clock)

    intervals = []
    for trial in read_trials(tmp_path):
        at = 0
        for segment in trial.segments:
            assert segment.start.steps == at  # each goes on where the one before paused
            at = segment.end.steps
            begin = segment.spent_before.steps
            intervals.append((begin, begin + segment.end.steps - segment.start.steps))
        assert at == trial.ledger.cost.steps
    intervals.sort()
    assert any(len(trial.segments) > 1 for trial in read_trials(tmp_path))
    assert intervals[0][0] == 0 and intervals[-1][1] == study.spent.steps
    assert all(one[1] == two[0] for one, two in itertools.pairwise(intervals))


def test_every_tuner_spends_its_budget_on_digits_mlp(any_tuner, tmp_path, read_trials):
    space = "@paper" if any_tuner in ("grid", "stagewise") else ""
    submission = "hgd" if any_tuner == "stagewise" else "adamw"
    plan = StudyPlan(
        campaign="test",
        campaign_seed=1,
        contender=parse_contender(f"{submission}{space}+{any_tuner}"),
        workload=get_workload("digits_mlp"),
        study=1,
        limits=records.BudgetRecord(
            currency="gradient_evaluations", study=60, trial=27, eval_period=9
        ),
        target=Target("validation/accuracy", 2.0, "higher"),
        test_target=None,
    )

    study = run_study(plan, tmp_path)

    assert study.ended == "budget"
    assert study.spent.gradient_evaluations == 60
    trials = read_trials(tmp_path)
    assert sum(trial.ledger.cost.steps for trial in trials) == 60
    assert {trial.error for trial in trials} == {None}


@pytest.mark.parametrize("trial_budget", [1, 4])
@pytest.mark.parametrize("name", BANDITS)
def test_a_trial_too_short_for_its_rungs_still_ends(
    name, trial_budget, tmp_path, clock, make_fake_study, read_trials
):
    plan = make_fake_study(
        name,
        clock,
        limits=records.BudgetRecord(currency="steps", study=20, trial=trial_budget, eval_period=1),
    )

    study = run_study(plan, tmp_path, clock=clock)

    assert (study.ended, study.spent.steps) == ("budget", 20)
    # A step cannot be cut: a rung below the first step is met by it.
    assert all(t.ledger.cost.steps <= trial_budget for t in read_trials(tmp_path))


def table(trials):
    """Everything about trials that does not depend on the time of day."""
    return [
        {
            "trial": trial.trial,
            "point": trial.hyperparameters,
            "status": trial.status,
            "best": trial.best,
            "steps": trial.ledger.cost.steps,
            "before": trial.spent_before.steps,
            "segments": [
                (s.rung, s.spent_before.steps, s.start.steps, s.end.steps, s.evaluations)
                for s in trial.segments
            ],
        }
        for trial in trials
    ]


def test_a_study_killed_again_and_again_is_the_unbroken_study(
    any_tuner, tmp_path, clock, make_fake_study, read_trials, killed
):
    calls = {"since": 0, "kill_after": None}

    def before_step(_):
        if calls["since"] == calls["kill_after"]:
            raise killed
        calls["since"] += 1

    plan = make_fake_study(any_tuner, clock, before_step=before_step)
    unbroken = run_study(plan, tmp_path / "unbroken", clock=clock)

    kills = 0
    while True:  # 7 and 11 steps at a time: inside segments, at their ends and between trials
        calls |= {"since": 0, "kill_after": (7, 11)[kills % 2]}
        try:
            study = run_study(plan, tmp_path / "killed", clock=clock, checkpoint_seconds=0)
            break
        except killed:
            kills += 1

    trials = [read_trials(tmp_path / name) for name in ("unbroken", "killed")]
    assert kills >= 6
    assert table(trials[1]) == table(trials[0])
    assert (study.ended, study.trials, study.spent.steps) == (
        unbroken.ended, unbroken.trials, unbroken.spent.steps
    )  # fmt: skip
    rows = [
        [row["validation/loss"] for path in sorted((tmp_path / name).rglob(records.EVAL_FILE))
         for row in records.read_evaluations(path)]
        for name in ("unbroken", "killed")
    ]  # fmt: skip
    assert rows[0] == rows[1]


def test_checkpoints_of_trials_that_nobody_resumed_are_gone_at_the_end(
    tmp_path, clock, make_fake_study, read_trials
):
    run_study(make_fake_study("asha", clock), tmp_path, clock=clock)

    assert "paused" in {trial.status for trial in read_trials(tmp_path)}
    assert not [*tmp_path.rglob("*.msgpack"), *tmp_path.rglob("progress.json")]
