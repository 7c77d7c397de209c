"""Every submission trains on every workload of the desk suite, whatever its batches look like."""

import itertools
import math
import os
import tomllib

import jax
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import find_submissions, load_submission
from metaopt.bench.measure.targets import Target
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tests.conftest import ROOT, free_workloads
from tuning.contenders import SUBMISSIONS

DESK = tomllib.loads((ROOT / "tuning/campaigns/desk.toml").read_text())["workloads"]
MINIATURES = [name for name in DESK if name.startswith("mini_")]
NAMES = sorted(find_submissions(SUBMISSIONS))
# Each submission on one miniature and each miniature with one submission, at least.
CHEAP = "mini_criteo", "mini_lm"
PAIRS = [*zip(NAMES, [*MINIATURES, *itertools.islice(itertools.cycle(CHEAP), len(NAMES))],
              strict=False)]  # fmt: skip
# METAOPT_ALL_PAIRS=1 takes all, which lasts over an hour; otherwise three workloads for each
# submission and three submissions at least for each workload.
ALL = [(name, base + form) for base in DESK for name in NAMES for form in ("", "_fixed")]
CHOSEN = [
    (name, DESK[(index + 5 * turn) % len(DESK)] + "_fixed" * (turn == 2))
    for turn in range(3)
    for index, name in enumerate(NAMES)
]
CHOSEN = ALL if os.environ.get("METAOPT_ALL_PAIRS") else sorted(CHOSEN, key=lambda pair: pair[1])
STEPS = 12
# Short episodes, so that some of them end.
OPTIONS = {
    "metaopt": {"history": 2, "episodes": 2, "episode_steps": 4},
    "metaopt_averages": {"episode_steps": 3},
}
# With the default rates of sgd, momentum and hgd, poisson_pinn diverges.
RATES = {"learning_rate": 1e-3, "hyper_rate": 1e-12}


@pytest.fixture(scope="module")
def workload(request):
    yield get_workload(request.param)
    free_workloads()


@pytest.fixture
def run(make_plan, tmp_path):
    """A call that trains for some steps; returns the last evaluation."""

    def run(name, workload, hyperparameters, steps):
        impossible = {"lower": -1.0, "higher": 1e9}[workload.better]
        target = Target(f"validation/{workload.target_metric}", impossible, workload.better)
        budgets = dict.fromkeys(["study_budget", "trial_budget", "allowance", "eval_period"],
                                float(steps))  # fmt: skip
        plan = make_plan(
            load_submission(name, SUBMISSIONS), workload, hyperparameters=hyperparameters,
            currency="steps", target=target, **budgets,
        )  # fmt: skip
        record = run_trial(plan, tmp_path)
        assert record.error is None
        return records.read_evaluations(tmp_path / records.EVAL_FILE)[-1]

    return run


def train(name, workload, run):
    """Train at small rates; fails unless all losses are finite."""
    submission, point = load_submission(name, SUBMISSIONS), OPTIONS.get(name)
    if submission.ruleset == "external":
        small = {rate: RATES[rate] for rate in RATES if rate in submission.defaults}
        point = {**submission.defaults, **small}

    last = run(name, workload, point, STEPS)

    assert last["global_step"] == STEPS
    assert {metric for metric in last if "/" in metric} >= workload.metric_names
    assert all(math.isfinite(last[f"{split}/loss"]) for split in ("train", "validation", "test"))


@pytest.mark.parametrize("name, workload", PAIRS)
def test_submissions_train_on_miniatures(name, workload, run):
    train(name, get_workload(workload), run)


@pytest.mark.slow  # compilation takes most of the time
@pytest.mark.parametrize("name, workload", CHOSEN, indirect=["workload"])
def test_submissions_train_on_all_workloads(name, workload, run):
    train(name, workload, run)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("mini_vit", "poisson_pinn")))
        for name in DESK
    ],
)
def test_adamw_lowers_the_training_loss(name, run):
    workload = get_workload(name)
    point = {**load_submission("adamw", SUBMISSIONS).defaults, "learning_rate": 0.01}
    params, state = workload.init_model_fn(jax.random.PRNGKey(0))
    start = workload.eval_model(workload.eval_batch_size, params, state)

    last = run("adamw", workload, point, 40)

    assert last["train/loss"] < 0.95 * start["train/loss"]
