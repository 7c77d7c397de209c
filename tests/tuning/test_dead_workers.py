"""A process that dies, or does not come back, is a failed trial, not the end of the campaign."""

import subprocess
import sys

import pytest

from metaopt.bench import records
from tuning.campaign import make_campaign
from tuning.executor import check_budgets, run_campaign

pytestmark = pytest.mark.slow

DEADLY = '''
"""Gradient descent that kills its process, or never returns, if it is told to."""
import os, signal, time
import optax
from metaopt.bench.contract import kit

DEFAULTS = {"learning_rate": 0.1, "deadly": 0.0}

def optimizer(step_hint, *, learning_rate, deadly):
    return optax.sgd(learning_rate)

_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, report = _baseline.init_optimizer_state, _baseline.report

def update_params(**arguments):
    if arguments["global_step"] == 25:
        if arguments["hyperparameters"].deadly == 1.0:
            os.kill(os.getpid(), signal.SIGKILL)
        while arguments["hyperparameters"].deadly == 2.0:
            time.sleep(0.1)
    return _baseline.update_params(**arguments)
'''


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / "deadly"
    folder.mkdir()
    (folder / "submission.py").write_text(DEADLY)
    space = '{"deadly": {"feasible_points": [1.0, 0.0, 2.0]}}'
    (folder / "tuning_search_space.json").write_text(space)
    return make_campaign(
        {
            "name": "dead",
            "budget": "120grads",
            "trial_budget": "40grads",
            "eval_period": "10grads",
            "studies": 1,
            "stall_seconds": 30,
            "workloads": ["breast_cancer_logistic"],
            "contenders": [f"{folder}+grid", "sgd+random"],
        },
        "test",
    )


def test_trials_that_kill_their_process_or_never_return_fail_and_the_campaign_goes_on(
    campaign, tmp_path
):
    studies = run_campaign(campaign, tmp_path / "out", workers=2)

    trials = [records.read_trial(path) for path in sorted((tmp_path / "out").rglob("run.json"))]
    told = {deadly: [t for t in trials if (t.hyperparameters or {}).get("deadly") == deadly]
            for deadly in (1.0, 2.0)}  # fmt: skip
    (deadly,), (hanging,) = told[1.0], told[2.0]
    assert deadly.status == "crashed"
    assert "died twice" in (deadly.error or "")
    assert hanging.status == "stalled"
    assert "line 21 in update_params" in (hanging.error or "")
    assert (hanging.cause or "").endswith("(submission.py:21)")
    assert hanging.ledger.cost.steps in (0, 10, 20)  # of its last checkpoint, if there was time
    assert [t.status for t in trials if t not in (deadly, hanging)] == ["trial_budget"] * 4
    assert {s.contender: s.ended for s in studies} == {
        "deadly+grid": "grid_exhausted",
        "sgd+random": "budget",
    }
    check_budgets(studies)


def test_a_single_run_that_never_returns_ends_with_exit_code_1_and_is_recorded_by_the_next(
    campaign, tmp_path, root
):
    command = ["run", str(tmp_path / "deadly"), "breast_cancer_logistic", "--stall-seconds", "30"]
    command += ["--hparams", "deadly=2.0", "--budget", "40grads", "--out", str(tmp_path / "out")]

    first, second = (
        subprocess.run(
            [sys.executable, "-m", "tuning", *command], cwd=root, capture_output=True, text=True
        )
        for _ in range(2)
    )

    assert first.returncode == 1
    assert "stalled" in second.stdout and "(submission.py:21)" in second.stdout
    (path,) = (tmp_path / "out").rglob("run.json")
    assert records.read_trial(path).status == "stalled"
