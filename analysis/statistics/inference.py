"""Everything the statistics say of a campaign, from one seed; docs/statistics.md has the formulas.

Here it is computed; :mod:`analysis.report.inference_tables` prints it,
:mod:`analysis.report.plots.statistics`
draws it.
"""

import dataclasses
import itertools

import numpy as np

from analysis.scoring.costs import View
from analysis.statistics.comparisons import Comparison, compare_all
from analysis.statistics.ranks import Ranking, rank_contenders
from analysis.statistics.resampling import (
    CONFIDENCE,
    RESAMPLES,
    Estimate,
    attainable_confidence,
    bootstrap,
    cost_estimates,
    interquartile_means,
    ratio_estimates,
    score_estimates,
    studies_for,
    win_estimates,
)
from analysis.statistics.samples import Samples
from analysis.statistics.sensitivity import LeaveOneOut, leave_one_workload_out
from metaopt.bench.budget import Currency

SEED = 0


@dataclasses.dataclass(frozen=True)
class Inference:
    """What may be said of the contenders, and how surely."""

    samples: Samples
    currency: Currency
    view: View
    confidence: float
    resamples: int
    seed: int
    order: tuple[int, ...]  # indices of contenders, the best score first
    scores: Estimate  # (S,)
    costs: Estimate  # (S, W)
    wins: Estimate  # (S, S)
    interquartile: Estimate  # (S,)
    ratios: dict[tuple[int, int], tuple[Estimate, Estimate]]  # by pair: (W,) and ()
    comparisons: tuple[Comparison, ...]
    ranking: Ranking
    left_out: LeaveOneOut | None
    warnings: tuple[str, ...]  # what they do not say


def infer(
    samples: Samples,
    currency: Currency,
    view: View,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Inference:
    """Compute the statistics.

    Args:
        samples: Costs of every study.
        currency: In which they are.
        view: Which costs they are.
        confidence: Of every interval, of the critical difference, and of all comparisons together.
        resamples: Of the bootstrap.
        seed: Of resamples and permutations.

    Raises:
        ValueError: One study only, or too few resamples for the confidence.
    """
    rng = np.random.default_rng(seed)
    boot = bootstrap(samples, rng, resamples)
    scores = score_estimates(boot, confidence)
    names = samples.contenders
    order = tuple(sorted(range(len(names)), key=lambda i: (-round(scores.value[i], 9), names[i])))
    ranking = rank_contenders(samples.medians, rng, confidence)
    left_out = leave_one_workload_out(samples.medians)
    return Inference(
        samples=samples,
        currency=currency,
        view=view,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        order=order,
        scores=scores,
        costs=cost_estimates(boot, confidence),
        wins=win_estimates(boot, confidence),
        interquartile=interquartile_means(boot, confidence),
        ratios={
            (a, b): ratio_estimates(boot, a, b, confidence)
            for a, b in itertools.combinations(order, 2)
        },
        comparisons=tuple(compare_all(samples, order, confidence=confidence)),
        ranking=ranking,
        left_out=left_out,
        warnings=tuple(_warnings(samples, confidence, ranking, left_out)),
    )


def _warnings(
    samples: Samples, confidence: float, ranking: Ranking, left_out: LeaveOneOut | None
) -> list[str]:
    found = []
    attainable = attainable_confidence(samples.studies)
    if attainable < confidence:
        found.append(
            f"{samples.studies} studies are too few for {confidence:.0%} intervals of the cost on "
            f"one workload: they can have {attainable:.0%} at most; {studies_for(confidence)} "
            "studies are needed."
        )
    if ranking.warning:
        found.append(ranking.warning)
    if left_out is None:
        found.append("One workload: how scores depend on the workloads cannot be said.")
    best = samples.medians.min(axis=0)
    if unreached := [
        name for name, cost in zip(samples.workloads, best, strict=True) if np.isinf(cost)
    ]:
        found.append(
            f"No contender's median study reached the target on {', '.join(unreached)}: nothing "
            "there counts in scores or in interquartile means."
        )
    return found
