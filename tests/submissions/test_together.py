"""Submissions that promise to train together: their numbers are those of trials alone."""

import itertools

import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.loading import find_submissions, load_submission
from metaopt.bench.records import Cost, Seeds
from metaopt.bench.runner import run_trial
from metaopt.bench.together import run_together
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS

ROUNDING = 1e-5
FOLDERS = find_submissions(SUBMISSIONS)
PROMISING = [
    name
    for name, folder in sorted(FOLDERS.items())
    if "VMAP_TRIALS = True" in (folder / "submission.py").read_text("utf-8")
]


def test_every_tuned_submission_promises_it():
    assert {FOLDERS[name].parent.name for name in PROMISING} == {"external_tuning"}
    assert len(PROMISING) == 8


@pytest.mark.parametrize("name", PROMISING)
def test_losses_agree_with_those_of_trials_alone_at_every_evaluation(name, tmp_path, make_plan):
    submission = load_submission(name, SUBMISSIONS)
    rates = submission.defaults["learning_rate"] * np.array([0.1, 0.3, 1.0])
    plans = [
        make_plan(
            submission, get_workload("digits_mlp"), trial=index + 1, study_budget=1000.0,
            seeds=Seeds(campaign=1, trial=index, tuner=None, fixed_batch=None),
            hyperparameters={**submission.defaults, "learning_rate": float(rate)},
            trial_budget=20.0, allowance=20.0, eval_period=4.0,
        )
        for index, rate in enumerate(rates)
    ]  # fmt: skip

    together = list(run_together(plans, [tmp_path / f"together_{i}" for i in range(3)], spent=Cost))

    assert [record.trained_together for record in together] == [3, 3, 3]
    for index, plan in enumerate(plans):
        run_trial(plan, tmp_path / f"alone_{index}")
        one, other = (
            records.read_evaluations(tmp_path / f"{how}_{index}" / records.EVAL_FILE)
            for how in ("together", "alone")
        )
        assert len(one) == len(other) == 5
        for row, split in itertools.product(range(5), ("train", "validation", "test")):
            loss, same = one[row][f"{split}/loss"], other[row][f"{split}/loss"]
            assert abs(loss - same) <= ROUNDING * max(1.0, abs(same))
