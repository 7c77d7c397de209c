"""What a campaign would take is what its parts take."""

import jax
import pytest

from metaopt.bench.measure.budget import Budget
from tuning.campaign import make_campaign
from tuning.estimate import Estimate, estimate_table, format_duration, list_probes, probe
from tuning.studies import StudyKey


def make_estimate(**changes):
    parts = {
        "key": StudyKey("adamw+random", "digits_mlp", 1), "trials": "4+",
        "budget": Budget(1000.0, "steps"), "studies": 3, "unit_seconds": 0.01,
        "compilation_seconds": 5.0, "evaluations": 20, "evaluation_seconds": 0.5,
    }  # fmt: skip
    return Estimate(**{**parts, **changes})


def test_a_study_takes_its_steps_its_evaluations_and_its_compilation():
    assert make_estimate().study_seconds == pytest.approx(1000 * 0.01 + 5.0 + 20 * 0.5)


def test_a_budget_in_seconds_is_what_training_takes():
    estimate = make_estimate(budget=Budget(60.0, "seconds"))

    assert estimate.study_seconds == pytest.approx(60.0 + 20 * 0.5)


@pytest.mark.parametrize(
    ("processes", "total"), [(1, "2 min 30 s"), (2, "1 min 15 s"), (100, "25 s")]
)
def test_processes_share_the_work_but_never_a_study(processes, total):
    table = estimate_table([make_estimate(), make_estimate()], processes)

    assert table.caption.startswith(f"About {total} on {processes} process")


def test_a_bandit_whose_trials_pause_at_once_is_evaluated_as_fast_as_others(tmp_path):
    jax.clear_caches()
    campaign = make_campaign(
        {
            "name": "dry", "budget": "400steps", "trial_budget": "100steps",
            "eval_period": "1steps", "workloads": ["breast_cancer_logistic"],
            "contenders": ["sgd+asha", "sgd+random"],
        },
        "test",
    )  # fmt: skip

    asha, alone = [probe(campaign, key) for key in list_probes(campaign)]

    # Its first evaluation, which compiles, takes a hundred times as long.
    assert asha.evaluation_seconds < 10 * alone.evaluation_seconds


@pytest.mark.parametrize(
    ("contender", "budget", "trials", "cost"),
    [
        ("sgd@paper+grid", "20000grads", "24", 2400.0),  # a grid of 24 points, 100 each
        ("sgd@paper+grid", "1000grads", "10+", 1000.0),
        ("sgd+random", "1000grads", "10+", 1000.0),
        ("dog", "1000grads", "1", 1000.0),
    ],
)
def test_a_grid_is_exhausted_in_the_estimate_too(contender, budget, trials, cost):
    campaign = make_campaign(
        {
            "name": "dry", "budget": budget, "trial_budget": "100grads", "studies": 1,
            "eval_period": "25grads", "workloads": ["breast_cancer_logistic"],
            "contenders": [contender],
        },
        "test",
    )  # fmt: skip

    (estimate,) = [probe(campaign, key) for key in list_probes(campaign)]

    assert estimate.budget == Budget(cost, "gradient_evaluations")
    assert (estimate.trials, estimate.evaluations) == (trials, cost / 25)


SLOW_START = '''
"""Gradient descent whose first step takes long, as one that is traced does."""
import time
import optax
from metaopt.bench.contract import kit

def optimizer(step_hint, *, learning_rate):
    return optax.sgd(learning_rate)

_baseline = kit.Baseline(optimizer, {"learning_rate": 0.1})
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, report = _baseline.init_optimizer_state, _baseline.report

def update_params(**arguments):
    if arguments["global_step"] == 0:
        time.sleep(1.5)
    return _baseline.update_params(**arguments)
'''


def test_what_a_first_step_takes_beyond_the_others_counts_once(tmp_path):
    (tmp_path / "submission.py").write_text(SLOW_START)
    campaign = make_campaign(
        {
            "name": "dry", "budget": "1000grads", "trial_budget": "1000grads", "studies": 1,
            "eval_period": "1grads", "workloads": ["breast_cancer_logistic"],
            "contenders": [f"{tmp_path}+none"],
        },
        "test",
    )  # fmt: skip

    (estimate,) = [probe(campaign, key) for key in list_probes(campaign)]

    assert estimate.compilation_seconds > 1.5
    assert estimate.unit_seconds < 0.5


def test_a_budget_in_seconds_is_probed_however_long_it_compiles():
    jax.clear_caches()
    campaign = make_campaign(
        {
            "name": "dry", "budget": "3s", "trial_budget": "1s", "studies": 1,
            "eval_period": "0.5s", "workloads": ["breast_cancer_logistic"],
            "contenders": ["sgd+random"],
        },
        "test",
    )  # fmt: skip

    (estimate,) = [probe(campaign, key) for key in list_probes(campaign)]

    assert estimate.budget == Budget(3.0, "seconds")
    assert (estimate.unit_seconds, estimate.evaluations) == (1.0, 6)
    assert estimate.compilation_seconds > 0 and estimate.evaluation_seconds > 0


def test_a_dry_run_measures_every_contender_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    jax.clear_caches()  # of the tests before, which may have compiled the same step
    campaign = make_campaign(
        {
            "name": "dry", "budget": "400steps", "trial_budget": "100steps", "studies": 2,
            "eval_period": "25steps", "workloads": ["breast_cancer_logistic"],
            "contenders": ["dog", "sgd+random"],
        },
        "test",
    )  # fmt: skip

    estimates = [probe(campaign, key) for key in list_probes(campaign)]

    assert [e.key.contender for e in estimates] == ["dog", "sgd+random"]
    assert [e.trials for e in estimates] == ["1", "4+"]
    for estimate in estimates:
        assert estimate.evaluations == 16
        assert estimate.unit_seconds > 0 and estimate.evaluation_seconds > 0
        assert estimate.compilation_seconds > 0
    assert not list(tmp_path.iterdir())


def test_durations_read_as_people_say_them():
    assert format_duration(59.4) == "59 s"
    assert format_duration(3600) == "1 h 0 min"
