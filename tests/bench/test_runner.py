"""The runner: when trials end, what they cost, what they leave on disk."""

import dataclasses
import json
import math
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.measure.targets import Target
from metaopt.bench.trial import resuming
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def closed_form(steps, rate=0.1):
    a = np.array(WORKLOAD.curvatures)
    return 0.5 * np.sum(a * (1 - rate * a) ** (2 * np.asarray(steps)[:, None]), axis=1)


def test_losses_are_the_closed_form_at_every_evaluation(tmp_path, make_plan, make_gradient_descent):
    record = run_trial(make_plan(make_gradient_descent(), WORKLOAD), tmp_path)

    rows = records.read_evaluations(tmp_path / "eval_measurements.csv")
    steps = [row["global_step"] for row in rows]
    assert steps == list(range(10, 101, 10))
    np.testing.assert_allclose(
        [row["validation/loss"] for row in rows], closed_form(steps), rtol=1e-5
    )
    assert record.status == "trial_budget"
    assert record.ledger.cost.steps == record.ledger.cost.gradient_evaluations == 100
    assert record == records.read_trial(tmp_path / "run.json")


def test_a_trial_ends_at_its_target_and_meeting_it_exactly_counts(
    tmp_path, make_plan, make_gradient_descent
):
    run_trial(make_plan(make_gradient_descent(), WORKLOAD), tmp_path / "before")
    rows = records.read_evaluations(tmp_path / "before" / "eval_measurements.csv")
    target = Target("validation/loss", rows[3]["validation/loss"], "lower")

    record = run_trial(
        make_plan(make_gradient_descent(), WORKLOAD, target=target), tmp_path / "after"
    )

    assert record.status == "target"
    assert record.reached.cost.steps == record.ledger.cost.steps == 40


def test_the_allowance_cuts_a_trial_between_evaluations(tmp_path, make_plan, make_gradient_descent):
    plan = make_plan(make_gradient_descent(), WORKLOAD, allowance=37.0)

    record = run_trial(plan, tmp_path)

    assert record.status == "study_budget"
    assert record.ledger.cost.steps == 37
    rows = records.read_evaluations(tmp_path / "eval_measurements.csv")
    assert [row["global_step"] for row in rows] == [10, 20, 30, 37]


@pytest.mark.parametrize("currency", ["steps", "gradient_evaluations", "seconds"])
def test_declared_costs_end_a_trial_within_one_period_in_every_currency(
    tmp_path, make_plan, make_gradient_descent, clock, currency
):
    count = {"steps": 0}

    def before_step(_):
        count["steps"] += 1
        clock.advance(0.5)

    submission = make_gradient_descent(
        before_step=before_step,
        report=lambda state: {
            "gradient_evaluations": 5.0 * count["steps"],
            "episode": 0,
            "phase": "learning",
        },
    )
    plan = make_plan(submission, WORKLOAD, currency=currency, eval_period=10.0)

    record = run_trial(plan, tmp_path, clock=clock)

    assert 100 <= record.ledger.cost.amount(currency) < 100 + 10
    assert record.ledger.declared
    assert record.ledger.cost.gradient_evaluations == 5 * record.ledger.cost.steps
    assert record.ledger.cost.seconds == 0.5 * record.ledger.cost.steps


def test_undeclared_steps_cost_their_examples_over_the_reference_batch(
    tmp_path, make_plan, make_gradient_descent
):
    workload = Quadratic(curvatures=(1.0,), reference_batch_size=4)

    record = run_trial(make_plan(make_gradient_descent(), workload, allowance=10.0), tmp_path)

    assert record.ledger.cost.steps == 40
    assert record.ledger.examples == 40
    assert not record.ledger.declared


