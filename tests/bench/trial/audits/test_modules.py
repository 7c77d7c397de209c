"""What a submission's modules keep from one trial to the next hides nothing from an audit."""

import pytest

from metaopt.bench.contract.loading import import_again, load_submission
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import audit
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))

HEAD = """
import functools
import jax, jax.numpy as jnp
from typing import Any, NamedTuple
from metaopt.bench.contract.kit import data_selection
from tests.bench.trial.audits.conftest import RATE, gradient

class State(NamedTuple):
    steps: Any
    rate: Any

KEPT = {}

def get_batch_size(workload_name):
    return 4
"""
HONEST = """
def init_optimizer_state(workload, params, *_):
    return State(jnp.zeros((), jnp.int32), RATE), None

@jax.jit
def add(state):
    # Fails if the branches return two classes of one name.
    return jax.lax.cond(state.steps >= 0, lambda s: State(s.steps + 1, s.rate), lambda s: s, state)

def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
    step = gradient(workload, current_param_container)
    state = add(optimizer_state[0])
    return (state, None), current_param_container - state.rate * step, model_state
"""
KEEPS_A_FUNCTION = """
def init_optimizer_state(workload, params, *_):
    if not KEPT:
        KEPT["gradient"] = jax.jit(lambda x: gradient(workload, x))
    return {}, None

def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
    params = current_param_container - RATE * gradient(workload, current_param_container)
    for _ in range(4):
        params = params - 0.1 * RATE * KEPT["gradient"](params)
    return optimizer_state, params, model_state
"""
LEARNS_OVER_STUDIES = """
def init_optimizer_state(workload, params, *_):
    return {"rate": KEPT.get("rate", RATE)}, None

def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
    KEPT["rate"] = 2 * RATE  # found by the first study
    step = gradient(workload, current_param_container)
    rate = optimizer_state[0]["rate"]
    return optimizer_state, current_param_container - rate * step, model_state
"""
_RESTARTS = """
def init_optimizer_state(workload, params, model_state, hyperparameters, rng):
    return {"steps": 0, "fresh": workload.init_model_fn(rng)[0], "key": rng}, None

def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
    state, params = dict(optimizer_state[0]), current_param_container
    if state["steps"] and state["steps"] % 20 == 0:
        old, params = params, restart(workload, params, state)
        descend(old, 0.0)  # donates them
    state["steps"] += 1
    return (state, None), descend(params, gradient(workload, params)), model_state

def report(state):
    steps = state[0]["steps"]
    return {
        "gradient_evaluations": float(steps), "episode": max(0, steps - 1) // 20,
        "phase": "training",
    }

@functools.partial(jax.jit, donate_argnums=0)
def descend(params, step):
    return params - RATE * step
"""
RESTARTS_AFRESH = f"""{_RESTARTS}
def restart(workload, params, state):
    return workload.init_model_fn(state["key"])[0]
"""
RESTARTS_WITH_WHAT_IT_LEARNED = f"""{_RESTARTS}
def restart(workload, params, state):
    return params + (workload.init_model_fn(state["key"])[0] - state["fresh"])
"""


@pytest.fixture
def write(tmp_path):
    """Return a submission with this code, imported from a folder."""

    def write(code):
        folder = tmp_path / "self_tuning" / "mine"
        folder.mkdir(parents=True)
        (folder / "submission.py").write_text(HEAD + code)
        return load_submission(folder, tmp_path)

    return write


@pytest.fixture
def audit_second(make_plan, tmp_path):
    """Run two trials of a submission, audit the second, and return what failed."""

    def run(submission):
        for trial in (1, 2):
            recorder = Recorder(timed=False)
            plan = make_plan(
                submission, WORKLOAD, currency="steps", study_budget=64.0, trial_budget=64.0,
                allowance=64.0, eval_period=16.0, trial=trial,
            )  # fmt: skip
            record = run_trial(plan, tmp_path / str(trial), recorder=recorder)
            assert record.error is None, record.error
        return {finding.audit for finding in audit(recorder, 0.5).findings if finding.failed}

    return run


CODE = {
    HONEST: set(),
    RESTARTS_AFRESH: set(),
    KEEPS_A_FUNCTION: {"passes"},
    LEARNS_OVER_STUDIES: {"replay"},
    RESTARTS_WITH_WHAT_IT_LEARNED: {"fresh-start"},
}
NAMES = (
    "honest",
    "restarts afresh",
    "keeps a function",
    "learns over studies",
    "restarts with what it learned",
)


@pytest.mark.parametrize("code, failed", CODE.items(), ids=NAMES)
def test_an_audit_imports_the_submission_again(write, audit_second, code, failed):
    assert audit_second(write(code)) == failed


def test_a_module_that_is_imported_again_has_kept_nothing_and_the_first_stays(write):
    submission = write(HONEST)
    submission.module.KEPT["rate"] = 1.0

    again = import_again(submission)

    assert again.KEPT == {}
    assert submission.module.KEPT == {"rate": 1.0}
    assert load_submission(submission.folder, submission.folder).module is submission.module
