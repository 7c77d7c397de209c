"""What every submission must do, over everything found on disk."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract import kit
from metaopt.bench.contract.loading import find_submissions, load_submission
from metaopt.bench.rules.check import check
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS

FOLDERS = find_submissions(SUBMISSIONS)
NAMES = sorted(FOLDERS)
# Submissions with a step or a state of their own, and one that stands for all others of the kit.
DISTINCT = ["adamw", "metaopt", "metaopt_averages", "metaopt_step_size", "schedule_free_adamw"]
EXTERNAL = [name for name in NAMES if FOLDERS[name].parent.name == "external_tuning"]


def load(name):
    return load_submission(name, SUBMISSIONS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "metaopt_averages"))
        for name in [*NAMES, "template"]
    ],
)
def test_no_rule_is_broken(name):
    folder = FOLDERS.get(name, SUBMISSIONS / name)

    found = check(folder, workload=get_workload("breast_cancer_logistic")).findings

    rules = {finding.rule for finding in found}
    # Some need an optax that AlgoPerf has not.
    needing = "ademamix", "dog", "momo_adam", "muon", "schedule_free_adamw", "schedule_free_plus"
    newer = {"requirements"} if name in needing else set()
    assert rules - {"early-return"} == newer
    # All of them leave the waiting to the runner; JAX 0.7.0 may wait for what a step donates.
    assert "early-return" in rules or jax.__version__ == "0.7.0"
    assert {finding.severity for finding in found} <= {"note"}


def test_the_template_knows_every_workload_that_the_kit_knows():
    module = load(SUBMISSIONS / "template").module

    assert {name: module.get_batch_size(name) for name in kit.BATCH_SIZES} == kit.BATCH_SIZES


@pytest.mark.parametrize("name", NAMES)
def test_the_second_part_of_the_state_is_always_the_same_function(name):
    workload, module = get_workload("breast_cancer_logistic"), load(name).module
    params, model_state = workload.init_model_fn(jax.random.PRNGKey(0))

    states = [
        module.init_optimizer_state(workload, params, model_state, None, jax.random.PRNGKey(seed))
        for seed in (0, 1)
    ]

    assert states[0][1] is states[1][1]


@pytest.mark.parametrize(
    "name, workload",
    [(name, "breast_cancer_logistic") for name in NAMES]
    + [(name, "digits_mlp_fixed") for name in DISTINCT],
)
def test_a_run_trains_and_repeats_to_the_last_bit(name, workload, tmp_path, make_plan):
    losses = []
    for attempt in ("one", "two"):
        submission = load(name)
        point = submission.defaults if submission.ruleset == "external" else None
        plan = make_plan(submission, get_workload(workload), hyperparameters=point)
        record = run_trial(plan, tmp_path / attempt)
        assert record.error is None
        rows = records.read_evaluations(tmp_path / attempt / records.EVAL_FILE)
        losses.append([row["train/loss"] for row in rows])

    assert losses[0] == losses[1]
    assert min(losses[0]) < 0.9 * losses[0][0]


@pytest.mark.parametrize(
    "name, killed_at",
    [(name, 45) for name in NAMES] + [(name, at) for name in DISTINCT for at in (5, 70, 250)],
    ids=lambda value: f"killed at step {value}" if isinstance(value, int) else value,
)
def test_a_killed_run_goes_on_to_the_numbers_of_an_unbroken_one(
    name, killed_at, tmp_path, make_plan, monkeypatch, killed
):
    submission = load(name)
    point = submission.defaults if submission.ruleset == "external" else None
    plan = make_plan(
        submission, get_workload("breast_cancer_logistic"), hyperparameters=point,
        study_budget=900.0, trial_budget=900.0, allowance=900.0,
    )  # fmt: skip
    unbroken = run_trial(plan, tmp_path / "unbroken")
    update_params = submission.module.update_params

    @functools.wraps(update_params)  # its signature says whether it wants train_state
    def killed_once(*, global_step, **arguments):
        if global_step == killed_at:
            raise killed
        return update_params(global_step=global_step, **arguments)

    monkeypatch.setattr(submission.module, "update_params", killed_once)
    with pytest.raises(killed):
        run_trial(plan, tmp_path / "broken", checkpoint_seconds=0.0)
    monkeypatch.undo()
    resumed = run_trial(plan, tmp_path / "broken", checkpoint_seconds=0.0)

    rows, again = (
        records.read_evaluations(tmp_path / run / records.EVAL_FILE)
        for run in ("unbroken", "broken")
    )
    exact = [column for column in rows[0] if "time" not in column and "second" not in column]
    exact = [c for c in exact if c not in ("score", "total_duration", "preemption_count")]
    assert [[row[c] for c in exact] for row in rows] == [[row[c] for c in exact] for row in again]
    assert resumed.ledger.cost.steps == unbroken.ledger.cost.steps
    assert (unbroken.preemptions, resumed.preemptions) == (0, 1)


@pytest.mark.parametrize("name", EXTERNAL)
def test_two_points_compile_once(name, tmp_path, make_plan):
    workload, submission = get_workload("breast_cancer_logistic"), load(name)
    lower = {**submission.defaults, "learning_rate": 1e-4}

    run_trial(make_plan(submission, workload, hyperparameters=submission.defaults), tmp_path / "1")
    record = run_trial(make_plan(submission, workload, hyperparameters=lower), tmp_path / "2")

    assert record.ledger.compilation_seconds == 0.0


@pytest.mark.parametrize("name", EXTERNAL)
def test_an_unknown_hyperparameter_is_refused_by_name(name, tmp_path, make_plan):
    plan = make_plan(load(name), get_workload("digits_mlp"), hyperparameters={"speed": 1.0})

    record = run_trial(plan, tmp_path)

    assert record.status == "crashed"
    assert "Unknown hyperparameters ['speed'], known are" in record.error


@pytest.mark.parametrize("name", NAMES)
def test_submission_info_has_algoperfs_fields(name, root):
    folder = find_submissions(root / "submissions")[name]
    lines = (folder / "submission_info.yml").read_text().splitlines()
    info = {}
    for line in lines:  # upstream cuts at '#' and reads one key a line
        key, _, value = line.partition("#")[0].partition(":")
        info[key.strip()] = json.loads(value)

    assert re.fullmatch(r"[a-z_]+/[a-z0-9_]+", info["submission_folder"])
    assert info["submission_folder"] == str(folder.relative_to(root / "submissions"))
    assert info["ruleset"] == load(name).ruleset
    assert info["framework"] == "JAX"
    assert all(info[key] for key in ("submission_name", "authors", "version", "description"))


def quadratic_steps(name, point, steps):
    """Return the iterates of a baseline on the gradients of a quadratic with curvatures a."""
    import jax.numpy as jnp

    a, x = jnp.array([1.0, 5.0]), jnp.array([1.0, 1.0])
    transformation = load(name).module.optimizer(100, **point)
    state, iterates = transformation.init(x), [x]
    for _ in range(steps):
        updates, state = transformation.update(a * x, state, x)
        x = x + updates
        iterates.append(x)
    return np.array(iterates, np.float64)


CONSTANT = {"warmup_factor": 0.0, "end_factor": 1.0}


def test_sgd_with_coupled_decay_has_its_closed_form():
    point = {"learning_rate": 0.1, "weight_decay": 0.5, **CONSTANT}

    iterates = quadratic_steps("sgd", point, 20)

    t = np.arange(21)[:, None]
    np.testing.assert_allclose(iterates, (1 - 0.1 * (np.array([1, 5]) + 0.5)) ** t, rtol=1e-4)


def test_momentum_is_heavy_ball_by_hand():
    point = {"learning_rate": 0.1, "one_minus_momentum": 0.1, "weight_decay": 0.5, **CONSTANT}

    iterates = quadratic_steps("momentum", point, 20)

    x, v = np.ones(2), np.zeros(2)
    for iterate in iterates[1:]:
        v = 0.9 * v + (np.array([1, 5]) + 0.5) * x
        x = x - 0.1 * v
        np.testing.assert_allclose(iterate, x, rtol=1e-4, atol=1e-6)


def test_adamw_is_adam_with_decoupled_decay_by_hand():
    point = {
        "learning_rate": 0.01, "one_minus_beta1": 0.1, "one_minus_beta2": 0.01,
        "weight_decay": 0.5, **CONSTANT,
    }  # fmt: skip

    iterates = quadratic_steps("adamw", point, 20)

    x, m, s = np.ones(2), np.zeros(2), np.zeros(2)
    for t, iterate in enumerate(iterates[1:], start=1):
        g = np.array([1, 5]) * x
        m, s = 0.9 * m + 0.1 * g, 0.99 * s + 0.01 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.99**t)) + 1e-8)
        x = x - 0.01 * (step + 0.5 * x)
        np.testing.assert_allclose(iterate, x, rtol=1e-4)


def test_the_schedule_warms_up_and_falls_to_its_end():
    from metaopt.bench.contract.kit import warmup_cosine

    schedule = warmup_cosine(2.0, 100, 0.1, 0.25)

    rates = [float(schedule(count)) for count in (0, 4, 50, 100, 1000)]

    middle = 2.0 * (0.25 + 0.75 * 0.5)
    near_start = 2.0 * 0.5 * (0.25 + 0.75 * (1 + np.cos(0.04 * np.pi)) / 2)
    np.testing.assert_allclose(rates, [0.2, near_start, middle, 0.5, 0.5], rtol=1e-4)
