"""What is recorded of a trial: at random, without a trace in its record, and on nobody's clock."""

import collections
import dataclasses
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.trial.audits import recording
from metaopt.bench.trial.audits.host_copies import to_device, to_host
from metaopt.bench.trial.audits.recording import STEPS, Recorder
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def plan_of(make_plan, submission, steps=96.0, workload=WORKLOAD, **changes):
    budgets = dict.fromkeys(("study_budget", "trial_budget", "allowance"), steps)
    return make_plan(submission, workload, **{"currency": "steps", **budgets, **changes})


def test_a_recorded_trial_has_the_record_of_one_that_is_not(
    tmp_path, make_plan, make_gradient_descent
):
    found = []
    for name, recorder in (("plain", None), ("recorded", Recorder())):
        plan = plan_of(make_plan, make_gradient_descent())
        record = run_trial(plan, tmp_path / name, recorder=recorder)
        rows = records.read_evaluations(tmp_path / name / records.EVAL_FILE)
        losses = [(row["global_step"], row["validation/loss"]) for row in rows]
        found.append((record.status, record.ledger.cost.steps, record.best, losses))

    assert found[0] == found[1]


def test_recording_is_on_nobodys_clock(tmp_path, make_plan, make_gradient_descent, clock):
    class SlowRecorder(Recorder):
        def _open_windows(self, kinds, trees):
            with self._trial.watch.paused():
                clock.advance(100.0 * len(kinds))
            super()._open_windows(kinds, trees)

        def after_evaluation(self):
            clock.advance(100.0)

    submission = make_gradient_descent(before_step=lambda _: clock.advance(0.5))
    plan = plan_of(make_plan, submission)

    record = run_trial(plan, tmp_path, clock=clock, recorder=SlowRecorder())

    assert clock.now() > 300.0
    assert record.ledger.cost.seconds == 0.5 * 96


@pytest.mark.parametrize("period", [1.0, 12.0])
def test_every_step_may_be_in_a_window(tmp_path, make_plan, make_gradient_descent, period):
    steps = 32
    seen = collections.Counter()
    for seed in range(20):
        recorder = Recorder(random.Random(seed))
        plan = plan_of(make_plan, make_gradient_descent(), float(steps), eval_period=period)
        run_trial(plan, tmp_path / str(seed), recorder=recorder)
        windows = recorder.all_windows()
        assert all(len(window.batches) == window.steps <= STEPS for window in windows)
        for window in windows:
            assert window.declared == window.drawn == window.steps
            seen.update(range(window.first_step, window.first_step + window.steps))

    assert set(seen) == set(range(steps))


def test_a_resumed_segment_shorter_than_a_period_has_a_window(
    tmp_path, make_plan, make_gradient_descent
):
    for seed in range(20):
        recorder, segments = Recorder(random.Random(seed)), ()
        for rung in (16.0, 20.0):
            plan = plan_of(make_plan, make_gradient_descent(), eval_period=32.0)
            plan = dataclasses.replace(plan, pause_at=rung, segments=segments)
            segments = run_trial(plan, tmp_path / str(seed), recorder=recorder).segments

        assert [window.first_step >= 16 for window in recorder.windows] == [True]


def test_what_goes_to_the_host_comes_back_as_it_was():
    tree = {
        "array": jnp.arange(3, dtype=jnp.bfloat16), "key": jax.random.key(1), "number": 2,
        "none": None, "host": np.arange(2), "empty": jnp.zeros((0, 2)),
    }  # fmt: skip

    back = to_device(to_host(tree))

    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert back["array"].dtype == jnp.bfloat16 and back["host"] is not tree["host"]
    assert (jax.random.key_data(back["key"]) == jax.random.key_data(tree["key"])).all()
    for name in ("array", "host", "empty"):
        np.testing.assert_array_equal(back[name], tree[name])
    assert (back["number"], back["none"]) == (2, None)


def test_a_kept_state_survives_donation():
    state = jnp.arange(3.0)
    kept = to_host(state)

    jax.jit(lambda x: x + 1, donate_argnums=0)(state)

    np.testing.assert_array_equal(to_device(kept), [0.0, 1.0, 2.0])


def test_a_paused_trial_is_not_audited_from_the_start_of_another(
    tmp_path, make_plan, make_gradient_descent
):
    recorder = Recorder()

    def run(trial, **changes):
        plan = plan_of(make_plan, make_gradient_descent(), trial=trial, eval_period=16.0, **changes)
        record = run_trial(plan, tmp_path / str(trial), recorder=recorder)
        assert record.error is None
        return record

    first = run(1, pause_at=32.0)
    start = recorder.start
    run(2, pause_at=32.0)
    assert recorder.start not in (None, start)
    run(1, pause_at=64.0, segments=first.segments)

    assert recorder.start is None
    assert recorder.all_windows()


@dataclasses.dataclass(frozen=True)
class Mapped(Quadratic):
    """A workload whose batches a function makes."""

    batch: Any = None

    def _build_input_queue(self, *arguments, **options):
        return map(self.batch, super()._build_input_queue(*arguments, **options))


@pytest.mark.parametrize("library", [np, jnp])
def test_a_window_with_large_batches_ends_early(
    tmp_path, make_plan, make_gradient_descent, monkeypatch, library
):
    monkeypatch.setattr(recording, "_MOST_BYTES", 3 * 4)
    workload = Mapped((1.0, 5.0), batch=lambda _: {"x": library.zeros(1, library.float32)})
    recorder = Recorder()

    plan = plan_of(make_plan, make_gradient_descent(), workload=workload)
    run_trial(plan, tmp_path, recorder=recorder)

    assert {window.steps for window in recorder.all_windows()} <= {1, 2, 3}
    assert recorder.start.steps == 3