@pytest.mark.parametrize("names", [(), ("digits_mlp",), ("digits_mlp", "quadratic")])
def test_a_record_says_whether_the_submission_was_designed_with_the_workload(
    names, tmp_path, make_plan, make_gradient_descent
):
    submission = dataclasses.replace(make_gradient_descent(), developed_on=names)

    record = run_trial(make_plan(submission, Quadratic(curvatures=(1.0,))), tmp_path)

    assert record.developed_here is ("quadratic" in names)


def test_episode_costs_count_from_the_restart(tmp_path, make_plan, make_gradient_descent):
    count = {"steps": 0}
    submission = make_gradient_descent(
        before_step=lambda _: count.update(steps=count["steps"] + 1),
        report=lambda state: {
            "gradient_evaluations": float(count["steps"]),
            "episode": (count["steps"] - 1) // 30,
            "phase": "learning",
        },
    )
    target = Target("validation/loss", float(closed_form([50])[0] * 1.00001), "lower")

    record = run_trial(make_plan(submission, WORKLOAD, target=target), tmp_path)

    assert record.reached.cost.steps == 50
    assert record.reached.episode_cost.steps == 20


def test_the_clock_waits_for_the_device(tmp_path, make_plan, make_gradient_descent):
    # The step returns at once and leaves slow work queued; none of it may land in the evaluation.
    def slow(x):
        time.sleep(0.02)
        return x

    @jax.jit
    def step(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(slow, shape, x)

    submission = make_gradient_descent()
    submission.module.update_params = (
        lambda *, optimizer_state, current_param_container, model_state, **_: (
            optimizer_state,
            step(current_param_container),
            model_state,
        )
    )
    jax.block_until_ready(step(jnp.ones(2)))

    record = run_trial(make_plan(submission, WORKLOAD, allowance=20.0, eval_period=20.0), tmp_path)

    assert record.ledger.cost.seconds >= 20 * 0.02
    assert record.ledger.evaluation_seconds < 5 * 0.02


def test_compilation_is_charged_and_recorded_on_its_own(tmp_path, make_plan, make_gradient_descent):
    def compile_something(step):
        if step == 0:
            jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((17, 19))).block_until_ready()

    submission = make_gradient_descent(before_step=compile_something)

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert 0 < record.ledger.compilation_seconds < record.ledger.cost.seconds


def raise_at(step_of_harm, exception):
    def before_step(step):
        if step == step_of_harm:
            raise exception

    return before_step


@pytest.mark.parametrize(
    "exception, status",
    [
        (KeyError("lost"), "crashed"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), "out_of_memory"),
    ],
)
def test_what_raises_becomes_a_record_at_the_cost_it_had(
    tmp_path, make_plan, make_gradient_descent, exception, status
):
    submission = make_gradient_descent(before_step=raise_at(25, exception))

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == status
    assert record.status in records.FAILURES
    assert record.ledger.cost.steps == 25
    assert type(exception).__name__ in record.error
    assert record.reached is None


def test_a_nan_is_a_divergence_and_never_a_number(tmp_path, make_plan, make_gradient_descent):
    record = run_trial(make_plan(make_gradient_descent(rate=1e30), WORKLOAD), tmp_path)

    assert record.status == "diverged"
    assert record.reached is None
    assert record.best is None
    rows = records.read_evaluations(tmp_path / "eval_measurements.csv")
    assert math.isnan(rows[-1]["validation/loss"])


def test_training_complete_ends_a_run_with_a_last_evaluation(
    tmp_path, make_plan, make_gradient_descent
):
    submission = make_gradient_descent(before_step=raise_at(15, TrainingCompleteError()))

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "completed"
    rows = records.read_evaluations(tmp_path / "eval_measurements.csv")
    assert [row["global_step"] for row in rows] == [10, 15]


