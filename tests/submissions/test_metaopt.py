"""The paper's meta-optimization as a submission: when it learns, when it deploys, what it costs."""

import functools
import itertools
import re

import jax
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS

BUDGET = 900.0


@pytest.fixture
def submission():
    return load_submission("metaopt", SUBMISSIONS)


@pytest.fixture
def watched(submission, monkeypatch):
    """Record what every call of ``update_params`` was given: batch, state before, parameters.

    Arrays of more than 10,000 numbers, the histories, are left out: they would fill gigabytes.
    """
    calls, update_params = [], submission.module.update_params

    def small(leaf):
        return leaf if np.size(leaf) <= 10_000 else None

    @functools.wraps(update_params)
    def watching(*, batch, optimizer_state, current_param_container, **arguments):
        given = batch, optimizer_state[0], current_param_container
        calls.append(jax.device_get(jax.tree.map(small, given)))
        return update_params(
            batch=batch, optimizer_state=optimizer_state,
            current_param_container=current_param_container, **arguments,
        )  # fmt: skip

    monkeypatch.setattr(submission.module, "update_params", watching)
    return calls


@pytest.fixture
def run(submission, make_plan, tmp_path):
    """Run it on a workload; return the record and the evaluation rows."""

    def go(workload="breast_cancer_logistic", budget=BUDGET, **options):
        plan = make_plan(
            submission, get_workload(workload), eval_period=1.0, study_budget=budget,
            trial_budget=budget, allowance=budget, hyperparameters=options or None,
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


def test_every_episode_starts_from_different_fresh_parameters(run, watched):
    run("digits_mlp", budget=2500.0)

    starts = {}
    for _, state, params in watched:
        if state.steps == 0:
            starts.setdefault(state.episode, params["hidden_0"]["kernel"])
    assert len(starts) >= 3
    first, *others = starts.values()
    assert not any(np.array_equal(first, other) for other in others)


def test_declared_cost_equals_the_cost_of_the_steps(run, submission, watched):
    record, _ = run()

    module, total = submission.module, 0
    options = module.Options()
    episode_steps = module._episode_steps(get_workload("breast_cancer_logistic"), options)
    first_rollout = options.history + options.rollout - 1
    for _, state, _ in watched:
        if state.learning and state.steps == episode_steps:
            continue  # a restart is no step
        total += 3 * options.rollout - 1 if state.learning and state.steps >= first_rollout else 1
    assert record.ledger.cost.gradient_evaluations == total
    assert record.ledger.declared


def test_it_deploys_at_half_of_the_budget_at_the_latest(run, submission):
    _, rows = run()

    deployed = next(row for row in rows if row["phase"] == "deployed")
    options = submission.module.Options()
    workload = get_workload("breast_cancer_logistic")
    episode = 5 * submission.module._episode_steps(workload, options)
    assert deployed["gradient_evaluations"] <= BUDGET / 2 + episode


def test_a_deployed_controller_does_not_change(run, watched):
    run()

    weights = [np.asarray(s.deployed.controller.weights) for _, s, _ in watched if not s.learning]
    assert len(weights) > 100
    assert np.abs(weights[0]).max() > 0
    assert all(np.array_equal(weights[0], other) for other in weights)


# Ablations.


def test_so_many_episodes_of_so_many_steps_whatever_they_gain(run):
    _, rows = run(budget=700.0, episodes=3, episode_steps=40)

    learning = [row["episode"] for row in rows if row["phase"] == "learning"]
    assert [learning.count(episode) for episode in (0, 1, 2)] == [40, 40, 40]
    assert {row["episode"] for row in rows if row["phase"] == "deployed"} == {3}


def test_between_updates_of_the_controller_a_step_costs_one(run, watched):
    record, _ = run(
        budget=100.0, history=4, rollout=2, meta_every=3, episodes=1, episode_steps=23,
    )  # fmt: skip

    weights = [np.asarray(s.learner.controller.weights) for _, s, _ in watched[:24] if s.learning]
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(weights)]
    assert [step for step, moved in enumerate(changed) if moved] == [5, 8, 11, 14, 17, 20]
    spent = [state.gradient_evaluations for _, state, _ in watched][:24]
    assert [b - a for a, b in itertools.pairwise(spent)] == [5 if m else 1 for m in changed]
    assert record.ledger.cost.gradient_evaluations == 100


def test_an_unfrozen_controller_learns_on_new_batches_from_recorded_ones(run, watched):
    run(budget=300.0, fixed_batch=False, history=4, episodes=2, episode_steps=30)

    learning = [batch for batch, state, _ in watched if state.learning and state.steps < 30]
    pairs = itertools.pairwise(batch["inputs"] for batch in learning)
    assert len(learning) == 60
    assert not any(np.array_equal(a, b) for a, b in pairs)
    for index, (_, state, _) in enumerate(watched[:30]):
        if index >= 2:
            recorded = state.learner.data[0]["inputs"]
            for age in (1, 2):
                slot = recorded[(index - age) % 2]
                assert np.array_equal(np.ravel(slot), np.ravel(learning[index - age]["inputs"]))


@pytest.mark.parametrize(
    "options",
    [
        {"lags": "diagonal"},
        {"disturbance": "adam"},
        {"meta_optimizer": "sgd", "meta_rate": 1e-3},
        {"learning_rate": 0.4, "weight_decay": 1e-3},
        {"history": 8, "rollout": 4},
    ],
    ids=str,
)
def test_every_ablation_runs_and_is_another_run(run, options):
    record, rows = run(
        budget=800.0, **{"history": 8, "episodes": 2, "episode_steps": 40, **options}
    )

    assert record.error is None
    assert record.hyperparameters["episodes"] == 2
    assert {row["phase"] for row in rows} == {"learning", "deployed"}
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"eta": 0.1}, r"Unknown hyperparameters \['eta'\], known are \['disturbance'"),
        ({"lags": "full"}, r"`lags` must be one of \['diagonal', 'scalar'\], got 'full'"),
        ({"history": 2.5}, r"`history` must be of type int, got 2.5"),
        ({"fixed_batch": 1}, r"`fixed_batch` must be of type bool, got 1"),
        ({"episode_steps": 33}, r"at least history \+ rollout = 34.*got 33"),
        ({"history": 0}, r"`history` must be an integer of at least 1, got 0"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused(run, options, message):
    record, _ = run(budget=50.0, **options)

    assert record.status == "crashed"
    assert re.search(message, record.error)
