"""Each way to cheat is found by the audit that is there for it; honest descent passes them all."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import pytest

from metaopt.bench.contract.facade import Facade
from metaopt.bench.contract.spec import ForwardPassMode, TrainingCompleteError
from metaopt.bench.records.audit import AUDIT_FILE, AuditRecord
from metaopt.bench.trial.audits.recording import STEPS, Recorder
from metaopt.bench.trial.audits.replaying import write_audit
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

RATE = 0.01
WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


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


def failures(record):
    return {finding.audit for finding in record.findings if finding.failed}


def test_honest_descent_passes_and_is_counted_exactly(audit_of, make_gradient_descent):
    record = audit_of(descend(make_gradient_descent))

    assert record.findings == ()
    assert record.ratio == 1.0
    assert {window.kind for window in record.windows} == {"start", "sampled", "evaluation"}
    assert all(w.counted == w.charged == w.steps for w in record.windows)
    assert record.windows[0].steps == STEPS  # those near the end have fewer
    assert all(w.deviation == 0.0 for w in record.windows)
    # Each coordinate keeps (1 - rate a)^8 of its noise.
    (start,) = record.starts
    assert (1 - 5 * RATE) ** 8 < start.response < (1 - RATE) ** 8


@pytest.mark.parametrize("passes, failed", [(1, None), (2, False), (3, True)])
def test_passes_beyond_what_is_charged_are_noted_and_then_fail(
    audit_of, make_gradient_descent, passes, failed
):
    record = audit_of(descend(make_gradient_descent, passes))

    assert record.ratio == passes
    assert [f.failed for f in record.findings] == ([] if failed is None else [failed])


def test_a_submission_that_declares_its_passes_is_not_flagged(audit_of, make_gradient_descent):
    count = {"steps": 0}

    def update_params(**arguments):
        count["steps"] += 1
        return inner(**arguments)

    submission = descend(make_gradient_descent, 3)
    inner, submission.module.update_params = submission.module.update_params, update_params
    submission.module.report = lambda state: {
        "gradient_evaluations": 3.0 * count["steps"], "episode": 0, "phase": "training",
    }  # fmt: skip

    assert audit_of(submission).findings == ()


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


def test_an_episode_that_starts_afresh_passes(audit_of, make_gradient_descent):
    functions = declare(float, episode=lambda steps: max(0, steps - 1) // 20)
    inner = functions["update_params"]

    def update_params(*, workload, current_param_container, optimizer_state, rng, **arguments):
        steps = optimizer_state[0]["steps"]
        params = current_param_container
        if steps and steps % 20 == 0:
            params, _ = workload.init_model_fn(rng)
        return inner(
            workload=workload, current_param_container=params, optimizer_state=optimizer_state,
            rng=rng, **arguments,
        )  # fmt: skip

    submission = descend(make_gradient_descent, **{**functions, "update_params": update_params})
    record = audit_of(submission)

    assert record.findings == ()
    assert [start.kind for start in record.starts] == ["trial", "episode"]
    assert record.starts[1].step in (20, 40, 60)


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


def draws_ahead(make):
    """Draw 16 batches at once, take a step with each, and declare each step."""

    def select(workload, queue, optimizer_state, *_):
        if optimizer_state[0]["steps"] % 16 == 0:
            return [next(queue) for _ in range(16)]
        return {}

    return descend(make, **{**declare(float), "data_selection": select})


def accumulates_without_declaring(make):
    """Draw 2 batches in each step, take 2 passes, and leave the count to the draws."""

    def select(workload, queue, *_):
        return [next(queue) for _ in range(2)]

    return descend(make, 2, data_selection=select)


def shows_its_average(make):
    """Evaluate at an average of the iterates, and train on from the last one."""

    def init(workload, params, *_):
        return {"average": params, "iterate": params}, None

    def update_params(*, workload, model_state, optimizer_state, **_):
        average, iterate = optimizer_state[0]["average"], optimizer_state[0]["iterate"]
        iterate = iterate - RATE * gradient(workload, iterate)
        state = {"average": 0.9 * average + 0.1 * iterate, "iterate": iterate}
        return (state, None), iterate, model_state

    def prepare(*, model_state, optimizer_state, **_):
        return optimizer_state, optimizer_state[0]["average"], model_state

    functions = {"update_params": update_params, "prepare_for_eval": prepare}
    return descend(make, init_optimizer_state=init, **functions)


def ends_early(make):
    """Say that the run is complete after 5 steps."""

    def update_params(*, global_step, **arguments):
        if global_step == 5:
            raise TrainingCompleteError
        return inner(global_step=global_step, **arguments)

    submission = descend(make)
    inner, submission.module.update_params = submission.module.update_params, update_params
    return submission


def decays_with_its_budget(make):
    """Let the rate fall with the share of the budget that is spent."""

    def update_params(
        *, workload, current_param_container, model_state, optimizer_state, train_state, **_
    ):
        rate = RATE * (1 - train_state["budget_fraction"])
        params = current_param_container - rate * gradient(workload, current_param_container)
        return optimizer_state, params, model_state

    return dataclasses.replace(descend(make, update_params=update_params), wants_train_state=True)


@pytest.mark.parametrize(
    "honest",
    [
        draws_ahead, accumulates_without_declaring, shows_its_average, ends_early,
        decays_with_its_budget,
    ],
)  # fmt: skip
def test_honest_but_unusual_submissions_pass(audit_of, make_gradient_descent, honest):
    record = audit_of(honest(make_gradient_descent), steps=32.0, eval_period=32.0)

    assert record.findings == ()
