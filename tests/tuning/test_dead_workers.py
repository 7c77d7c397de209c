"""A process that dies by itself is a failed trial, not the end of the campaign."""

import pytest

from metaopt.bench import records
from tuning.campaign import make_campaign
from tuning.executor import check_budgets, run_campaign

DEADLY = '''
"""Gradient descent that kills its process, if it is told to."""
import os, signal
import optax
from metaopt.bench import submission_kit as kit

DEFAULTS = {"learning_rate": 0.1, "deadly": 0.0}

def optimizer(step_hint, *, learning_rate, deadly):
    return optax.sgd(learning_rate)

_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, report = _baseline.init_optimizer_state, _baseline.report

def update_params(**arguments):
    if arguments["hyperparameters"].deadly and arguments["global_step"] == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return _baseline.update_params(**arguments)
'''


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / "deadly"
    folder.mkdir()
    (folder / "submission.py").write_text(DEADLY)
    (folder / "tuning_search_space.json").write_text('{"deadly": {"feasible_points": [1.0, 0.0]}}')
    return make_campaign(
        {
            "name": "dead",
            "budget": "80grads",
            "trial_budget": "40grads",
            "eval_period": "10grads",
            "studies": 1,
            "workloads": ["breast_cancer_logistic"],
            "contenders": [f"{folder}+grid", "sgd+random"],
        },
        "test",
    )


def test_a_trial_that_kills_its_process_fails_and_the_campaign_goes_on(campaign, tmp_path):
    studies = run_campaign(campaign, tmp_path / "out", workers=2)

    trials = [records.read_trial(path) for path in sorted((tmp_path / "out").rglob("run.json"))]
    (deadly,) = (t for t in trials if (t.hyperparameters or {}).get("deadly"))
    assert deadly.status == "crashed"
    assert "died twice" in (deadly.error or "")
    assert [t.status for t in trials if t is not deadly] == ["trial_budget"] * 3
    assert {s.contender: s.ended for s in studies} == {
        "deadly+grid": "grid_exhausted",
        "sgd+random": "budget",
    }
    check_budgets(studies)
