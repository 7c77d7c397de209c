"""Budgets, seconds and hyperparameters are finite numbers, whatever their source."""

import math

import pytest

from analysis.command_line import run_app
from metaopt.bench.contract.loading import find_submissions
from metaopt.bench.contract.spaces import check_point
from tuning.campaign import make_campaign
from tuning.cli import app
from tuning.contenders import SUBMISSIONS, load_submission, make_variant, parse_contender

SUBMISSION = '''
"""Gradient descent, with a mistake in it."""
import optax
from metaopt.bench.contract import kit

DEFAULTS = {"learning_rate": 0.1}

def optimizer(step_hint, *, learning_rate):
    return optax.sgd(LEARNING_RATE)

_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, report = _baseline.init_optimizer_state, _baseline.report
update_params = _baseline.update_params
'''


SPACE = '{"learning_rate": {"min": 0.001, "max": 1.0, "scaling": "log"}}'


@pytest.fixture
def write(tmp_path):
    """Write a submission into a folder, and return it."""

    def write(name, text):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "submission.py").write_text(text)
        (folder / "tuning_search_space.json").write_text(SPACE)
        return folder

    return write


def document(*contenders, **changes):
    base = {
        "name": "failing", "studies": 1, "budget": "20steps", "trial_budget": "10steps",
        "eval_period": "5steps", "workloads": ["breast_cancer_logistic"],
        "contenders": list(map(str, contenders)),
    }  # fmt: skip
    return {**base, **changes}


@pytest.mark.parametrize("key", ["budget", "trial_budget", "eval_period"])
@pytest.mark.parametrize("amount", ["nan", "inf", "1e400"])
@pytest.mark.parametrize("unit", ["steps", "x"])
def test_a_budget_is_a_finite_number(key, amount, unit):
    with pytest.raises(ValueError, match=key):
        make_campaign(document("sgd+random", **{key: f"{amount}{unit}"}), "test")


# Hyperparameters are finite numbers, wherever they come from.


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e39"])
def test_a_hyperparameter_of_the_command_line_is_a_finite_number(value, tmp_path, capsys):
    command = ["run", "sgd", "breast_cancer_logistic", "--hparams", f"learning_rate={value}"]

    assert run_app(app, "tuning", [*command, "--out", str(tmp_path / "out")]) == 2

    assert "--hparams: 'learning_rate': values are finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_default_is_a_finite_number(write):
    folder = write("endless", SUBMISSION.replace("0.1}", "float('inf')}"))

    with pytest.raises(ValueError, match="endless, DEFAULTS: 'learning_rate': values are finite"):
        parse_contender(f"{folder}+random")


def test_the_defaults_of_every_submission_are_finite_numbers():
    for name in find_submissions(SUBMISSIONS):
        check_point(load_submission(name, SUBMISSIONS).defaults, name)


def test_a_proposal_that_is_no_number_ends_its_study(tmp_path, clock, make_fake_study):
    plan = make_fake_study("random", clock, space={"rate": {"feasible_points": [0.5]}})
    plan.contender.submission.space["rate"]["feasible_points"][0] = 0.5

    assert plan.contender.point({"rate": 0.5}) == {"rate": 0.5}
    with pytest.raises(ValueError, match=r"fake\+random: 'rate': values are finite"):
        plan.contender.point({"rate": math.nan})


@pytest.mark.parametrize("option", ["--stall-seconds", "--timeout", "--gpus-per-study"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_on_the_command_line_are_finite(option, value, capsys):
    commands = {
        "--stall-seconds": ["run", "sgd", "breast_cancer_logistic"],
        "--timeout": ["check", "sgd"],
        "--gpus-per-study": ["compare", "demo"],
    }

    assert run_app(app, "tuning", [*commands[option], option, value]) == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("value", [1e39, math.nan])
def test_a_variant_fixes_finite_numbers(value):
    with pytest.raises(ValueError, match="Variant 'mine': 'learning_rate': values are finite"):
        make_variant("mine", "sgd+random", {"learning_rate": value})
