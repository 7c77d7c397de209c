"""A killed trial is resumed to the same numbers, and a finished one is left alone."""

import json

import pytest

from metaopt.bench import records
from metaopt.bench.trial import resuming
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def raise_at(step_of_harm, exception):
    def before_step(step):
        if step == step_of_harm:
            raise exception

    return before_step


def test_a_finished_trial_is_never_run_again(tmp_path, make_plan, make_gradient_descent):
    first = run_trial(make_plan(make_gradient_descent(), WORKLOAD), tmp_path)
    harm = make_gradient_descent(before_step=raise_at(0, AssertionError()))

    assert run_trial(make_plan(harm, WORKLOAD), tmp_path) == first


@pytest.mark.parametrize("killed_at", [0, 5, 10, 37, 99])
def test_a_killed_trial_goes_on_from_its_checkpoint_to_the_same_numbers(
    tmp_path, make_plan, make_gradient_descent, killed, killed_at, clock
):
    plan = make_plan(make_gradient_descent(), WORKLOAD)
    unbroken = run_trial(plan, tmp_path / "unbroken")
    steps = []
    harm = make_gradient_descent(before_step=raise_at(killed_at, killed()))
    again = make_gradient_descent(before_step=steps.append)

    with pytest.raises(killed):
        run_trial(
            make_plan(harm, WORKLOAD), tmp_path / "broken", clock=clock, checkpoint_seconds=0.0
        )
    resumed = run_trial(make_plan(again, WORKLOAD), tmp_path / "broken")

    losses = [
        [row["validation/loss"] for row in records.read_evaluations(path / "eval_measurements.csv")]
        for path in (tmp_path / "unbroken", tmp_path / "broken")
    ]
    assert losses[0] == losses[1]
    assert resumed.ledger.cost.steps == unbroken.ledger.cost.steps
    assert resumed.preemptions == 1
    assert steps[0] == killed_at // 10 * 10
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {
        path.name for path in (tmp_path / "unbroken").iterdir()
    }


def test_a_trial_whose_checkpoint_cannot_be_read_starts_again(
    tmp_path, make_plan, make_gradient_descent, killed, clock
):
    plan = make_plan(make_gradient_descent(), WORKLOAD)
    harm = make_plan(make_gradient_descent(before_step=raise_at(50, killed())), WORKLOAD)
    unbroken = run_trial(plan, tmp_path / "unbroken")
    with pytest.raises(killed):
        run_trial(harm, tmp_path / "broken", clock=clock, checkpoint_seconds=0.0)
    checkpoint = tmp_path / "broken" / "checkpoint.msgpack"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])

    with pytest.warns(UserWarning, match="Cannot read the checkpoint .* runs again"):
        resumed = run_trial(plan, tmp_path / "broken", clock=clock)

    assert resumed.best == unbroken.best
    assert resumed.ledger.cost.steps == unbroken.ledger.cost.steps
    assert resumed.preemptions == 1


def test_a_resumed_trial_continues_with_the_seconds_of_its_checkpoint(
    tmp_path, make_plan, make_gradient_descent, killed, clock
):
    def work(step):
        clock.advance(1.0)

    def die(step):
        work(step)
        raise_at(57, killed())(step)

    plan = make_plan(make_gradient_descent(before_step=work), WORKLOAD)
    harm = make_plan(make_gradient_descent(before_step=die), WORKLOAD)
    with pytest.raises(killed):
        run_trial(harm, tmp_path, clock=clock, checkpoint_seconds=0.0)
    left = json.loads((tmp_path / "progress.json").read_text())

    resumed = run_trial(plan, tmp_path, clock=clock)

    assert resumed.ledger.cost.seconds == 100.0  # steps 51 to 58 ran twice, and are charged once
    assert (resumed.started_at, resumed.preemptions) == (left["started_at"], 1)


def test_checkpoints_are_rare_where_writing_one_takes_long(
    tmp_path, make_plan, make_gradient_descent, clock, monkeypatch
):
    written = []

    def save(*_):
        written.append(clock.now())
        clock.advance(2.0)

    monkeypatch.setattr(resuming, "save_checkpoint", save)
    submission = make_gradient_descent(before_step=lambda _: clock.advance(1.0))

    run_trial(make_plan(submission, WORKLOAD), tmp_path, clock=clock, checkpoint_seconds=15.0)

    assert written == [20.0, 20.0 + 2.0 + 60.0]  # at evaluations, one every 10 s


def test_the_progress_file_is_written_once(tmp_path, make_plan, make_gradient_descent, clock):
    seen = set()

    def look(step):
        clock.advance(1.0)
        seen.add((tmp_path / "progress.json").stat().st_mtime_ns)

    run_trial(make_plan(make_gradient_descent(before_step=look), WORKLOAD), tmp_path, clock=clock)

    assert len(seen) == 1
    assert not (tmp_path / "progress.json").exists()


def test_an_unfinished_trial_of_another_plan_is_refused_by_what_differs(
    tmp_path, make_plan, make_gradient_descent, killed
):
    harm = make_gradient_descent(before_step=raise_at(50, killed()))
    with pytest.raises(killed):
        run_trial(
            make_plan(harm, WORKLOAD, hyperparameters={"rate": 1.0}), tmp_path,
            checkpoint_seconds=0.0,
        )  # fmt: skip

    with pytest.raises(ValueError, match=r"hyperparameters: {'rate': 1.0} there, {'rate': 2.0}"):
        run_trial(make_plan(harm, WORKLOAD, hyperparameters={"rate": 2.0}), tmp_path)
