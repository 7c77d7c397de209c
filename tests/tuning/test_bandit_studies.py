"""Studies with bandits, a stopping rule and failures: what runs and what it costs."""

import os
from fractions import Fraction

import pytest

from analysis.logs.reader import read_logs
from analysis.report.tables.campaign_tables import status_table
from metaopt.bench import records
from metaopt.bench.contract.tuner import Proposal
from metaopt.bench.measure.targets import Target
from metaopt.bench.records.outcomes import FAILURE_VALUE
from tuning.study import run_study

# By hand: how near to 1 a trial's rate is decides its rank, for after n steps the loss is
# (1 - rate)^(2 n) / 2. Turns as (trial, its cost before, its cost after): rungs at 1, 3, 9 and 27.
RATES = [0.1, 0.9, 0.5, 0.8, 0.2, 0.7, 0.3, 0.95, 0.4, 0.96]
ASHA = [
    (1, 0, 1), (2, 0, 1), (3, 0, 1), (2, 1, 3), (4, 0, 1), (5, 0, 1), (6, 0, 1), (4, 1, 3),
    (7, 0, 1), (8, 0, 1), (8, 1, 3), (8, 3, 9), (9, 0, 1), (10, 0, 1), (10, 1, 3), (10, 3, 9),
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is not on the disk yet matters to a power cut only, and waiting for it takes long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Listed:
    """Points one after another, in place of random draws."""

    def __init__(self, rates):
        self.rates = iter(rates)

    def ask(self):
        return {"rate": next(self.rates), "decay": 0.0, "kind": "plain"}

    def tell(self, value):
        pass

    def describe(self):
        return {"name": "listed"}


def draw_from(monkeypatch, rates, module="bandits"):
    monkeypatch.setattr(f"tuning.tuners.{module}.make_random", lambda *_: Listed(rates))


def turns_of(trials):
    """Return every turn as (trial, its cost before, its cost after), in the study's order."""
    turns = [
        (segment.spent_before.steps, trial.trial, segment.start.steps, segment.end.steps)
        for trial in trials
        for segment in trial.segments
    ]
    return [turn[1:] for turn in sorted(turns)]


def test_asha_runs_pauses_and_promotes_as_in_a_table_made_by_hand(
    tmp_path, clock, make_fake_study, read_trials, monkeypatch
):
    draw_from(monkeypatch, RATES)
    total = sum(after - before for _, before, after in ASHA)

    plan = make_fake_study(
        "asha",
        clock,
        limits=records.BudgetRecord(currency="steps", study=total, trial=27, eval_period=5),
    )
    study = run_study(plan, tmp_path, clock=clock)

    trials = read_trials(tmp_path)
    assert turns_of(trials) == ASHA
    assert study.spent.steps == sum(trial.ledger.cost.steps for trial in trials) == total == 30
    assert [trial.status for trial in trials] == ["paused"] * 9 + ["study_budget"]
    assert [trial.hyperparameters["rate"] for trial in trials] == RATES


def test_a_hit_of_a_promoted_trial_counts_what_the_study_had_spent_by_then(
    tmp_path, clock, make_fake_study, read_trials, monkeypatch
):
    # Trial 8 meets its target at its fifth step, its second behind the rung at 3. Before that turn
    # the study had spent 3 + 2 + 3 + 2 + 2 + 2 = 14 steps.
    draw_from(monkeypatch, RATES)
    target = Target("validation/loss", 0.6 * 0.05 ** (2 * 5), "lower")  # of (1 - 0.95)^(2 n) / 2

    plan = make_fake_study(
        "asha",
        clock,
        target=target,
        limits=records.BudgetRecord(currency="steps", study=17, trial=27, eval_period=1),
    )
    run_study(plan, tmp_path, clock=clock)

    trial = read_trials(tmp_path)[7]
    assert (trial.status, trial.reached.cost.steps) == ("target", 5)
    assert trial.spent_at(trial.reached.cost).steps == 14 + 2
    assert trial.spent_before.steps == 11


def test_hyperband_starts_over_with_new_points_when_its_brackets_are_through(
    tmp_path, clock, make_fake_study, read_trials
):
    # By hand, each step counted once: 27 + 9 2 + 3 6 + 18, 12 3 + 4 6 + 18, 6 9 + 2 18, 4 27.
    whole = (27 + 18 + 18 + 18) + (36 + 24 + 18) + (54 + 36) + 108

    plan = make_fake_study(
        "hyperband",
        clock,
        limits=records.BudgetRecord(currency="steps", study=whole + 5, trial=27, eval_period=27),
    )
    study = run_study(plan, tmp_path, clock=clock)

    trials = read_trials(tmp_path)
    assert (study.ended, study.spent.steps) == ("budget", whole + 5)
    assert study.trials == 27 + 12 + 6 + 4 + 5
    assert [trial.ledger.cost.steps for trial in trials[-5:]] == [1] * 5
    assert len({trial.hyperparameters["rate"] for trial in trials}) == len(trials)


def test_the_median_rule_prunes_a_bad_trial_and_the_rest_buys_another(
    tmp_path, clock, make_fake_study, read_trials, monkeypatch
):
    draw_from(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.1, 0.01, 0.6, 0.6], "median")

    plan = make_fake_study(
        "median",
        clock,
        limits=records.BudgetRecord(currency="steps", study=6 * 27, trial=27, eval_period=3),
    )
    study = run_study(plan, tmp_path, clock=clock)

    trials = read_trials(tmp_path)
    # The first five run to their ends; the sixth is stopped at its first evaluation.
    assert [(trial.status, trial.ledger.cost.steps) for trial in trials] == [
        *[("trial_budget", 27)] * 5, ("pruned", 3), ("study_budget", 24)
    ]  # fmt: skip
    assert study.ended == "budget"


