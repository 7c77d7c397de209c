"""Compute all statistics of a campaign from one seed; docs/statistics.md has the formulas."""

import dataclasses

import numpy as np

from analysis.scoring.costs import Unit, View
from analysis.statistics.comparisons import Comparison, compare_all
from analysis.statistics.ranks import Ranking, rank_contenders
from analysis.statistics.repeatability import Repeatability, measure_repeatability
from analysis.statistics.resampling import (
    CONFIDENCE,
    RESAMPLES,
    Estimates,
    attainable_confidence,
    bootstrap,
    cost_estimates,
    score_estimates,
    studies_for,
    win_estimates,
)
from analysis.statistics.samples import Samples
from analysis.statistics.sensitivity import LeaveOneOut, leave_one_workload_out
from analysis.statistics.speedups import REFERENCE, Speedups, measure_speedups

SEED = 0


@dataclasses.dataclass(frozen=True)
class Inference:
    """Scores, costs, comparisons and ranks of S contenders on W workloads, with intervals."""

    samples: Samples
    unit: Unit
    confidence: float
    resamples: int
    seed: int
    order: tuple[int, ...]  # indices of contenders, the best score first
    scores: Estimates  # (S,)
    costs: Estimates  # (S, W)
    wins: Estimates  # (S, S)
    comparisons: tuple[Comparison, ...]
    ranking: Ranking
    left_out: LeaveOneOut | None
    repeatability: Repeatability
    speedups: Speedups | None  # None: the default reference did not run
    warnings: tuple[str, ...]  # the limits of these statistics

    @property
    def view(self) -> View:
        """The view of the costs."""
        return self.samples.view

    @property
    def percent(self) -> str:
        """The confidence in percent, as text."""
        return _percent(self.confidence)


def infer(
    samples: Samples,
    unit: Unit,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    reference: str = REFERENCE,
) -> Inference:
    """Compute the statistics.

    Args:
        samples: The costs of every study.
        unit: The unit of the costs.
        confidence: The confidence of each interval, of the critical difference, and of all
            comparisons together.
        resamples: The number of resamples of the bootstrap.
        seed: The seed of resamples and permutations.
        reference: The contender that speed-ups are relative to.

    Raises:
        ValueError: There is only one study, there are too few resamples for the confidence, or
            the reference is not a contender.
    """
    boot = bootstrap(samples, seed, resamples)
    scores = score_estimates(boot, confidence)
    names = samples.contenders
    order = tuple(sorted(range(len(names)), key=lambda i: (-round(scores.value[i], 9), names[i])))
    ranking = rank_contenders(samples.medians, np.random.default_rng(seed), confidence)
    left_out = leave_one_workload_out(samples)
    return Inference(
        samples=samples,
        unit=unit,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        order=order,
        scores=scores,
        costs=cost_estimates(boot, confidence),
        wins=win_estimates(boot, confidence),
        comparisons=tuple(compare_all(samples, order, confidence=confidence)),
        ranking=ranking,
        left_out=left_out,
        repeatability=measure_repeatability(samples),
        speedups=measure_speedups(boot, reference, confidence),
        warnings=tuple(_warnings(samples, confidence, ranking, left_out)),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _warnings(
    samples: Samples, confidence: float, ranking: Ranking, left_out: LeaveOneOut | None
) -> list[str]:
    found = []
    attainable = attainable_confidence(samples.studies)
    if attainable < confidence:
        found.append(
            f"{samples.studies} studies are too few for {_percent(confidence)} intervals of the "
            f"cost on one workload: {_percent(attainable)} is the most they can have; "
            f"{studies_for(confidence)} studies are needed."
        )
    if ranking.warning:
        found.append(ranking.warning)
    if left_out is None:
        found.append("With one workload, how scores depend on the workloads is unknown.")
    return found
