"""Calibrate a submission's defaults: the point of its search space that trains two workloads best.

    python tests/performance/calibrate.py adamw

1.  Search: train the first 100 Halton points of the submission's search space for one step hint on
    ``digits_mlp`` and on ``digits_conv``. The value of a point is the geometric mean, over both
    workloads, of the validation loss at the end.
2.  Train the 10 best points again from 5 new seeds each, and round the best one to two digits.

No other workload takes part. Prints the 10 points, the best first, and the values of the rounded
point beside those of the present defaults, from the same 5 seeds.
"""

import argparse
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from metaopt.bench import records
from metaopt.bench.contract.loading import Submission
from metaopt.bench.contract.spaces import Point
from metaopt.bench.measure.targets import Target
from metaopt.bench.trial.plan import derive_seeds, plan_trial
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.contenders import parse_contender

WORKLOADS = ("digits_mlp", "digits_conv")
SEED = 20_261_101  # of the search, far from the seeds of campaigns
POINTS, KEPT, RERUNS = 100, 10, 5
NEVER = Target("validation/loss", -1.0, "lower")  # below every cross-entropy


def final_loss(submission: Submission, point: Point, name: str, study: int) -> float:
    """Return the validation loss after one step hint, inf if it is not finite."""
    workload = get_workload(name)
    hint = float(workload.step_hint)
    plan = plan_trial(
        submission,
        workload,
        campaign="calibrate",
        contender=f"{submission.name}+halton",
        study=study,
        trial=1,
        seeds=derive_seeds(SEED, workload, study, 1),
        hyperparameters=point,
        budget=records.BudgetRecord(
            currency="gradient_evaluations", study=hint, trial=hint, eval_period=hint
        ),
        target=NEVER,
        test_target=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        best = run_trial(plan, Path(folder)).best
    return math.inf if best is None else best


def value_of(submission: Submission, point: Point, studies: Iterable[int]) -> float:
    """Return the geometric mean of the final losses over workloads and seeds."""
    losses = [final_loss(submission, point, name, k) for k in studies for name in WORKLOADS]
    return float(np.exp(np.mean(np.log(losses))))


def rounded(point: Point) -> Point:
    """Return a point with two digits."""
    return {name: float(f"{value:.2g}") for name, value in point.items()}


def calibrate(name: str) -> None:
    """Print the search for one submission."""
    contender = parse_contender(f"{name}+halton")
    submission, tuner = contender.submission, contender.make_tuner(SEED)
    assert tuner is not None
    points = [{**submission.defaults, **tuner.ask()} for _ in range(POINTS)]
    values = [value_of(submission, point, [1]) for point in points]
    best = [points[index] for index in np.argsort(values)[:KEPT]]
    again = range(2, 2 + RERUNS)
    found = sorted(((value_of(submission, p, again), p) for p in best), key=lambda pair: pair[0])
    for value, point in found:
        print(f"{value:.4f}  {point}")
    for what, point in ("rounded", rounded(found[0][1])), ("present", submission.defaults):
        print(f"{what}: {value_of(submission, point, again):.4f}  {point}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("submission", help="with a search space, such as adamw")
    calibrate(parser.parse_args().submission)