class Told:
    """A tuner as a package may bring it: points, shares of the budget, and values."""

    def __init__(self, answers):
        self.answers, self.told = list(answers), []

    def ask(self):
        return self.answers.pop(0) if self.answers else None

    def tell(self, value):
        self.told.append(value)

    def describe(self):
        return {"name": "told"}


def run_with(tuner, plan, folder, monkeypatch, clock):
    monkeypatch.setattr(type(plan.contender), "make_tuner", lambda *_: tuner)
    return run_study(plan, folder, clock=clock)


def point(rate):
    return {"rate": rate, "decay": 0.0, "kind": "plain"}


def test_a_tuner_that_only_asks_and_tells_may_pause_trials_too(
    tmp_path, clock, make_fake_study, read_trials, monkeypatch
):
    answers = [
        Proposal(point(0.5), budget=Fraction(1, 3)), point(0.1), Proposal(resume=1)
    ]  # fmt: skip
    tuner = Told(answers)

    study = run_with(tuner, make_fake_study("none", clock), tmp_path, monkeypatch, clock)

    assert study.ended == "grid_exhausted"
    assert [trial.ledger.cost.steps for trial in read_trials(tmp_path)] == [27, 27]
    losses = 0.5 * 0.5 ** (2 * 9), 0.5 * 0.9 ** (2 * 27), 0.5 * 0.5 ** (2 * 27)
    target = make_fake_study("none", clock).target
    assert tuner.told == pytest.approx([1 + target.distance(loss) for loss in losses])
    replayed = Told(answers)
    (tmp_path / "fake+none" / "study_1" / "quadratic_jax" / records.STUDY_FILE).unlink()
    run_with(replayed, make_fake_study("none", clock), tmp_path, monkeypatch, clock)
    assert replayed.told == tuner.told


def test_a_trial_that_diverges_costs_what_it_spent_and_is_told_as_a_finite_value(
    tmp_path, clock, make_fake_study, read_trials, monkeypatch
):
    tuner = Told([point(1e20), point(0.5)])  # 1e20 squared is no 32-bit float

    study = run_with(tuner, make_fake_study("none", clock), tmp_path, monkeypatch, clock)

    diverged, good = read_trials(tmp_path)
    assert (diverged.status, diverged.ledger.cost.steps) == ("diverged", 5)  # one period
    assert (good.status, good.ledger.cost.steps) == ("trial_budget", 27)
    assert study.spent.steps == 5 + 27
    assert tuner.told == [FAILURE_VALUE, pytest.approx(1.0, abs=1)]
    assert diverged.best is None and diverged.reached is None
    shown = status_table(read_logs(tmp_path))  # in the report
    assert shown.header == ("contender", "trial budget", "diverged")
    assert shown.rows == (("fake+none", 1, 1),)


def test_a_rung_with_a_diverging_trial_promotes_another(
    tmp_path, clock, make_fake_study, read_trials, monkeypatch
):
    draw_from(monkeypatch, [1e20, 0.9, 0.5])

    plan = make_fake_study(
        "asha",
        clock,
        limits=records.BudgetRecord(currency="steps", study=5, trial=27, eval_period=1),
    )
    run_study(plan, tmp_path, clock=clock)

    statuses = [trial.status for trial in read_trials(tmp_path)]
    assert statuses == ["diverged", "study_budget", "paused"]
    assert turns_of(read_trials(tmp_path))[-1] == (2, 1, 3)


def test_trials_of_another_schedule_are_refused(
    tmp_path, clock, make_fake_study, read_trials, monkeypatch
):
    run_with(Told([point(0.5)]), make_fake_study("none", clock), tmp_path, monkeypatch, clock)
    (tmp_path / "fake+none" / "study_1" / "quadratic_jax" / records.STUDY_FILE).unlink()

    with pytest.raises(ValueError, match="holds another trial than this campaign leads to"):
        run_with(
            Told([Proposal(point(0.5), budget=Fraction(1, 3))]), make_fake_study("none", clock),
            tmp_path, monkeypatch, clock,
        )  # fmt: skip
