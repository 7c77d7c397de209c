"""Gradient descent in several forms, and a fixture that runs and audits it."""

import jax
import pytest

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import audit
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

RATE = 0.01


def gradient(workload, params, mode=ForwardPassMode.TRAIN):
    """Return the loss's gradient, taken by one pass through ``model_fn``."""

    def loss(x):
        return workload.loss_fn(None, workload.model_fn(x, {}, None, mode, None, False)[0])[
            "summed"
        ]

    return jax.grad(loss)(params)


def descend(make, passes=1, **functions):
    """Return gradient descent with ``passes`` through the model at each step."""

    def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
        for _ in range(passes):
            step = gradient(workload, current_param_container)
        return optimizer_state, current_param_container - RATE * step, model_state

    submission = make()
    for name, function in {"update_params": update_params, **functions}.items():
        setattr(submission.module, name, function)
    return submission


def declare(spent, episode=lambda step: 0):
    """Return functions that count steps in the state, and what they declare."""

    def init(workload, params, *_):
        return {"steps": 0}, None

    def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
        state = {"steps": optimizer_state[0]["steps"] + 1}
        params = current_param_container - RATE * gradient(workload, current_param_container)
        return (state, None), params, model_state

    def report(optimizer_state):
        steps = optimizer_state[0]["steps"]
        return {
            "gradient_evaluations": spent(steps), "episode": episode(steps), "phase": "training"
        }  # fmt: skip

    return {"init_optimizer_state": init, "update_params": update_params, "report": report}


@pytest.fixture
def audit_of(make_plan, tmp_path):
    """Run a trial of a submission for a number of steps, and audit it."""

    def run(submission, workload=None, steps=64.0, draw=None, **changes):
        recorder = Recorder(draw, timed=False)
        plan = make_plan(
            submission, workload or Quadratic(curvatures=(1.0, 5.0)), currency="steps",
            study_budget=steps, trial_budget=steps, allowance=steps,
            **{"eval_period": 16.0, **changes},
        )  # fmt: skip
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        record = run_trial(plan, folder, recorder=recorder)
        assert record.error is None, record.error
        return audit(recorder, 0.5)

    return run
