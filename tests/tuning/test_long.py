"""The tuner ``long``: the defaults in one trial of the whole budget, the schedule stretched."""

import dataclasses

import pytest

from analysis.checks.fairness import early_ends, equality_of_budgets, find_failures
from analysis.checks.validation import problem_sentences
from analysis.logs.audits import read_audits
from analysis.logs.reader import read_logs
from analysis.report.tables.campaign_tables import target_table
from analysis.scoring.costs import costs_by_pair
from metaopt.bench import records
from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.measure.targets import Target
from metaopt.workloads.registry import get_workload
from tuning.campaign import make_campaign
from tuning.contenders import make_variant, parse_contender
from tuning.estimate import probe
from tuning.executor import check_budgets, run_campaign
from tuning.studies import StudyKey
from tuning.study import StudyPlan, run_study

WORKLOAD = get_workload("breast_cancer_logistic")
OUT_OF_REACH = Target("validation/loss", -1.0, "lower")


def make_study(contender="adamw+long", currency="gradient_evaluations", study=130.0, **changes):
    """A study of 130 gradient evaluations, with trials of 40."""
    limits = records.BudgetRecord(currency=currency, study=study, trial=40, eval_period=10)
    plan = {
        "campaign": "test",
        "campaign_seed": 1,
        "contender": parse_contender(contender) if isinstance(contender, str) else contender,
        "workload": WORKLOAD,
        "study": 1,
        "limits": limits,
        "target": OUT_OF_REACH,
        "test_target": None,
    }
    return StudyPlan(**{**plan, **changes})


def trial_in(folder):
    (path,) = folder.rglob(records.RUN_FILE)
    return records.read_trial(path)


def losses_in(folder):
    (path,) = folder.rglob(records.EVAL_FILE)
    return [row["train/loss"] for row in records.read_evaluations(path)]


def test_a_long_trial_is_a_trial_of_a_workload_with_a_longer_step_hint(tmp_path):
    # AdamW's rate falls to zero over the step hint: another hint is another run.
    longer = dataclasses.replace(WORKLOAD, step_hint=130)
    plan = make_study("adamw+none", workload=longer)
    one_trial = plan.limits.model_copy(update={"trial": 130.0})

    study = run_study(make_study(), tmp_path / "long")
    run_study(dataclasses.replace(plan, limits=one_trial), tmp_path / "none")

    trial = trial_in(tmp_path / "long")
    assert losses_in(tmp_path / "long") == losses_in(tmp_path / "none")
    assert (study.ended, study.trials, study.spent.steps) == ("budget", 1, 130)
    assert trial.hyperparameters == plan.contender.submission.defaults
    assert (trial.budget.trial, trial.status) == (130, "trial_budget")
    assert (trial.step_hint, trial.stretched_step_hint) == (WORKLOAD.step_hint, 130)
    assert trial.tuner == {"name": "long"} and trial.search_space is None


def test_a_budget_in_seconds_stretches_the_step_hint_as_the_time_is(tmp_path):
    share = 0.3 / WORKLOAD.max_allowed_runtime_sec

    run_study(make_study(currency="seconds", study=0.3), tmp_path)

    assert trial_in(tmp_path).stretched_step_hint == max(1, round(share * WORKLOAD.step_hint))


def test_a_study_ends_at_its_target_or_its_failure_and_spends_no_more(tmp_path, monkeypatch):
    easy = Target("validation/loss", 0.6, "lower")
    wild = make_variant("wild", "sgd+long", {"learning_rate": 1e38})
    done = make_study("momentum+long")

    def complete(**_):
        raise TrainingCompleteError

    monkeypatch.setattr(done.contender.submission.module, "update_params", complete)
    plans = {"hit": make_study(target=easy), "failed": make_study(wild), "done": done}
    studies = {name: run_study(plan, tmp_path / name) for name, plan in plans.items()}

    assert {name: study.ended for name, study in studies.items()} == {
        "hit": "target", "failed": "trial_failed", "done": "completed",
    }  # fmt: skip
    assert {name: trial_in(tmp_path / name).status for name in studies} == {
        "hit": "target", "failed": "diverged", "done": "completed",
    }  # fmt: skip
    assert all(study.trials == 1 and study.spent.steps < 100 for study in studies.values())
    check_budgets([*studies.values()])  # leaves them out


def test_a_study_that_was_killed_after_its_trial_ends_for_the_same_reason(tmp_path):
    plan = make_study(target=Target("validation/loss", 0.6, "lower"))
    before = run_study(plan, tmp_path)
    (path,) = tmp_path.rglob(records.STUDY_FILE)
    path.unlink()

    after = run_study(plan, tmp_path)

    assert (after.ended, after.trials, after.spent.steps) == ("target", 1, before.spent.steps)


def test_an_audit_replays_a_long_trial_with_the_step_hint_that_it_saw(tmp_path):
    run_study(make_study(audited=True), tmp_path)

    (audit,) = read_audits(tmp_path)
    assert not audit.failed
    assert {window.kind for window in audit.windows} > {"start"}
    assert all(window.counted == pytest.approx(window.charged) for window in audit.windows)


@pytest.fixture(scope="module")
def campaign():
    return make_campaign(
        {
            "name": "longs", "budget": "130grads", "trial_budget": "40grads",
            "eval_period": "10grads", "workloads": ["breast_cancer_logistic"], "studies": 2,
            "contenders": ["adamw+long", "adamw+none", "metaopt", "wild"],
            "variants": {"wild": {"of": "sgd+long", "hyperparameters": {"learning_rate": 1e38}}},
            "targets": {"breast_cancer_logistic": {
                "metric": "validation/loss", "value": 0.5, "better": "lower"}},
        },
        "test",
    )  # fmt: skip


def test_a_campaign_names_long_studies_and_compares_the_others(campaign, tmp_path):
    studies = run_campaign(campaign, tmp_path)
    logs = read_logs(tmp_path)

    ended = {study.contender: study.ended for study in studies}
    assert ended == {
        "adamw+long": "target", "adamw+none": "budget", "metaopt": "budget",
        "wild": "trial_failed",
    }  # fmt: skip
    assert [line.partition(" in ")[0] for line in early_ends(logs)] == [
        "adamw+long: its one trial met the target", "wild: its one trial failed",
    ]  # fmt: skip
    assert equality_of_budgets(logs) == "Spent budgets are equal to within one evaluation period"
    for rule in ("budgets-spent", "budgets-ledger", "budgets-trials", "pairing-terms"):
        assert problem_sentences(rule, logs) == []
    assert [failures.contender for failures in find_failures(logs)] == ["wild"]
    ((_, _, _, study, trial, *_),) = target_table(logs).rows
    assert (study, trial) == (130, 40)  # the trials of tuned contenders
    cells = costs_by_pair(logs, "gradient_evaluations")
    missed = cells["wild", "breast_cancer_logistic"]
    assert (missed.reached, missed.given_budget, missed.including_budget) == (0, 130, 130)
    met = cells["adamw+long", "breast_cancer_logistic"]
    assert met.given == met.including and met.reached == 2


def test_the_estimate_of_a_long_study_is_one_trial_of_the_whole_budget(campaign):
    estimate = probe(campaign, StudyKey("adamw+long", "breast_cancer_logistic", 1))

    assert (estimate.trials, estimate.budget.amount, estimate.evaluations) == ("1", 130, 13)


def test_a_self_tuning_submission_takes_no_long_tuner():
    with pytest.raises(ValueError, match="no tuner but 'none'"):
        parse_contender("dog+long")
