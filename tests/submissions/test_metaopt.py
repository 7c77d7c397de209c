"""The paper's meta-optimization as a submission: when it learns, when it deploys, what it costs."""

import functools
import itertools

import jax
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.loading import load_submission
from metaopt.bench.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS

BUDGET = 900.0


@pytest.fixture
def submission():
    return load_submission("metaopt", SUBMISSIONS)


@pytest.fixture
def watched(submission, monkeypatch):
    """Record what every call of ``update_params`` was given: batch, state before, parameters."""
    calls, update_params = [], submission.module.update_params

    @functools.wraps(update_params)
    def watching(*, batch, optimizer_state, current_param_container, **arguments):
        calls.append(jax.device_get((batch, optimizer_state[0], current_param_container)))
        return update_params(
            batch=batch, optimizer_state=optimizer_state,
            current_param_container=current_param_container, **arguments,
        )  # fmt: skip

    monkeypatch.setattr(submission.module, "update_params", watching)
    return calls


@pytest.fixture
def run(submission, make_plan, tmp_path):
    """Run it on a workload; return the record and the evaluation rows."""

    def go(workload="breast_cancer_logistic", budget=BUDGET):
        plan = make_plan(
            submission, get_workload(workload), eval_period=1.0, study_budget=budget,
            trial_budget=budget, allowance=budget,
        )  # fmt: skip
        record = run_trial(plan, tmp_path)
        return record, records.read_evaluations(tmp_path / records.EVAL_FILE)

    return go


def test_it_learns_then_deploys_and_never_learns_again(run):
    record, rows = run()

    phases = [row["phase"] for row in rows]
    assert record.error is None
    assert phases == sorted(phases, reverse=True)  # learning, then deployed
    assert set(phases) == {"learning", "deployed"}
    episodes = [row["episode"] for row in rows]
    assert episodes == sorted(episodes)
    assert all(row["episode"] == episodes[-1] for row in rows if row["phase"] == "deployed")


def test_it_learns_on_one_batch_and_deploys_on_new_ones(run, watched):
    run()

    learning = [batch for batch, state, _ in watched if state.learning]
    deployed = [batch for batch, state, _ in watched if not state.learning]
    assert all(np.array_equal(b["inputs"], learning[0]["inputs"]) for b in learning)
    pairs = itertools.pairwise(deployed)
    assert not any(np.array_equal(a["inputs"], b["inputs"]) for a, b in pairs)


def test_every_episode_starts_from_parameters_of_its_own(run, watched):
    run("digits_mlp", budget=2500.0)

    starts = {}
    for _, state, params in watched:
        if state.steps == 0:
            starts.setdefault(state.episode, params["hidden_0"]["kernel"])
    assert len(starts) >= 3
    first, *others = starts.values()
    assert not any(np.array_equal(first, other) for other in others)


def test_what_it_declares_is_what_its_steps_cost(run, submission, watched):
    record, _ = run()

    module, total = submission.module, 0
    episode_steps = module._episode_steps(get_workload("breast_cancer_logistic"))
    first_rollout = module.HISTORY + module.ROLLOUT - 1
    for _, state, _ in watched:
        if state.learning and state.steps == episode_steps:
            continue  # a restart is no step
        total += 3 * module.ROLLOUT - 1 if state.learning and state.steps >= first_rollout else 1
    assert record.ledger.cost.gradient_evaluations == total
    assert record.ledger.declared


def test_it_deploys_at_half_of_the_budget_at_the_latest(run, submission):
    _, rows = run()

    deployed = next(row for row in rows if row["phase"] == "deployed")
    episode = 5 * submission.module._episode_steps(get_workload("breast_cancer_logistic"))
    assert deployed["gradient_evaluations"] <= BUDGET / 2 + episode


def test_a_learned_controller_is_not_touched_once_it_is_deployed(run, watched):
    run()

    weights = [np.asarray(s.optimizer.weights) for _, s, _ in watched if not s.learning]
    assert len(weights) > 100
    assert np.abs(weights[0]).max() > 0
    assert all(np.array_equal(weights[0], other) for other in weights)


def test_without_a_word_on_the_budget_it_goes_by_the_clock_of_algoperf(submission):
    workload, share = get_workload("digits_mlp"), submission.module._budget_fraction

    assert share(workload, None) == 0.0
    assert share(workload, {"accumulated_submission_time": 7.5}) == 7.5 / (1.5 * 10.0)
    assert share(workload, {"budget_fraction": 0.3, "accumulated_submission_time": 9.0}) == 0.3
