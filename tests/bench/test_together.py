"""Trials that train together: the records of trials that were run one after another."""

import dataclasses
import itertools
import json
import math
import threading
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.loading import load_submission
from metaopt.bench.progress import FILE as PROGRESS_FILE
from metaopt.bench.progress import mark_died
from metaopt.bench.records import Cost, Seeds
from metaopt.bench.runner import run_trial
from metaopt.bench.stacked import bytes_of_step, programs_for
from metaopt.bench.targets import Target
from metaopt.bench.together import run_together
from metaopt.workloads.embedded import load_digits
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.registry import get_workload
from metaopt.workloads.supervised import SupervisedWorkload
from tuning.contenders import SUBMISSIONS

ROUNDING = 1e-5
LOGISTIC = get_workload("breast_cancer_logistic")
RATES = (1e-3, 1e-2, 1e-1)


def adamw():
    return load_submission("adamw", SUBMISSIONS)


@pytest.fixture
def make_plans(make_plan):
    """A factory of the plans of a study's trials, one for each rate, 40 steps each."""

    def make(submission=None, workload=LOGISTIC, rates=RATES, **changes):
        submission = submission or adamw()
        plans = []
        for index, rate in enumerate(rates):
            plan = {
                "trial": index + 1,
                "seeds": Seeds(campaign=1, trial=7 + index, tuner=None, fixed_batch=None),
                "hyperparameters": {**submission.defaults, "learning_rate": rate},
                "study_budget": 1000.0,
                "trial_budget": 40.0,
                "allowance": 40.0,
            }
            plans.append(make_plan(submission, workload, **{**plan, **changes}))
        return plans

    return make


def folders(root, plans):
    return [root / f"trial_{plan.trial}" for plan in plans]


def train(plans, root, **options):
    """Run plans together; return their records."""
    found = []

    def spent():
        return sum((record.ledger.cost for record in found), Cost())

    for record in run_together(plans, folders(root, plans), spent=spent, **options):
        found.append(record)
    return found


def train_alone(plans, root):
    return [
        run_trial(plan, folder) for plan, folder in zip(plans, folders(root, plans), strict=True)
    ]


def rows_of(root, trial):
    return records.read_evaluations(root / f"trial_{trial}" / records.EVAL_FILE)


def assert_same_rows(one, other, tolerance):
    """Compare evaluations: losses to a tolerance, what was counted exactly."""
    assert [row.keys() for row in one] == [row.keys() for row in other]
    for row, same in zip(one, other, strict=True):
        for name, value in row.items():
            if name.endswith("/loss"):
                assert abs(value - same[name]) <= tolerance * max(1.0, abs(value)), name
            elif "time" not in name and "second" not in name and "/" not in name:
                assert value == same[name] or name in ("score", "total_duration"), name


def without_seconds(record):
    """Return what a record says beside of seconds, values of metrics and its time of day."""
    content = record.model_dump()
    for name in ("best", "started_at", "trained_together", "spent_before", "preemptions"):
        del content[name]
    for part in (content["ledger"]["cost"], *[(content["reached"] or {}).get("cost", {})]):
        part.pop("seconds", None)
    if content["reached"]:
        content["reached"]["episode_cost"].pop("seconds")
    content["ledger"] = {k: v for k, v in content["ledger"].items() if "seconds" not in k}
    return content


def test_records_are_those_of_trials_that_ran_one_after_another(tmp_path, make_plans):
    plans = make_plans()

    together = train(plans, tmp_path / "together")

    alone = train_alone(plans, tmp_path / "alone")
    assert [r.trained_together for r in together] == [3, 3, 3]
    assert [r.trained_together for r in alone] == [1, 1, 1]
    assert [*map(without_seconds, together)] == [*map(without_seconds, alone)]
    for trial in (1, 2, 3):
        pair = rows_of(tmp_path / "together", trial), rows_of(tmp_path / "alone", trial)
        assert_same_rows(*pair, tolerance=ROUNDING)
        names = [
            {path.name for path in (tmp_path / how / f"trial_{trial}").iterdir()}
            for how in ("together", "alone")
        ]
        assert names[0] == names[1]


