"""Studies whose trials train together: the same trials, at the same costs, in the same order."""

import pytest

from metaopt.bench import records
from metaopt.bench.targets import Target
from metaopt.bench.tuner import Ahead
from metaopt.workloads.registry import get_workload
from tuning.campaign import Limits
from tuning.contenders import parse_contender
from tuning.study import StudyPlan, run_study

ROUNDING = 1e-5
WORKLOAD = get_workload("breast_cancer_logistic")
# Of a study: three trials of 27 and a little, evaluated at every third of one.
LIMITS = Limits("gradient_evaluations", 100, 27, 9)


def run(contender, folder, *, together, target=-1.0, limits=LIMITS):
    plan = StudyPlan(
        campaign="test",
        campaign_seed=1,
        contender=parse_contender(contender),
        workload=WORKLOAD,
        study=1,
        limits=limits,
        target=Target("validation/loss", target, "lower"),
        test_target=None,
        together=together,
    )
    study = run_study(plan, folder)
    paths = sorted(folder.rglob("run.json"), key=lambda path: int(path.parent.name.split("_")[1]))
    return study, [records.read_trial(path) for path in paths]


def facts(trial):
    """Return what must not depend on how a trial was trained."""
    reached = trial.reached and (trial.reached.evaluation, trial.reached.cost.steps)
    segments = [(s.rung, s.spent_before.steps, s.end.steps) for s in trial.segments]
    return (
        trial.trial, trial.hyperparameters, trial.seeds, trial.status, trial.ledger.cost.steps,
        trial.spent_before.steps, reached, segments,
    )  # fmt: skip


@pytest.mark.parametrize(
    "contender, most",
    [
        ("adamw+random", 3),
        ("adamw+halton", 3),
        ("adamw@paper+grid", 3),
        ("adamw+none", 3),
        ("adamw+hyperband", 27),
        ("adamw+tpe", 1),
        ("adamw+asha", 1),
        ("adamw+median", 1),
        ("dog+none", 1),
    ],
)
def test_a_study_has_the_trials_that_it_has_one_after_another(tmp_path, contender, most):
    study, trials = run(contender, tmp_path / "together", together=True)

    alone, others = run(contender, tmp_path / "alone", together=False)
    assert [facts(trial) for trial in trials] == [facts(trial) for trial in others]
    assert [t.best for t in trials] == pytest.approx([t.best for t in others], rel=ROUNDING)
    assert (study.ended, study.trials, study.spent.steps) == (
        alone.ended, alone.trials, alone.spent.steps,
    )  # fmt: skip
    assert max(trial.trained_together for trial in trials) == most
    assert {trial.trained_together for trial in others} == {1}


def test_trials_that_meet_their_target_buy_others_which_the_last_of_them_is_cut_for(tmp_path):
    study, trials = run("adamw+random", tmp_path / "together", together=True, target=0.3)

    _, others = run("adamw+random", tmp_path / "alone", together=False, target=0.3)
    assert [facts(trial) for trial in trials] == [facts(trial) for trial in others]
    statuses = [trial.status for trial in trials]
    assert "target" in statuses
    assert statuses[-1] in ("study_budget", "target")
    assert study.spent.steps == 100


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_study_that_was_killed_between_records_comes_to_the_same_ones(tmp_path, kept):
    _, whole = run("adamw+random", tmp_path / "whole", together=True)
    for trial in whole[:kept]:
        folder = records.trial_directory(
            tmp_path / "again", trial.contender, 1, trial.workload, trial.trial
        )
        records.write_json(folder / records.RUN_FILE, trial)

    _, again = run("adamw+random", tmp_path / "again", together=True)

    assert [facts(trial) for trial in again] == [facts(trial) for trial in whole]
    assert [trial.best for trial in again] == [trial.best for trial in whole]


def test_ten_trials_that_fail_for_nothing_end_a_study_after_ten(tmp_path, monkeypatch):
    module = parse_contender("adamw+random").submission.module

    def fail(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(module, "init_optimizer_state", fail)

    study, trials = run(
        "adamw+random", tmp_path, together=True,
        limits=Limits("gradient_evaluations", 1000, 10, 10),
    )  # fmt: skip

    assert (study.ended, study.trials, len(trials)) == ("failures", 10, 10)


@pytest.mark.parametrize(
    "contender",
    ["random", "halton", "qmc", "none", "hyperband", "grid", "stagewise", "tpe"],
)
def test_tuners_that_are_asked_ahead_propose_what_they_would_have(contender):
    space = "@paper" if contender in ("grid", "stagewise") else ""
    makers = [parse_contender(f"hgd{space}+{contender}") for _ in range(2)]
    ahead, one_by_one = (maker.make_tuner(3) for maker in makers)
    assert isinstance(ahead, Ahead)

    proposals, told = [], 0
    while len(proposals) < 26:
        proposals.append(ahead.ask())
        while ahead.ready() < 1 and told < len(proposals):
            tell(ahead, told)
            told += 1

    expected = []
    for index in range(26):
        expected.append(one_by_one.ask())
        tell(one_by_one, index)
    assert proposals == expected


def tell(tuner, index):
    from metaopt.bench.tuner import Observer, Outcome

    value = 1.0 + ((7 * index) % 11) / 11
    if isinstance(tuner, Observer):
        tuner.observe(Outcome(index + 1, "paused", value, ()))
    else:
        tuner.tell(value)
