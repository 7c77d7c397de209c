"""The clock: seconds that are charged, and budgets in seconds."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.measure.targets import Target
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def queues_steps(make_gradient_descent, later):
    """Return a submission whose steps return at once and leave slow work queued."""
    submission = make_gradient_descent()
    submission.module.update_params = (
        lambda *, optimizer_state, current_param_container, model_state, **_: (
            optimizer_state, later(current_param_container), model_state,
        )
    )  # fmt: skip
    return submission


def test_the_clock_waits_for_the_device(tmp_path, make_plan, make_gradient_descent, later):
    submission = queues_steps(make_gradient_descent, later)
    plan = make_plan(submission, WORKLOAD, allowance=20.0, eval_period=5.0)
    start = time.perf_counter()

    record = run_trial(plan, tmp_path)

    ledger, wall = record.ledger, time.perf_counter() - start
    assert ledger.cost.seconds > 0.5 * wall  # of which steps are nearly all
    assert ledger.evaluation_seconds < 0.25 * wall


def test_work_that_a_step_has_queued_and_not_returned_does_not_run_beside_an_evaluation(
    tmp_path, make_plan, make_gradient_descent, later
):
    kept, done = [jnp.ones(2)], []
    submission = make_gradient_descent()
    step = submission.module.update_params

    def update_params(**arguments):
        returned = jax.block_until_ready(step(**arguments)[1:])
        for _ in range(8):
            kept.append(later(kept[-1]))
        return arguments["optimizer_state"], *returned

    class Watched(Quadratic):
        def eval_model(self, *arguments):
            done.append(all(array.is_ready() for array in kept))
            return super().eval_model(*arguments)

    submission.module.update_params = update_params
    run_trial(make_plan(submission, Watched(), allowance=6.0, eval_period=2.0), tmp_path)

    assert done == [True] * 3


def test_compilation_is_charged_and_recorded_on_its_own(tmp_path, make_plan, make_gradient_descent):
    def compile_something(step):
        if step == 0:
            jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((17, 19))).block_until_ready()

    submission = make_gradient_descent(before_step=compile_something)

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert 0 < record.ledger.compilation_seconds < record.ledger.cost.seconds


def test_budgets_in_gradient_evaluations_read_no_clock_for_a_decision(
    tmp_path, make_plan, make_gradient_descent, clock
):
    generator = np.random.default_rng(0)
    submission = make_gradient_descent(before_step=lambda _: clock.advance(generator.random()))

    for name in ("one", "two"):
        run_trial(make_plan(submission, WORKLOAD), tmp_path / name, clock=clock)

    one, two = (
        [
            row["global_step"]
            for row in records.read_evaluations(tmp_path / name / records.EVAL_FILE)
        ]
        for name in ("one", "two")
    )
    assert one == two


def test_budgets_in_seconds_are_evaluated_after_the_first_step_and_not_beyond_the_end(
    tmp_path, make_plan, make_gradient_descent, clock
):
    submission = make_gradient_descent(before_step=lambda _: clock.advance(3.0))
    plan = make_plan(submission, WORKLOAD, currency="seconds")

    record = run_trial(plan, tmp_path, clock=clock)

    rows = records.read_evaluations(tmp_path / records.EVAL_FILE)
    times = [row["accumulated_submission_time"] for row in rows]
    assert times[0] == 3.0
    assert max(times) <= 100.0
    assert record.ledger.cost.seconds == 102.0  # the step that crossed the line


def test_given_tuned_leaves_compilation_out(tmp_path, make_plan, make_gradient_descent):
    def compile_something(step):
        if step == 0:
            jax.jit(lambda x: jnp.cos(x) @ jnp.sin(x).T)(jnp.ones((18, 21))).block_until_ready()

    target = Target("validation/loss", 1e9, "lower")
    submission = make_gradient_descent(before_step=compile_something)

    record = run_trial(make_plan(submission, WORKLOAD, target=target), tmp_path)

    cost, given = record.reached.cost.seconds, record.reached.episode_cost.seconds
    assert given == pytest.approx(cost - record.ledger.compilation_seconds)
    assert given < cost


def test_a_budget_in_seconds_does_not_run_ahead_of_the_device(
    tmp_path, make_plan, make_gradient_descent, later
):
    submission = queues_steps(make_gradient_descent, later)
    plan = make_plan(
        submission, WORKLOAD, currency="seconds", study_budget=1.0, trial_budget=1.0,
        allowance=1.0, eval_period=0.2,
    )  # fmt: skip

    record = run_trial(plan, tmp_path)

    rows = records.read_evaluations(tmp_path / records.EVAL_FILE)
    assert len(rows) >= 4  # after the first step, and in most periods
    assert record.ledger.cost.seconds <= 1.0 + 0.2
