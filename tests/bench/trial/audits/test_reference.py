"""AdamW is timed beside a trial, and the trial's results stay the same."""

import jax
import numpy as np

from metaopt.bench.trial.audits import reference
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.reference import Reference
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic


class Timer:
    """A clock whose steps take as long as a list says."""

    def __init__(self, durations):
        self.readings = [0.0]
        for duration in durations:
            self.readings += [self.readings[-1] + duration] * 2

    def perf_counter(self):
        return self.readings.pop(0)


def test_adamw_is_timed_once_after_each_evaluation(tmp_path, make_plan, make_gradient_descent):
    asked = []

    class Counted(Reference):
        def time_steps(self, most):
            asked.append(most)
            super().time_steps(most)

    recorder = Recorder()
    plan = make_plan(
        make_gradient_descent(), Quadratic(curvatures=(1.0, 5.0)), currency="steps",
        study_budget=40.0, trial_budget=40.0, allowance=40.0, eval_period=16.0,
    )  # fmt: skip
    recorder.reference = Counted(plan.workload)
    run_trial(plan, tmp_path, recorder=recorder)

    assert asked == [16, 16, 8]  # the steps since the evaluation before
    assert recorder.reference.seconds > 0


def test_its_seconds_are_the_median_per_step(monkeypatch):
    timed = Reference(Quadratic(curvatures=(1.0, 5.0)))
    monkeypatch.setattr(reference, "time", Timer([8.0, 1.0, 30.0]))

    for steps in (4, 1, 100):  # at most ten
        timed.time_steps(steps)

    assert timed.seconds == np.median([8.0 / 4, 1.0 / 1, 30.0 / 10]) == 2.0


def test_a_device_without_memory_for_it_leaves_the_trial_alone():
    class TooLarge(Quadratic):
        def init_model_fn(self, *_, **__):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    timed = Reference(TooLarge(curvatures=(1.0, 5.0)))
    timed.time_steps(8)
    timed.time_steps(8)

    assert timed.seconds is None