def test_the_ledger_charges_a_trial_that_meets_its_target_up_to_there(tmp_path, make_plans):
    target = Target("validation/loss", 0.25, "lower")

    found = train(make_plans(target=target), tmp_path)

    alone = train_alone(make_plans(target=target), tmp_path / "alone")
    assert {"target", "trial_budget"} == {record.status for record in found}
    costs = [record.ledger.cost.steps for record in found]
    assert costs == [record.ledger.cost.steps for record in alone]
    assert min(costs) < max(costs) == 40
    assert [r.spent_before.steps for r in found] == [0, *itertools.accumulate(costs[:-1])]
    assert [r.reached and r.reached.cost.steps for r in found] == [
        r.reached and r.reached.cost.steps for r in alone
    ]


def test_a_trial_that_the_budget_is_not_enough_for_is_not_run(tmp_path, make_plans):
    found = train(make_plans(study_budget=100.0), tmp_path)

    assert [record.trial for record in found] == [1, 2]
    left = [path for path in (tmp_path / "trial_3").iterdir() if path.name != "hparams.json"]
    assert left == []


def test_a_diverging_trial_does_not_change_a_bit_of_the_others(tmp_path, make_plans):
    runs = {"tame": RATES, "wild": (1e-3, 1e38, 1e-1)}

    found = {name: train(make_plans(rates=rates), tmp_path / name) for name, rates in runs.items()}

    assert [record.status for record in found["wild"]] == [
        "trial_budget",
        "diverged",
        "trial_budget",
    ]
    assert found["wild"][1].ledger.cost.steps < 40
    for trial in (1, 3):
        pair = rows_of(tmp_path / "tame", trial), rows_of(tmp_path / "wild", trial)
        assert_same_rows(*pair, tolerance=0.0)


def test_numbers_do_not_depend_on_the_size_of_the_chunks(tmp_path, make_plans):
    plans = make_plans(rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1))
    size = bytes_of_one(plans[0])

    whole = train(plans, tmp_path / "whole")
    parts = train(plans, tmp_path / "parts", limit_bytes=3.5 * size)
    alone = train(plans, tmp_path / "alone", limit_bytes=1.9 * size)

    assert [record.trained_together for record in whole] == [5] * 5
    assert [record.trained_together for record in parts] == [3, 3, 3, 2, 2]
    assert [record.trained_together for record in alone] == [1] * 5
    for trial, other in itertools.product(range(1, 6), ("parts", "alone")):
        pair = rows_of(tmp_path / "whole", trial), rows_of(tmp_path / other, trial)
        assert_same_rows(*pair, tolerance=ROUNDING)


def bytes_of_one(plan):
    from metaopt.bench.together import _measure_trial

    return _measure_trial(plan, Path("unused"))


def test_points_are_arguments_so_the_second_chunk_compiles_nothing(tmp_path, make_plans):
    train(make_plans(), tmp_path / "first")

    found = train(make_plans(rates=(2e-3, 2e-2, 2e-1)), tmp_path / "second")

    assert [record.ledger.compilation_seconds for record in found] == [0.0] * 3


def test_the_first_trial_pays_for_what_is_compiled_and_given_tuned_leaves_it_out(
    tmp_path, make_plans
):
    workload = dataclasses.replace(LOGISTIC, name="compiled_for_this_test")
    monkey = pytest.MonkeyPatch()
    monkey.setitem(adamw().module.kit.BATCH_SIZES, workload.name, 64)
    target = Target("validation/loss", 1.0, "lower")  # met at the first evaluation

    first, *others = train(make_plans(workload=workload, target=target), tmp_path)
    monkey.undo()

    compiled = first.ledger.compilation_seconds
    assert compiled > 0
    assert [record.ledger.compilation_seconds for record in others] == [0.0, 0.0]
    share = first.ledger.cost.seconds - compiled
    assert others[0].ledger.cost.seconds == others[1].ledger.cost.seconds == pytest.approx(share)
    assert first.reached.episode_cost.seconds == pytest.approx(share)