@pytest.mark.parametrize(
    "returned, message",
    [
        (lambda state, params, model: (state, params), "must return"),
        (lambda state, params, model: None, "must return"),
        (lambda state, params, model: (state, params[:1], model), "changed the structure"),
        (lambda state, params, model: (state, params.astype(jnp.float16), model), "dtypes"),
        (lambda state, params, model: ({"nothing": 0}, params, model), "the optimizer state as"),
    ],
    ids=["pair", "nothing", "other shape", "other dtype", "other state"],
)
def test_breaking_the_contract_is_named(
    tmp_path, make_plan, make_gradient_descent, returned, message
):
    submission = make_gradient_descent()
    submission.module.update_params = (
        lambda *, optimizer_state, current_param_container, model_state, **_: returned(
            optimizer_state, current_param_container, model_state
        )
    )

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert message in record.error


@pytest.mark.parametrize(
    "function, returned, message",
    [
        ("init_optimizer_state", lambda *_: {"nothing": 0}, "init_optimizer_state must return"),
        ("prepare_for_eval", lambda **_: None, "prepare_for_eval must return"),
    ],
)
def test_what_breaks_the_contract_outside_of_the_step_is_named_too(
    tmp_path, make_plan, make_gradient_descent, function, returned, message
):
    submission = make_gradient_descent()
    setattr(submission.module, function, returned)

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert message in record.error


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


def test_train_state_goes_to_those_who_name_it_and_tells_the_share_of_the_budget(
    tmp_path, make_plan, make_gradient_descent
):
    shares = []
    submission = dataclasses.replace(make_gradient_descent(), wants_train_state=True)
    plain = submission.module.update_params

    def update_params(*, train_state, **arguments):
        shares.append(train_state["budget_fraction"])
        with pytest.raises(TypeError):
            train_state["budget_fraction"] = 0.0
        return plain(**arguments)

    submission.module.update_params = update_params

    run_trial(make_plan(submission, WORKLOAD), tmp_path)

    np.testing.assert_allclose(shares, np.arange(100) / 100)


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


def counting_submission(make_gradient_descent, ruleset="self-tuning", **declared):
    """Return gradient descent that declares one gradient evaluation a step, or as given."""
    count = {"steps": 0}

    def before_step(_):
        count["steps"] += 1

    def report(_):
        said = {"gradient_evaluations": float(count["steps"]), "episode": 0, "phase": "training"}
        return said | {name: value(count["steps"]) for name, value in declared.items()}

    submission = make_gradient_descent(before_step=before_step, report=report)
    return dataclasses.replace(submission, ruleset=ruleset), count


def test_a_submission_cannot_rewrite_its_evaluations(tmp_path, make_plan, make_gradient_descent):
    submission = make_gradient_descent()
    update_params = submission.module.update_params

    def forging(*, eval_results, **arguments):
        for _, row in eval_results:
            row["validation/loss"] = -5.0
        return update_params(**arguments)

    submission.module.update_params = forging

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.reached is None
    assert record.best == pytest.approx(closed_form([100])[0], rel=1e-5)


def test_what_prepare_for_eval_spends_is_charged(tmp_path, make_plan, make_gradient_descent):
    submission, count = counting_submission(make_gradient_descent)

    def prepare_for_eval(*, optimizer_state, current_param_container, model_state, **_):
        count["steps"] += 50
        return optimizer_state, current_param_container, model_state

    submission.module.prepare_for_eval = prepare_for_eval
    target = Target("validation/loss", 1e9, "lower")

    record = run_trial(make_plan(submission, WORKLOAD, target=target), tmp_path)

    assert record.reached.cost.gradient_evaluations == 10 + 50
    assert record.ledger.largest_step == 50


