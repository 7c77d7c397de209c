"""The tuner's own seconds are spent like any others, and stay what they were in a resumed study."""

import pytest

from analysis.checks import read_for_checks, validate
from metaopt.bench import records
from metaopt.bench.contract.tuner import Observer
from tuning.contenders import Contender
from tuning.executor import check_budgets
from tuning.study import run_study

LIMITS = records.BudgetRecord(
    currency="seconds", study=70, trial=27, eval_period=5
)  # a step takes 0.75, so a trial 36 of them


class Slow:
    """A tuner whose decisions take time on the clock: 2 seconds to ask, 1 to tell."""

    def __init__(self, tuner, clock, ask=2.0, tell=1.0):
        self.tuner, self.clock, self.seconds = tuner, clock, {"ask": ask, "tell": tell}

    def ask(self):
        self.clock.advance(self.seconds["ask"])
        return self.tuner.ask()

    def describe(self):
        return self.tuner.describe()

    def tell(self, value):
        self.clock.advance(self.seconds["tell"])
        self.tuner.tell(value)


class SlowObserver(Slow):
    """The same for tuners that see outcomes."""

    tell = None

    def observe(self, outcome):
        self.clock.advance(self.seconds["tell"])
        self.tuner.observe(outcome)


@pytest.fixture
def slow_down(monkeypatch):
    """Makes tuners slow."""
    make_tuner = Contender.make_tuner

    def slow_down(clock, **seconds):
        def make(contender, seed):
            tuner = make_tuner(contender, seed)
            kind = SlowObserver if isinstance(tuner, Observer) else Slow
            return kind(tuner, clock, **seconds)

        monkeypatch.setattr(Contender, "make_tuner", make)

    return slow_down


def test_decisions_are_charged_by_hand(tmp_path, clock, make_fake_study, read_trials, slow_down):
    plan = make_fake_study("random", clock, limits=LIMITS)
    slow_down(clock)

    study = run_study(plan, tmp_path, clock=clock)

    trials = read_trials(tmp_path)
    assert [trial.spent_before.seconds for trial in trials] == [2, 2 + 27 + 3, 32 + 27 + 3]
    assert [trial.ledger.tuner_seconds for trial in trials] == [2, 3, 3]
    assert [trial.ledger.cost.seconds for trial in trials] == [27, 27, 8.25]  # 8 are left
    assert [trial.status for trial in trials] == ["trial_budget"] * 2 + ["study_budget"]
    assert study.tuner_seconds == 2 + 3 + 3 + 1
    assert study.spent.seconds == 27 + 27 + 8.25 + 9
    check_budgets([study])


def test_a_decision_may_be_the_last_that_the_budget_pays_for(
    tmp_path, clock, make_fake_study, read_trials, slow_down
):
    plan = make_fake_study(
        "random",
        clock,
        limits=records.BudgetRecord(currency="seconds", study=60, trial=27, eval_period=1),
    )
    slow_down(clock)

    study = run_study(plan, tmp_path, clock=clock)

    assert (study.ended, study.trials, len(read_trials(tmp_path))) == ("budget", 2, 2)
    assert study.spent.seconds == 2 + 27 + 3 + 27 + 3  # over it within the dearest decision
    check_budgets([study])


@pytest.mark.parametrize("currency", ["steps", "seconds"])
def test_every_tuners_ledger_adds_up(
    any_tuner, currency, tmp_path, clock, make_fake_study, read_trials, slow_down
):
    plan = make_fake_study(
        any_tuner,
        clock,
        limits=records.BudgetRecord(currency=currency, study=60, trial=27, eval_period=5),
    )
    slow_down(clock)

    study = run_study(plan, tmp_path, clock=clock)

    trials = read_trials(tmp_path)
    training = sum(trial.ledger.cost.seconds for trial in trials)
    assert study.tuner_seconds > 0
    assert study.spent.seconds == training + study.tuner_seconds
    check_budgets([study])
    found = {finding.rule for finding in validate(read_for_checks(tmp_path))}
    assert not found & {"budgets-ledger", "budgets-spent"}


@pytest.mark.parametrize("tuner", ["random", "asha"])
def test_a_turn_that_was_begun_keeps_its_decision(
    tuner, tmp_path, clock, make_fake_study, read_trials, slow_down, killed
):
    steps = {"left": 0}

    def before_step(_):
        if steps["left"] == 0:
            raise killed
        steps["left"] -= 1

    plan = make_fake_study(tuner, clock, before_step=before_step, limits=LIMITS)
    lives = 0
    while True:
        lives += 1
        steps["left"] = 8  # one more than an evaluation period
        # Each life decides more slowly. Where what was decided before were charged by this life's
        # clock, trials that are there would no longer fit, and the one at work be another.
        slow_down(clock, ask=2 + lives / 16, tell=0.0)
        try:
            study = run_study(plan, tmp_path, clock=clock, checkpoint_seconds=0)
            break
        except killed:
            continue

    trials = read_trials(tmp_path)
    segments = sorted(
        (segment.spent_before.seconds, segment.tuner_seconds, segment.cost.seconds)
        for trial in trials
        for segment in trial.segments
    )
    assert lives > 3
    total = 0.0
    for before, deciding, cost in segments:
        assert before == total + deciding
        total = before + cost
    decided = sum(deciding for _, deciding, _ in segments)
    assert study.spent.seconds == total + study.tuner_seconds - decided
    check_budgets([study])


def test_a_study_that_is_decided_again_has_the_trials_that_it_had(
    tmp_path, clock, make_fake_study, read_trials, slow_down
):
    plan = make_fake_study("random", clock, limits=LIMITS)
    slow_down(clock)
    run_study(plan, tmp_path, clock=clock)
    trials = read_trials(tmp_path)
    next(tmp_path.rglob(records.STUDY_FILE)).unlink()
    slow_down(clock, ask=20.0)  # by this clock the third would come too late

    study = run_study(plan, tmp_path, clock=clock)

    assert read_trials(tmp_path) == trials
    assert (study.trials, study.tuner_seconds) == (3, 2 + 3 + 3 + 1)