def test_seconds_are_shared_equally(tmp_path, make_plans, clock, monkeypatch):
    train(make_plans(), tmp_path / "compiled")
    note = SupervisedWorkload.eval_models

    def slow(workload, *arguments):
        clock.advance(6.0)
        return note(workload, *arguments)

    monkeypatch.setattr(SupervisedWorkload, "eval_models", slow)

    found = train(make_plans(), tmp_path / "timed", clock=clock)

    assert [r.ledger.evaluation_seconds for r in found] == [4 * 6.0 / 3] * 3
    assert [r.ledger.cost.seconds for r in found] == [0.0] * 3


def test_a_chunk_that_was_killed_is_run_again_to_the_same_bits(
    tmp_path, make_plans, monkeypatch, killed
):
    plans = make_plans()
    train(plans, tmp_path / "unbroken")
    evaluate, calls = SupervisedWorkload.eval_models, []

    def dying(workload, *arguments):
        calls.append(0)
        if len(calls) == 3:
            raise killed
        return evaluate(workload, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedWorkload, "eval_models", dying)
        with pytest.raises(killed):
            train(plans, tmp_path / "broken")

    resumed = train(plans, tmp_path / "broken")

    assert [record.preemptions for record in resumed] == [1, 1, 1]
    for trial in (1, 2, 3):
        rows = rows_of(tmp_path / "broken", trial)
        for row in rows:
            row["preemption_count"] = 0
        assert_same_rows(rows, rows_of(tmp_path / "unbroken", trial), tolerance=0.0)


def test_trials_whose_records_were_written_before_a_kill_are_kept(tmp_path, make_plans):
    plans = make_plans()
    whole = train(plans, tmp_path / "unbroken")
    first, second, third = folders(tmp_path / "broken", plans)
    for kept in (second, first):
        kept.mkdir(parents=True)
        for path in (tmp_path / "unbroken" / kept.name).iterdir():
            (kept / path.name).write_bytes(path.read_bytes())

    found = train(plans, tmp_path / "broken")

    assert found[:2] == whole[:2]
    assert_same_rows(
        rows_of(tmp_path / "broken", 3), rows_of(tmp_path / "unbroken", 3), tolerance=0.0
    )
    assert found[2].spent_before.steps == 80
    assert third.exists()


def test_a_chunk_that_killed_its_process_is_run_one_after_another(
    tmp_path, make_plans, monkeypatch, killed
):
    plans = make_plans()

    def die(*_):
        raise killed

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedWorkload, "eval_models", die)
        with pytest.raises(killed):
            train(plans, tmp_path)
    for folder in folders(tmp_path, plans):
        mark_died(folder)
    found = train(plans, tmp_path)

    assert [record.status for record in found] == ["trial_budget"] * 3
    assert [record.trained_together for record in found] == [1, 1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"currency": "seconds", "eval_period": 0.01, "allowance": 0.02, "trial_budget": 0.02},
        {"submission": "no promise"},
        {"submission": "self-tuning"},
        {"rates": (1e-3,)},
    ],
    ids=["seconds", "no promise", "self-tuning", "one trial"],
)
def test_what_must_not_train_together_does_not(tmp_path, make_plans, change, monkeypatch):
    kind = change.get("submission")
    if kind == "no promise":
        monkeypatch.delattr(adamw().module, "VMAP_TRIALS")
    plans = make_plans(**{k: v for k, v in change.items() if k != "submission"})
    if kind == "self-tuning":
        other = load_submission("prodigy", SUBMISSIONS)
        plans = [dataclasses.replace(p, submission=other, hyperparameters=None) for p in plans]

    found = train(plans, tmp_path)

    assert {record.trained_together for record in found} == {1}
    assert not {record.status for record in found} & records.FAILURES