def test_restarts_are_on_the_ledger(tmp_path, make_plan, make_gradient_descent):
    submission, _ = counting_submission(
        make_gradient_descent, restarts=lambda steps: jnp.int32(steps // 7)
    )

    assert run_trial(make_plan(submission, WORKLOAD), tmp_path).ledger.restarts == 100 // 7


def test_only_what_tunes_itself_has_episodes(tmp_path, make_plan, make_gradient_descent):
    target = Target("validation/loss", float(closed_form([30])[0] * 1.00001), "lower")
    costs = {}
    for ruleset in ("external", "self-tuning"):
        submission, _ = counting_submission(
            make_gradient_descent, ruleset, episode=lambda steps: steps
        )
        plan = make_plan(submission, WORKLOAD, target=target)
        reached = run_trial(plan, tmp_path / ruleset).reached
        costs[ruleset] = reached.episode_cost.gradient_evaluations

    assert costs == {"external": 30.0, "self-tuning": 1.0}


@pytest.mark.parametrize(
    "declared, message",
    [
        ({"gradient_evaluations": lambda steps: math.inf}, "cumulative number"),
        ({"gradient_evaluations": lambda steps: math.nan}, "cumulative number"),
        ({"gradient_evaluations": lambda steps: -steps}, "cumulative number"),
        ({"gradient_evaluations": lambda steps: 0.0}, "no gradient evaluation in 1000 steps"),
        ({"episode": lambda steps: None}, r"report\(\) must return numbers"),
        ({"restarts": lambda steps: "few"}, "must give 'restarts' as a number, got 'few'"),
        ({"restarts": lambda steps: -steps}, "cumulative number of 'restarts', got -10 after 0"),
    ],
    ids=[
        "infinite",
        "NaN",
        "falling",
        "standing still",
        "no episode",
        "no number",
        "negative",
    ],
)
def test_a_report_that_makes_no_sense_is_refused(
    tmp_path, make_plan, make_gradient_descent, declared, message
):
    submission, _ = counting_submission(make_gradient_descent, **declared)
    submission.module.data_selection = lambda *_: {}  # a batch that is drawn is charged

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "invalid"
    assert re.search(message, record.error)


def test_a_submission_that_exits_has_crashed(tmp_path, make_plan, make_gradient_descent):
    submission = make_gradient_descent(before_step=raise_at(5, SystemExit(0)))

    assert run_trial(make_plan(submission, WORKLOAD), tmp_path).status == "crashed"


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
    tmp_path, make_plan, make_gradient_descent
):
    def slow(x):
        time.sleep(0.02)
        return x

    @jax.jit
    def step(x):
        return jax.pure_callback(slow, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    submission = make_gradient_descent()
    submission.module.update_params = (
        lambda *, optimizer_state, current_param_container, model_state, **_: (
            optimizer_state,
            step(current_param_container),
            model_state,
        )
    )
    jax.block_until_ready(step(jnp.ones(2)))
    plan = make_plan(
        submission, WORKLOAD, currency="seconds", study_budget=1.0, trial_budget=1.0,
        allowance=1.0, eval_period=0.2,
    )  # fmt: skip

    record = run_trial(plan, tmp_path)

    rows = records.read_evaluations(tmp_path / records.EVAL_FILE)
    assert len(rows) >= 5  # after the first step, and in every period but the last
    assert record.ledger.cost.seconds <= 1.0 + 0.2


def test_train_state_tells_what_algoperf_tells(tmp_path, make_plan, make_gradient_descent, clock):
    submission = make_gradient_descent(before_step=lambda _: clock.advance(1.0))
    submission = dataclasses.replace(submission, wants_train_state=True)
    plain, seen = submission.module.update_params, []

    def update_params(*, train_state, **arguments):
        seen.append(dict(train_state))
        return plain(**arguments)

    submission.module.update_params = update_params
    met_at_30 = Target("test/loss", float(closed_form([30])[0] * 1.00001), "lower")

    run_trial(make_plan(submission, WORKLOAD, test_target=met_at_30), tmp_path, clock=clock)

    assert [state["accumulated_submission_time"] for state in seen] == list(range(100))
    assert [state["test_goal_reached"] for state in seen] == [False] * 30 + [True] * 70
    assert not any(state["validation_goal_reached"] for state in seen)
    assert seen[0]["last_eval_time"] == 0.0 < seen[50]["last_eval_time"]
