"""Studies: equal budgets whatever the tuner does, pairing, and resuming."""

import functools
import json

import jax
import numpy as np
import pytest

from analysis.checks.validation import validate
from analysis.logs.reader import read_logs
from metaopt.bench import records
from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.measure.targets import Target
from metaopt.workloads.registry import get_workload
from tuning.contenders import make_variant, parse_contender
from tuning.study import StudyPlan, run_study

WORKLOAD = get_workload("breast_cancer_logistic")
PERIOD = 10
OUT_OF_REACH = Target("validation/loss", -1.0, "lower")


def make_study(contender="adamw+random", **changes):
    plan = {
        "campaign": "test",
        "campaign_seed": 1,
        "contender": parse_contender(contender) if isinstance(contender, str) else contender,
        "workload": WORKLOAD,
        "study": 1,
        "limits": records.BudgetRecord(
            currency="gradient_evaluations", study=130, trial=40, eval_period=PERIOD
        ),
        "target": OUT_OF_REACH,
        "test_target": None,
    }
    return StudyPlan(**{**plan, **changes})


def trials_of(folder):
    paths = sorted(folder.rglob("run.json"), key=lambda path: int(path.parent.name.split("_")[1]))
    return [records.read_trial(path) for path in paths]


@pytest.mark.parametrize("currency", ["gradient_evaluations", "steps"])
@pytest.mark.parametrize("tuner", ["random", "tpe", "none", "grid"])
def test_every_tuner_spends_the_whole_budget_and_no_more(tmp_path, tuner, currency):
    contender = f"adamw{'@paper' if tuner == 'grid' else ''}+{tuner}"
    plan = make_study(
        contender,
        limits=records.BudgetRecord(currency=currency, study=130, trial=40, eval_period=PERIOD),
    )

    study = run_study(plan, tmp_path)

    assert study.ended == "budget"
    assert study.spent.amount(currency) == 130
    assert [t.status for t in trials_of(tmp_path)] == ["trial_budget"] * 3 + ["study_budget"]
    assert [t.spent_before.steps for t in trials_of(tmp_path)] == [0, 40, 80, 120]


def test_a_budget_in_seconds_ends_within_one_evaluation_period(tmp_path):
    run_study(make_study(), tmp_path / "warm")  # compiles
    plan = make_study(
        limits=records.BudgetRecord(currency="seconds", study=0.5, trial=0.2, eval_period=0.1)
    )

    study = run_study(plan, tmp_path)

    assert study.ended == "budget"
    assert 0.5 <= study.spent.seconds < 0.5 + 0.1


def test_trials_that_meet_the_target_buy_more_trials(tmp_path):
    easy = Target("validation/loss", 10.0, "lower")

    study = run_study(make_study(target=easy), tmp_path)

    assert study.trials == 13
    assert study.spent.steps == 130
    assert all(trial.status == "target" for trial in trials_of(tmp_path))


def test_a_grid_that_is_exhausted_ends_the_study_and_says_so(tmp_path):
    limits = records.BudgetRecord(
        currency="gradient_evaluations", study=1000, trial=10, eval_period=PERIOD
    )

    study = run_study(make_study("sgd@paper+grid", limits=limits), tmp_path)

    assert (study.ended, study.trials, study.spent.steps) == ("grid_exhausted", 24, 240)


def test_contenders_are_paired_by_seed_and_start_from_the_same_loss(tmp_path):
    for contender in ("adamw+random", "momentum+tpe"):
        run_study(make_study(contender), tmp_path / contender)

    one, two = (trials_of(tmp_path / c) for c in ("adamw+random", "momentum+tpe"))
    assert [t.seeds for t in one] == [t.seeds for t in two]
    assert len({t.seeds.trial for t in one}) == len(one)