def branching(*, hyperparameters, **arguments):
    """A step that branches on a hyperparameter, which cannot be traced."""
    assert hyperparameters.learning_rate > 0
    return adamw().module._baseline.update_params(hyperparameters=hyperparameters, **arguments)


def twice(workload, input_queue, *_):
    """Take two batches a step."""
    next(input_queue)
    return next(input_queue)


@pytest.mark.parametrize(
    "function, replacement",
    [("update_params", branching), ("data_selection", twice)],
    ids=["branches", "two batches"],
)
def test_what_cannot_train_together_is_run_alone_and_nobody_notices(
    tmp_path, make_plans, monkeypatch, function, replacement
):
    monkeypatch.setattr(adamw().module, function, replacement)
    programs_for.cache_clear()  # of the step as it was
    plans = make_plans()

    found = train(plans, tmp_path / "together")

    alone = train_alone(plans, tmp_path / "alone")
    assert [record.trained_together for record in found] == [1, 1, 1]
    assert [record.preemptions for record in found] == [0, 0, 0]
    assert [*map(without_seconds, found)] == [*map(without_seconds, alone)]
    for trial in (1, 2, 3):
        pair = rows_of(tmp_path / "together", trial), rows_of(tmp_path / "alone", trial)
        assert_same_rows(*pair, tolerance=0.0)


def test_a_cost_of_its_own_keeps_a_submission_alone(tmp_path, make_plans, monkeypatch):
    module, report = adamw().module, adamw().module.report

    def dearer(state):
        said = report(state)
        return {**said, "gradient_evaluations": 2 * said["gradient_evaluations"]}

    monkeypatch.setattr(module, "report", dearer)

    found = train(make_plans(), tmp_path)

    assert [record.trained_together for record in found] == [1, 1, 1]
    assert [record.ledger.cost.steps for record in found] == [20, 20, 20]


def test_trials_that_differ_in_something_static_are_run_alone(tmp_path, make_plans):
    plans = [
        dataclasses.replace(p, hyperparameters={**p.hyperparameters, "label_smoothing": s})
        for p, s in zip(make_plans(), (0.0, 0.1, 0.1), strict=True)
    ]

    found = train(plans, tmp_path)

    assert [record.trained_together for record in found] == [1, 1, 1]
    assert {record.status for record in found} == {"trial_budget"}


class Normalised(nn.Module):
    """Batch normalisation and dropout: a model state, and keys that matter."""

    @nn.compact
    def __call__(self, inputs, *, train=False, dropout_rate=0.0):
        # No bias: before batch normalisation its gradient is 0, and Adam divides noise by noise.
        hidden = nn.Dense(8, use_bias=False, name="hidden")(inputs)
        hidden = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(hidden)
        hidden = nn.Dropout(dropout_rate, deterministic=not train)(nn.relu(hidden))
        return nn.Dense(10, name="output")(hidden)


NORMALISED = SupervisedWorkload(
    name="normalised",
    summary="for this test",
    load=load_digits,
    model=Normalised(),
    loss_type=get_workload("digits_mlp").loss_type,
    reference_batch_size=32,
    step_hint=40,
    has_modes=True,
    dropout_rate=0.3,
    max_eval_batch_size=300,
)


@pytest.mark.parametrize("workload", [NORMALISED, fix_batch(NORMALISED)], ids=["", "fixed"])
def test_model_state_and_dropout_keys_are_each_trials_own(
    tmp_path, make_plans, monkeypatch, workload
):
    kit = adamw().module.kit
    monkeypatch.setitem(kit.BATCH_SIZES, "normalised", 32)
    rates = (1e-3, 3e-3, 1e-2)  # at 0.1 rounding grows
    plans = make_plans(workload=workload, rates=rates, allowance=12.0, eval_period=4.0)

    found = train(plans, tmp_path / "together")

    train_alone(plans, tmp_path / "alone")
    assert [record.trained_together for record in found] == [3, 3, 3]
    for trial in (1, 2, 3):
        pair = rows_of(tmp_path / "together", trial), rows_of(tmp_path / "alone", trial)
        assert_same_rows(*pair, tolerance=ROUNDING)
    losses = [rows_of(tmp_path / "together", trial)[-1]["train/loss"] for trial in (1, 2, 3)]
    assert len(set(losses)) == 3


