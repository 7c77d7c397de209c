"""A trial that pauses and goes on is the trial that does not pause."""

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.records import Cost
from metaopt.bench.trial.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.trial.progress import FILE as PROGRESS_FILE
from metaopt.bench.trial.progress import mark_died
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from metaopt.workloads.synthetic import Quadratic

SUBMISSIONS = Path(__file__).resolve().parents[3] / "submissions"
WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def go_on(plan, folder, rungs, **options):
    """Run a trial from rung to rung; the study spends 1000 steps on others in between."""
    record = None
    for number, rung in enumerate(rungs):
        segments = record.segments[:number] if record else ()  # on disk there may be more
        before = Cost(steps=1000 * number)
        step = dataclasses.replace(plan, pause_at=rung, segments=segments, spent_before=before)
        record = run_trial(step, folder, **options)
    return record


def watch_parameters(monkeypatch, module):
    """Return a list whose only entry is what the last step returned."""
    last = []
    update_params = module.update_params

    def watching(**arguments):
        returned = update_params(**arguments)
        last[:] = [jax.device_get(returned[1:])]
        return returned

    monkeypatch.setattr(module, "update_params", watching)
    return last


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is not on the disk yet matters to a power cut only, and waiting for it takes long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("name", ["adamw", "schedule_free_adamw"])
def test_a_promoted_trial_continues_bit_for_bit(name, tmp_path, make_plan, monkeypatch):
    submission = load_submission(name, SUBMISSIONS)
    plan = make_plan(
        submission, get_workload("digits_mlp"), hyperparameters=submission.defaults,
        trial_budget=54.0, allowance=54.0, eval_period=9.0,
    )  # fmt: skip
    last = watch_parameters(monkeypatch, submission.module)

    run_trial(plan, tmp_path / "unbroken")
    unbroken = last[0]
    paused = go_on(plan, tmp_path / "paused", (2.0, 6.0, 18.0, None))

    jax.tree.map(np.testing.assert_array_equal, last[0], unbroken)
    rows = {}
    for folder in ("unbroken", "paused"):
        table = records.read_evaluations(tmp_path / folder / records.EVAL_FILE)
        rows[folder] = {
            row["global_step"]: (row["train/loss"], row["validation/accuracy"]) for row in table
        }
    assert list(rows["paused"]) == [2, 6, 9, 18, 27, 36, 45, 54]  # rungs beside the period's
    assert rows["unbroken"].items() <= rows["paused"].items()
    assert [(s.start.steps, s.end.steps, s.evaluations) for s in paused.segments] == [
        (0, 2, 1), (2, 6, 2), (6, 18, 4), (18, 54, 8)
    ]  # fmt: skip
    assert (paused.status, paused.ledger.cost.steps) == ("trial_budget", 54)


def test_what_the_study_had_spent_is_known_at_every_step_of_a_paused_trial(
    tmp_path, make_plan, make_gradient_descent
):
    plan = make_plan(make_gradient_descent(), WORKLOAD)

    record = go_on(plan, tmp_path, (10.0, 30.0, None))

    steps = {1: 1, 10: 10, 11: 1001, 30: 1020, 31: 2001, 100: 2070}
    assert {at: record.spent_at(Cost(steps=at)).steps for at in steps} == steps


def test_a_trial_that_is_paused_says_so_and_keeps_its_checkpoint(
    tmp_path, make_plan, make_gradient_descent
):
    record = go_on(make_plan(make_gradient_descent(), WORKLOAD), tmp_path, (10.0,))

    assert (record.status, record.ledger.cost.steps, record.preemptions) == ("paused", 10, 0)
    assert (tmp_path / CHECKPOINT_FILE).exists() and not (tmp_path / PROGRESS_FILE).exists()


@pytest.mark.parametrize("step", [0, 9, 10, 14, 30, 31])
def test_a_kill_at_any_step_of_any_segment_changes_nothing(
    step, tmp_path, make_plan, make_gradient_descent, killed
):
    plan = make_plan(
        make_gradient_descent(), WORKLOAD, eval_period=4.0, trial_budget=35.0, allowance=35.0
    )
    expected = go_on(plan, tmp_path / "unbroken", (10.0, 30.0, None))

    def die(at):
        if at == step:
            raise killed

    deadly = dataclasses.replace(plan, submission=make_gradient_descent(before_step=die))
    with pytest.raises(killed):
        go_on(deadly, tmp_path / "killed", (10.0, 30.0, None), checkpoint_seconds=0)
    record = go_on(plan, tmp_path / "killed", (10.0, 30.0, None))

    assert record.preemptions == 1
    assert places(record) == places(expected)
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken")


def places(record):
    return [(s.rung, s.start.steps, s.end.steps, s.evaluations) for s in record.segments]