def test_a_self_tuning_contender_starts_where_the_others_start_and_sees_what_they_see(
    tmp_path, monkeypatch
):
    seen = {}
    for name in ("adamw+random", "metaopt"):
        plan = make_study(name)
        module, first = plan.contender.submission.module, []
        update_params = module.update_params

        @functools.wraps(update_params)
        def watching(*, batch, current_param_container, update=update_params, first=first, **rest):
            first.append(jax.device_get((batch, current_param_container)))
            return update(batch=batch, current_param_container=current_param_container, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(module, "update_params", watching)
            run_study(plan, tmp_path / name)
        seen[name] = first[0]

    jax.tree.map(np.testing.assert_array_equal, seen["adamw+random"], seen["metaopt"])


def test_a_self_tuning_run_that_meets_its_target_is_followed_by_another(tmp_path):
    easy = Target("validation/loss", 0.5, "lower")

    study = run_study(make_study("metaopt", target=easy), tmp_path)

    trials = trials_of(tmp_path)
    assert study.ended == "budget"
    assert study.spent.gradient_evaluations == 130
    assert study.trials == len(trials) > 1
    assert len({trial.seeds.trial for trial in trials}) == len(trials)
    assert trials[0].status == "target"
    assert trials[-1].status in ("target", "study_budget")


def test_a_first_hit_beyond_the_budget_is_none_and_breaks_no_rule(tmp_path, clock, make_fake_study):
    # A step costs 1.25: the first evaluation is after 8 steps.
    limits = records.BudgetRecord(currency="gradient_evaluations", study=9, trial=9, eval_period=9)
    plan = make_fake_study(
        "random", clock, limits=limits, target=Target("validation/loss", 1e9, "lower")
    )

    run_study(plan, tmp_path / "logs", clock=clock)

    (trial,) = trials_of(tmp_path)
    assert (trial.ledger.cost.gradient_evaluations, trial.reached) == (10, None)
    found = {finding.rule for finding in validate(read_logs(tmp_path))}
    assert "targets-reached" not in found


def test_trials_that_cost_nothing_end_a_study(tmp_path, monkeypatch):
    plan = make_study("sgd+random")

    def complete(**_):
        raise TrainingCompleteError

    monkeypatch.setattr(plan.contender.submission.module, "update_params", complete)

    record = run_study(plan, tmp_path)

    assert record.ended == "failures"
    assert record.trials == 10


def test_trials_with_steps_that_cost_nothing_end_a_study(tmp_path, monkeypatch):
    plan = make_study("sgd+random")
    module = plan.contender.submission.module

    def step(*, global_step, optimizer_state, current_param_container, model_state, **_):
        if global_step == 2:
            raise TrainingCompleteError
        return optimizer_state, current_param_container, model_state

    monkeypatch.setattr(module, "update_params", step)
    monkeypatch.setattr(module, "data_selection", lambda *_, **__: {})  # draws no batch
    monkeypatch.setattr(
        module, "report",
        lambda state: {"gradient_evaluations": 0.0, "episode": 0, "phase": "training"},
        raising=False,
    )  # fmt: skip

    record = run_study(plan, tmp_path)

    assert record.ended == "failures"
    assert record.trials == 10
    assert record.spent.steps == 20


def test_all_studies_have_the_same_fixed_batch_and_other_starts(tmp_path):
    workload = get_workload("breast_cancer_logistic_fixed")
    limits = records.BudgetRecord(currency="gradient_evaluations", study=4, trial=2, eval_period=1)
    for study in (1, 2):
        run_study(make_study(workload=workload, limits=limits, study=study), tmp_path)

    seeds = [trial.seeds for trial in trials_of(tmp_path)]
    assert {each.fixed_batch for each in seeds} == {workload.batch_seed}
    assert len({each.trial for each in seeds}) == 4


def test_a_diverging_trial_costs_what_it_spent_and_the_study_goes_on(tmp_path, monkeypatch):
    plan = make_study("sgd+none")
    monkeypatch.setitem(plan.contender.submission.module.DEFAULTS, "learning_rate", 1e38)

    study = run_study(plan, tmp_path)

    trials = trials_of(tmp_path)
    assert {t.status for t in trials} <= {"diverged", "study_budget"}
    assert study.spent.steps == sum(t.ledger.cost.steps for t in trials) == 130


def test_a_submission_that_fails_for_nothing_does_not_run_for_ever(tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "tuning_search_space.json").write_text('{"a": {"feasible_points": [1.0]}}')
    (folder / "submission.py").write_text(
        '"""Fails."""\n'
        "def fail(*args, **kwargs):\n    raise RuntimeError('no')\n"
        "get_batch_size = lambda name: 1\n"
        "init_optimizer_state = update_params = data_selection = fail\n"
    )

    study = run_study(make_study(f"{folder}+random"), tmp_path / "logs")

    assert study.ended == "failures"
    assert all(trial.status == "crashed" for trial in trials_of(tmp_path))


def test_a_study_resumed_at_any_trial_is_the_unbroken_study(tmp_path):
    plan = make_study(
        "adamw+tpe",
        limits=records.BudgetRecord(
            currency="gradient_evaluations", study=600, trial=30, eval_period=PERIOD
        ),
    )
    run_study(plan, tmp_path / "unbroken")
    unbroken = trials_of(tmp_path / "unbroken")

    for kept in (0, 1, 13, len(unbroken) - 1):
        folder = tmp_path / f"kept_{kept}"
        for trial in unbroken[:kept]:
            path = records.trial_directory(folder, trial.contender, 1, trial.workload, trial.trial)
            records.write_json(path / records.RUN_FILE, trial)
        run_study(plan, folder)
        resumed = trials_of(folder)
        assert [t.hyperparameters for t in resumed] == [t.hyperparameters for t in unbroken]
        assert [t.best for t in resumed] == [t.best for t in unbroken]


def test_records_of_another_plan_are_refused(tmp_path):
    run_study(make_study(), tmp_path)
    folder = records.study_directory(tmp_path, "adamw+random", 1, WORKLOAD.name)
    (folder / records.STUDY_FILE).unlink()

    with pytest.raises(ValueError, match="holds another trial"):
        run_study(make_study(campaign_seed=2), tmp_path)


def test_a_record_that_was_tampered_with_names_the_key(tmp_path):
    run_study(make_study(), tmp_path)
    path = next(tmp_path.rglob("run.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "study": "first"}))

    with pytest.raises(ValueError, match=r"run.json: study: .*integer"):
        records.read_trial(path)


def test_a_variant_is_its_contender_with_something_fixed_over_what_is_proposed(tmp_path):
    variant = make_variant("decayed", "adamw+random", {"weight_decay": 0.125})
    for contender in (parse_contender("adamw+random"), variant):
        run_study(make_study(contender), tmp_path / contender.name)

    plain, fixed = (trials_of(tmp_path / name) for name in ("adamw+random", "decayed"))
    assert [t.contender for t in fixed] == ["decayed"] * 4
    assert [t.hyperparameters for t in fixed] == [
        {**t.hyperparameters, "weight_decay": 0.125} for t in plain
    ]


def test_a_variant_of_a_self_tuning_submission_gets_its_defaults_and_what_is_fixed(tmp_path):
    variant = make_variant("short", "metaopt", {"history": 4})

    run_study(make_study(variant), tmp_path)

    (trial,) = trials_of(tmp_path)
    assert trial.hyperparameters == {**variant.submission.defaults, "history": 4}


def test_a_self_tuning_submission_with_no_tuner_runs_again_and_again(tmp_path):
    run_study(make_study("dog+none"), tmp_path)

    trials = trials_of(tmp_path)
    assert [t.ledger.cost.steps for t in trials] == [40, 40, 40, 10]
    assert {t.hyperparameters for t in trials} == {None}
    assert len({t.seeds.trial for t in trials}) == 4


def test_training_on_past_the_target_records_where_it_was_met(tmp_path):
    easy = Target("validation/loss", 0.62, "lower")
    for stop in (True, False):
        plan = make_study("adamw+none", target=easy, stop_at_target=stop)
        run_study(plan, tmp_path / str(stop))

    stopped, trained_on = (trials_of(tmp_path / str(stop))[0] for stop in (True, False))
    assert stopped.status == "target"
    assert (trained_on.status, trained_on.ledger.cost.steps) == ("trial_budget", 40)
    assert stopped.reached.cost.steps == trained_on.reached.cost.steps < 40
    assert stopped.reached.evaluation == trained_on.reached.evaluation


@pytest.mark.parametrize("value", [1e39, -1e39, float("nan")])
def test_a_variant_with_a_number_beyond_32_bits_is_refused(value):
    with pytest.raises(ValueError, match=r"'learning_rate': values are finite 32-bit numbers"):
        make_variant("huge", "adamw+random", {"learning_rate": value})
