"""The runner: when trials end, what they cost, what they leave on disk."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.measure.targets import Target
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


def raise_at(step_of_harm, exception):
    def before_step(step):
        if step == step_of_harm:
            raise exception

    return before_step


def test_training_complete_ends_a_run_with_a_last_evaluation(
    tmp_path, make_plan, make_gradient_descent
):
    submission = make_gradient_descent(before_step=raise_at(15, TrainingCompleteError()))

    record = run_trial(make_plan(submission, WORKLOAD), tmp_path)

    assert record.status == "completed"
    rows = records.read_evaluations(tmp_path / "eval_measurements.csv")
    assert [row["global_step"] for row in rows] == [10, 15]


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
