"""Each way to cheat is found by the audit that is there for it."""

import dataclasses
import os

import jax.numpy as jnp
import pytest

from metaopt.bench.contract.facade import Facade
from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.bench.records.audit import AUDIT_FILE, AuditRecord
from metaopt.bench.records.layout import AUDIT_STALL_FILE
from metaopt.bench.trial.audits.recording import STEPS, Recorder
from metaopt.bench.trial.audits.replaying import write_audit
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic
from tests.bench.trial.audits.conftest import RATE, declare, descend, gradient

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def failures(record):
    return {finding.audit for finding in record.findings if finding.failed}


def no_draw(workload, queue, *_):
    """Take one batch at the first step and no other."""
    return {}


def declares_too_little(tmp_path):
    return {**declare(lambda steps: steps // 10), "data_selection": no_draw}


def declares_nothing(tmp_path):
    return {**declare(lambda steps: 0.0), "data_selection": no_draw}


def trains_at_set_up(tmp_path):
    def init(workload, params, *_):
        for _ in range(3):
            gradient(workload, params)
        return {}, None

    return {"init_optimizer_state": init}


def trains_in_data_selection(tmp_path):
    def select(workload, queue, optimizer_state, params, *_):
        gradient(workload, params), gradient(workload, params)
        return next(queue)

    return {"data_selection": select}


def trains_before_evaluations(tmp_path):
    def prepare(*, workload, current_param_container, model_state, optimizer_state, **_):
        params = current_param_container
        for _ in range(20):
            params = params - RATE * gradient(workload, params)
        return optimizer_state, params, model_state

    return {"prepare_for_eval": prepare}


def trains_in_evaluation_mode(tmp_path):
    def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
        params = current_param_container
        for _ in range(3):
            params = params - RATE * gradient(workload, params, ForwardPassMode.EVAL)
        return optimizer_state, params, model_state

    return {"update_params": update_params}


def has_a_network_of_its_own(tmp_path):
    def update_params(*, current_param_container, model_state, optimizer_state, **_):
        step = jnp.asarray(WORKLOAD.curvatures) * current_param_container
        return optimizer_state, current_param_container - RATE * step, model_state

    return {"update_params": update_params}


def never_restarts(tmp_path):
    return declare(float, episode=lambda steps: max(0, steps - 1) // 20)


def remembers(read, write):
    """Return a step that goes on from the best parameters of any trial so far."""

    def update_params(
        *, workload, current_param_container, model_state, optimizer_state, global_step, **_
    ):
        kept = read() if global_step == 0 else None
        params = current_param_container if kept is None else kept
        params = params - RATE * gradient(workload, params)
        if kept is None:
            write(params)
        return optimizer_state, params, model_state

    return {"update_params": update_params}


def draws_first_and_declares_later(tmp_path):
    def spent(steps):
        return max(0, steps - STEPS)

    def select(workload, queue, optimizer_state, params, model_state, hyperparameters, step, rng):
        return next(queue) if step < STEPS else {}

    return {**declare(spent), "data_selection": select}


def never_restarts_before_its_end(tmp_path):
    return declare(float, episode=lambda steps: int(steps > 61))


def goes_on_from_a_file(tmp_path):
    path = tmp_path / "parameters.npy"
    jnp.save(path, jnp.array([0.1, 0.1]))  # of an earlier trial
    return remembers(lambda: jnp.load(path), lambda params: None)


def goes_on_from_a_module_variable(tmp_path):
    kept = [jnp.array([0.1, 0.1])]
    return remembers(lambda: kept[-1], kept.append)


def counts_calls_in(increase):
    def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
        rate = RATE / increase()
        params = current_param_container - rate * gradient(workload, current_param_container)
        return optimizer_state, params, model_state

    return {"update_params": update_params}


def has_a_hidden_schedule(tmp_path):
    calls = []
    return counts_calls_in(lambda: calls.append(None) or len(calls))


def hides_a_schedule_in_the_environment(tmp_path):
    os.environ.pop("CALLS", None)

    def increase():
        os.environ["CALLS"] = str(int(os.environ.get("CALLS", 0)) + 1)
        return int(os.environ["CALLS"])

    return counts_calls_in(increase)


def notices_the_audit(tmp_path):
    def update_params(*, workload, current_param_container, model_state, optimizer_state, **_):
        params = current_param_container
        for _ in range(5 if type(workload) is Facade else 1):
            params = params - RATE * gradient(workload, params)
        return optimizer_state, params, model_state

    return {"update_params": update_params}


def draws_more_when_it_is_watched(tmp_path):
    def select(workload, queue, *_):
        if type(workload) is not Facade:
            next(queue)
        return next(queue)

    return {"data_selection": select}


CHEATS = {
    declares_too_little: "passes",
    declares_nothing: "passes",
    trains_at_set_up: "set-up",
    trains_in_data_selection: "passes",
    trains_before_evaluations: "passes",
    trains_in_evaluation_mode: "passes",
    has_a_network_of_its_own: "passes",
    draws_first_and_declares_later: "passes",
    never_restarts: "fresh-start",
    never_restarts_before_its_end: "fresh-start",
    goes_on_from_a_file: "fresh-start",
    goes_on_from_a_module_variable: "replay",
    has_a_hidden_schedule: "replay",
    hides_a_schedule_in_the_environment: "replay",
    notices_the_audit: "replay",
    draws_more_when_it_is_watched: "replay",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_each_cheat_fails_the_audit_that_is_there_for_it(
    audit_of, make_gradient_descent, tmp_path, cheat
):
    submission = descend(make_gradient_descent, **cheat(tmp_path))

    assert CHEATS[cheat] in failures(audit_of(submission))


def test_what_an_external_submission_calls_an_episode_is_not_audited(
    audit_of, make_gradient_descent, tmp_path
):
    submission = descend(make_gradient_descent, **never_restarts(tmp_path))

    record = audit_of(dataclasses.replace(submission, ruleset="external"))

    assert record.findings == ()


def test_one_parameter_that_amplifies_the_noise_does_not_make_a_start_fresh(
    audit_of, make_gradient_descent
):
    kept = jnp.full(40, 0.1)  # of an earlier trial

    def update_params(*, workload, current_param_container, model_state, global_step, **arguments):
        params = current_param_container
        if global_step == 0:
            params = kept.at[0].set(100.0 * params[0])
        params = params - RATE * gradient(workload, params)
        return arguments["optimizer_state"], params, model_state

    submission = descend(make_gradient_descent, update_params=update_params)

    assert failures(audit_of(submission, Quadratic(curvatures=(1.0,) * 40))) == {"fresh-start"}


def test_an_audit_that_ends_its_process_leaves_a_finding(
    make_gradient_descent, make_plan, tmp_path, killed
):
    def update_params(*, workload, **arguments):
        if type(workload) is not Facade:
            raise killed
        return inner(workload=workload, **arguments)

    submission = descend(make_gradient_descent)
    inner, submission.module.update_params = submission.module.update_params, update_params
    recorder = Recorder()
    run_trial(make_plan(submission, WORKLOAD, allowance=16.0), tmp_path, recorder=recorder)

    with pytest.raises(killed):
        write_audit(recorder, 0.5, None)

    (finding,) = AuditRecord.model_validate_json((tmp_path / AUDIT_FILE).read_bytes()).findings
    assert "The process ended during this audit" in finding.what


def test_a_stall_of_an_audit_is_none_of_its_trial(make_gradient_descent, make_plan, tmp_path):
    watched = set()

    def update_params(*, workload, **arguments):
        if type(workload) is not Facade:
            watched.update(path.name for path in tmp_path.glob("*stall.txt"))
        return inner(workload=workload, **arguments)

    submission = descend(make_gradient_descent)
    inner, submission.module.update_params = submission.module.update_params, update_params
    plan, recorder = make_plan(submission, WORKLOAD, allowance=32.0), Recorder()
    first = run_trial(dataclasses.replace(plan, pause_at=16.0), tmp_path)
    rest = dataclasses.replace(plan, segments=first.segments)

    (tmp_path / AUDIT_STALL_FILE).write_text("60\nTimeout (0:01:03)!\n")
    record = run_trial(rest, tmp_path, recorder=recorder)
    write_audit(recorder, 0.5, 60.0)

    assert (first.status, record.status) == ("paused", "study_budget")
    assert watched == {AUDIT_STALL_FILE}


def test_a_step_that_cannot_be_run_again_has_failed(audit_of, make_gradient_descent):
    def update_params(*, workload, **arguments):
        if type(workload) is not Facade:
            raise RuntimeError("not now")
        return inner(workload=workload, **arguments)

    submission = descend(make_gradient_descent)
    inner, submission.module.update_params = submission.module.update_params, update_params

    (finding,) = audit_of(submission).findings

    assert finding.failed
    assert "not now" in finding.what