def losses(folder):
    rows = records.read_evaluations(folder / records.EVAL_FILE)
    return [(row["global_step"], row["validation/loss"]) for row in rows]


def test_a_kill_between_the_pause_and_its_record_trains_no_further(
    tmp_path, make_plan, make_gradient_descent, monkeypatch
):
    plan = make_plan(make_gradient_descent(), WORKLOAD)
    with monkeypatch.context() as patch:
        patch.setattr(records, "find_reached", lambda *_: 1 / 0)  # dies while it writes its record
        with pytest.raises(ZeroDivisionError):
            go_on(plan, tmp_path, (10.0,))

    record = go_on(plan, tmp_path, (10.0, None))

    assert [s.end.steps for s in record.segments] == [10, 100]


def test_a_progress_file_that_a_kill_left_at_a_pause_is_not_of_the_next_segment(
    tmp_path, make_plan, make_gradient_descent
):
    plan = make_plan(make_gradient_descent(), WORKLOAD)
    progress = tmp_path / PROGRESS_FILE
    kept = []

    def keep(step):
        if step == 5:
            kept.append(progress.read_bytes())

    watched = dataclasses.replace(plan, submission=make_gradient_descent(before_step=keep))
    go_on(watched, tmp_path, (10.0,))
    progress.write_bytes(kept[0])

    record = go_on(plan, tmp_path, (10.0, None))

    assert (record.status, record.preemptions) == ("trial_budget", 0)


def test_a_trial_whose_checkpoint_is_gone_trains_again_to_where_it_paused(
    tmp_path, make_plan, make_gradient_descent, clock
):
    submission = make_gradient_descent(before_step=lambda _: clock.advance(1.0))
    plan = make_plan(submission, WORKLOAD)
    go_on(plan, tmp_path, (10.0,), clock=clock)
    (tmp_path / CHECKPOINT_FILE).unlink()

    record = go_on(plan, tmp_path, (10.0, 30.0), clock=clock)

    assert places(record) == [(10.0, 0, 10, 1), (30.0, 10, 30, 3)]


def test_what_a_paused_trial_paid_stays_paid_when_it_cannot_go_on(
    tmp_path, make_plan, make_gradient_descent
):
    plan = make_plan(make_gradient_descent(), WORKLOAD)
    go_on(plan, tmp_path, (20.0,))
    broken = make_gradient_descent()
    broken.module.init_optimizer_state = lambda *_: 1 / 0

    record = go_on(dataclasses.replace(plan, submission=broken), tmp_path, (20.0, None))

    assert (record.status, record.ledger.cost.steps) == ("crashed", 20)
    assert places(record) == [(20.0, 0, 20, 2), (None, 20, 20, 2)]
    assert [step for step, _ in losses(tmp_path)] == [10, 20]


def test_a_trial_that_kills_its_process_behind_a_pause_has_failed_at_what_it_had_paid(
    tmp_path, make_plan, make_gradient_descent, killed
):
    def die(at):
        if at == 15:
            raise killed

    plan = make_plan(make_gradient_descent(before_step=die), WORKLOAD)
    with pytest.raises(killed):
        go_on(plan, tmp_path, (10.0, None))
    mark_died(tmp_path)

    record = go_on(plan, tmp_path, (10.0, None))

    assert (record.status, record.ledger.cost.steps) == ("crashed", 10)


def test_the_share_of_the_budget_that_a_submission_is_told_does_not_depend_on_pauses(
    tmp_path, make_plan, make_gradient_descent
):
    told = {}
    # While the trial was paused, others have left it less of the study's budget.
    for name, rungs, allowance in (("unbroken", (None,), 100.0), ("paused", (10.0, 30.0), 60.0)):
        submission = dataclasses.replace(make_gradient_descent(), wants_train_state=True)
        update_params, shares = submission.module.update_params, []

        def watching(*, train_state, update=update_params, shares=shares, **rest):
            shares.append(train_state["budget_fraction"])
            return update(**rest)

        submission.module.update_params = watching
        go_on(make_plan(submission, WORKLOAD, allowance=allowance), tmp_path / name, rungs)
        told[name] = shares

    assert told["paused"] == told["unbroken"][:30]


def test_a_trial_is_pruned_where_its_tuner_says_so(tmp_path, make_plan, make_gradient_descent):
    seen = []

    def should_stop(rows):
        seen.append(len(rows))
        return rows[-1]["validation/loss"] < 0.1

    plan = make_plan(make_gradient_descent(), WORKLOAD)
    record = run_trial(plan, tmp_path, should_stop=should_stop)

    assert record.status == "pruned"
    assert record.status not in records.FAILURES
    assert seen == list(range(1, len(seen) + 1))
    assert record.ledger.cost.steps == 10 * len(seen) < 100
    assert record.best < 0.1
