"""Workloads that stand for AlgoPerf's on graphs, speech and text: what holds for each of them."""

import jax
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.rules.workload_check import check_workload
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tests.conftest import ROOT, free_workloads

PARAMETERS = {
    "mini_conformer": 17_899,
    "mini_deepspeech": 18_859,
    "mini_lm": 16_800,
    "mini_ogbg": 17_374,
    "mini_wmt": 22_528,
}
EXAMPLES = {
    "mini_conformer": (3_000, 250, 250),
    "mini_deepspeech": (3_000, 250, 250),
    "mini_lm": (4_000, 200, 200),
    "mini_ogbg": (1_397, 200, 200),
    "mini_wmt": (4_789, 200, 200),
}
METRICS = {
    "mini_conformer": {"loss", "ctc_loss", "wer"},
    "mini_deepspeech": {"loss", "ctc_loss", "wer"},
    "mini_lm": {"loss", "ppl"},
    "mini_ogbg": {"loss", "accuracy", "mean_average_precision"},
    "mini_wmt": {"loss", "accuracy", "bleu"},
}
# AlgoPerf's ogbg declares another loss than it computes, and so does its miniature.
NOTES = {"mini_ogbg": ["workload-loss-type"]}


@pytest.fixture(params=sorted(PARAMETERS), scope="module")
def name(request):
    yield request.param
    free_workloads()


# The fixed forms share the code of the others.
FORMS = [
    pytest.param("", id="stochastic"),
    pytest.param("_fixed", id="fixed", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("form", FORMS)
def test_no_rule_is_broken(name, form):
    found = check_workload(get_workload(name + form))

    assert [finding.rule for finding in found] == NOTES.get(name, []), found
    assert {finding.severity for finding in found} <= {"note"}


def test_the_summary_states_the_number_of_parameters(name):
    workload = get_workload(name)
    params, _ = workload.init_model_fn(jax.random.PRNGKey(0))

    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[name]
    assert f"({PARAMETERS[name]:,} parameters)" in workload.summary
    found = workload.describe_data()["examples"]
    assert tuple(found[split] for split in ("train", "validation", "test")) == EXAMPLES[name]
    assert workload.describe_data()["whole"] is True


def test_metrics_have_algoperfs_names(name):
    expected = {
        f"{split}/{metric}" for split in ("train", "validation", "test") for metric in METRICS[name]
    }

    assert get_workload(name).metric_names == expected


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_adamw_lowers_the_loss(name, form, tmp_path, make_plan):
    submission, workload = load_submission("adamw", ROOT / "submissions"), get_workload(name + form)
    plan = make_plan(
        submission, workload, hyperparameters=submission.defaults,
        study_budget=40.0, trial_budget=40.0, allowance=40.0,
    )  # fmt: skip

    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        record = run_trial(plan, tmp_path)

    assert record.error is None
    last = records.read_evaluations(tmp_path / records.EVAL_FILE)[-1]
    params, state = workload.init_model_fn(jax.random.PRNGKey(0))
    start = workload.eval_model(workload.eval_batch_size, params, state)
    assert last["train/loss"] < 0.95 * start["train/loss"]
