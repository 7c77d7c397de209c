"""Run a trial and audit it."""

import pytest

from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import audit
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic


@pytest.fixture
def audit_of(make_plan, tmp_path):
    """Run a trial of a submission for a number of steps, and audit it."""

    def run(submission, workload=None, steps=64.0, **changes):
        recorder = Recorder()
        plan = make_plan(
            submission, workload or Quadratic(curvatures=(1.0, 5.0)), currency="steps",
            study_budget=steps, trial_budget=steps, allowance=steps,
            **{"eval_period": 16.0, **changes},
        )  # fmt: skip
        record = run_trial(plan, tmp_path, recorder=recorder)
        assert record.error is None, record.error
        return audit(recorder, 0.5, timed=False)

    return run