def test_trials_pause_together_and_go_on_together(tmp_path, make_plans):
    whole = make_plans(pause_at=20.0)
    first = train(whole, tmp_path)
    assert [record.status for record in first] == ["paused"] * 3

    further = [
        dataclasses.replace(plan, pause_at=None, segments=record.segments)
        for plan, record in zip(whole, first, strict=True)
    ]
    second = train(further, tmp_path)

    assert [record.status for record in second] == ["trial_budget"] * 3
    assert [record.trained_together for record in second] == [3, 3, 3]
    for plan, folder in zip(whole, folders(tmp_path / "alone", whole), strict=True):
        paused = run_trial(plan, folder)
        run_trial(dataclasses.replace(plan, pause_at=None, segments=paused.segments), folder)
    for trial in (1, 2, 3):
        pair = rows_of(tmp_path, trial), rows_of(tmp_path / "alone", trial)
        assert_same_rows(*pair, tolerance=ROUNDING)


def test_the_estimate_of_a_trials_memory_is_above_what_xla_takes(make_plans):
    from metaopt.bench.together import _make_trial, _programs, _trees_of

    for name in ("digits_mlp", "digits_conv"):
        (plan,) = make_plans(workload=get_workload(name), rates=(1e-3,))
        trial = _make_trial(plan, Path("unused"), None)
        trial.build()
        one = _programs([trial]).one
        numbers = {key: np.float32(value) for key, value in plan.hyperparameters.items()}
        arguments = _trees_of(trial), numbers, next(trial.queue), trial.steps_key, 0

        estimate = bytes_of_step(one, *arguments)

        memory = jax.jit(one).lower(*arguments).compile().memory_analysis()
        needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        assert needed < estimate < 50 * needed


def test_a_folder_of_another_plan_is_refused(tmp_path, make_plans, monkeypatch, killed):
    def die(*_):
        raise killed

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedWorkload, "eval_models", die)
        with pytest.raises(killed):
            train(make_plans(), tmp_path)
    progress = json.loads((tmp_path / "trial_2" / PROGRESS_FILE).read_text("utf-8"))
    assert progress["together"] == 3

    with pytest.raises(ValueError, match="holds an unfinished trial of another plan"):
        train(make_plans(rates=(2e-3, 2e-2, 2e-1)), tmp_path)
    assert math.isfinite(progress["training_seconds"])


def test_trials_that_take_no_step_end_their_process_and_run_alone_then(
    make_plans, tmp_path, monkeypatch, capfd
):
    plans = make_plans()
    train(plans, tmp_path / "warm")  # compiles: that is silence too
    ended = threading.Event()
    codes = []

    def exit_process(code):
        codes.append(code)
        ended.set()

    def never_return(*_):
        assert ended.wait(60)
        raise SystemExit  # the process is gone

    monkeypatch.setattr("metaopt.bench.together.os._exit", exit_process)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(type(plans[0].workload), "eval_models", never_return)
        train(plans, tmp_path / "hangs", stall_seconds=0.5)

    assert codes == [1]
    assert "3 trials that trained together took no step within 0.5 s" in capfd.readouterr().err
    left = [json.loads((f / PROGRESS_FILE).read_text()) for f in folders(tmp_path / "hangs", plans)]
    assert [progress["apart"] for progress in left] == [True] * 3
    again = train(plans, tmp_path / "hangs", stall_seconds=600)
    assert [record.trained_together for record in again] == [1, 1, 1]
    assert {record.status for record in again} == {"trial_budget"}
