"""The step size as a submission: its plan of runs, what it keeps, and where it rests."""

import functools
import math

import jax
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS

WORKLOAD, HINT = "breast_cancer_logistic", 200


@pytest.fixture
def submission():
    return load_submission("metaopt_step_size", SUBMISSIONS)


@pytest.fixture
def watched(submission, monkeypatch):
    """Record the state and the parameters after every call of ``update_params``."""
    calls, update_params = [], submission.module.update_params

    @functools.wraps(update_params)
    def watching(**arguments):
        returned = update_params(**arguments)
        (state, _), params, _ = returned
        calls.append(jax.device_get((state, params)))
        return returned

    monkeypatch.setattr(submission.module, "update_params", watching)
    return calls


@pytest.fixture
def run(submission, make_plan, tmp_path):
    """Run it with a budget in step hints; return the record and the evaluation rows."""

    def go(hints, workload=WORKLOAD, eval_period=25.0):
        budget = hints * HINT
        plan = make_plan(
            submission, get_workload(workload), eval_period=eval_period, study_budget=budget,
            trial_budget=budget, allowance=budget, stop_at_target=False,
        )  # fmt: skip
        folder = tmp_path / f"{hints} {workload} {eval_period}"
        record = run_trial(plan, folder)
        return record, records.read_evaluations(folder / records.EVAL_FILE)

    return go


def plan(submission, hints, wins):
    """Return the runs that follow the first, as (hints, factor, decay), for a budget in hints."""
    module, best, found = submission.module, 1.0, []
    run, left = module.Run(float(HINT)), (hints - 1) * HINT
    for won in wins:
        if won and run.stage < module.LONG:
            best = run.factor
        run = module.next_run(run, best, won, HINT, left)
        if run is None:
            break
        left -= run.length
        found.append((round(run.length / HINT, 1), run.factor, round(run.decay, 2)))
    return found


@pytest.mark.parametrize(
    "hints, wins, runs",
    [
        (1.4, [True], []),
        (4, [True] * 3, [(3.0, 1, 1)]),
        (16, [True] * 9, [(1, 2, 1), (2, 2, 1), (11.9, 2, 1)]),
        (16, [True, False, True, True, True],
         [(1, 2, 1), (1, 0.5, 1), (2, 0.5, 1), (10.9, 0.5, 1)]),
        (9, [True] + [False] * 9,
         [(1, 2, 1), (1, 0.5, 1), (2, 1, 1), (1, 2, 1), (1, 1, 3), (1, 1, 0.33), (1, 1, 1)]),
    ],
)  # fmt: skip
def test_runs_follow_the_plan_of_the_budget(submission, hints, wins, runs):
    found = plan(submission, hints, wins)

    assert [run[1:] for run in found] == [run[1:] for run in runs]
    np.testing.assert_allclose([run[0] for run in found], [run[0] for run in runs], atol=0.11)


def test_without_a_known_budget_runs_follow_each_other_for_ever(submission):
    run = submission.module.Run(float(HINT))

    for _ in range(20):
        run = submission.module.next_run(run, 1.0, True, HINT, math.inf)
        assert math.isfinite(run.length)


def test_with_a_short_budget_it_learns_in_the_first_tenth_of_one_run(run, watched):
    _, rows = run(1.5)

    state, _ = watched[-1]
    assert state.episode == 0
    assert 0.97 * 1.5 * HINT < state.run.length < 1.5 * HINT
    weights = [float(s.many.inner.inner[0].controller.weights) for s, _ in watched]
    moves = [i for i in range(1, len(weights)) if weights[i] != weights[i - 1]]
    assert moves[-1] <= 0.1 * 1.5 * HINT + 1
    assert rows[-1]["validation/loss"] < rows[0]["validation/loss"]


def test_later_runs_begin_afresh_with_what_was_learned_and_learn_nothing(run, watched):
    run(8.2)

    states = [state for state, _ in watched]
    begins = [i for i, state in enumerate(states) if state.steps == 0]
    weights = [float(s.many.inner.inner[0].controller.weights) for s in states]
    learned = weights[begins[0] - 1]
    assert len(begins) >= 3
    for begin, end in zip(begins, [*begins[1:], len(states)], strict=True):
        assert len({*weights[begin:end]}) == 1
        factor = np.exp(weights[begin] - learned)
        assert factor == pytest.approx(states[begin].run.factor, rel=1e-4)
        assert not any(leaf.any() for leaf in jax.tree.leaves(watched[begin][1]))  # as they start


def test_it_ends_at_the_best_run(run, watched):
    record, rows = run(4.0)

    state, params = watched[-1]
    assert state.resting
    jax.tree.map(np.testing.assert_array_equal, params, state.best_params)
    at_first_end = next(r for r in rows if r["global_step"] >= HINT)
    assert rows[-1]["validation/loss"] <= at_first_end["validation/loss"] + 1e-6
    assert record.ledger.cost.gradient_evaluations == 4 * HINT


@pytest.mark.parametrize(
    "workload, better",
    [("breast_cancer_logistic", 0.1), ("mini_vit", 0.9)],
    ids=["loss", "accuracy"],
)
def test_runs_are_compared_in_the_direction_of_the_metric(submission, workload, better):
    module, workload = submission.module, get_workload(workload)
    params, model_state = workload.init_model_fn(jax.random.PRNGKey(0))
    state, _ = module.init_optimizer_state(workload, params, model_state, None, None)
    name = f"validation/{workload.target_metric_name}"

    found = []
    for value in (0.5, better, 1.0 - better, better):
        state, won = module._finish(state, workload, params, model_state, [(1, {name: value})])
        found.append(won)

    assert found == [True, True, False, False]


def test_evaluations_see_an_average_and_training_does_not_notice(run, watched):
    _, often = run(0.5)
    trained = [params for _, params in watched]
    watched.clear()
    _, seldom = run(0.5, eval_period=50.0)

    for (_, one), other in zip(watched, trained, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    often = {row["global_step"]: row["validation/loss"] for row in often}
    assert all(often[row["global_step"]] == row["validation/loss"] for row in seldom)
    workload, (state, params) = get_workload(WORKLOAD), watched[-1]
    assert state.steps == HINT / 2
    values = [
        workload.eval_model(200, x, None, jax.random.PRNGKey(0), "", "", 0)["validation/loss"]
        for x in (state.many.average, params)
    ]
    assert values[0] == pytest.approx(often[HINT / 2], rel=1e-6)
    assert values[1] != pytest.approx(often[HINT / 2], rel=1e-6)


def test_on_a_fixed_batch_it_trains_in_one_run_that_never_ends(run, watched):
    _, rows = run(3.0, f"{WORKLOAD}_fixed")

    states = [state for state, _ in watched]
    assert [state.fixed for state in states[:3]] == [False, True, True]
    assert (states[-1].episode, states[-1].resting) == (0, False)
    assert {row["phase"] for row in rows} == {"learning"}
    assert rows[-1]["validation/loss"] < 1e-5


def test_it_says_when_it_learns(run):
    _, rows = run(2.5)

    phases = [row["phase"] for row in rows]
    assert phases[0] == "learning"
    assert phases == sorted(phases, reverse=True)  # "learning", then "deployed"
    assert rows[-1]["episode"] == 1
