"""The paired, stratified bootstrap: intervals of median costs, scores and win probabilities.

Each workload is a stratum. A resample draws K of its studies with replacement. All contenders get
the same draws, which keeps the pairing; strata are drawn independently, each from the seed and the
name of its workload, so that no number depends on the order of workloads. A missed study stays inf.
The ends of percentile intervals are never interpolated, so each end is a cost or inf.

Letters as in :mod:`analysis.statistics.samples`, and R for the number of resamples.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.samples import Floats, Samples

RESAMPLES = 10_000
MOST_RESAMPLES = 1_000_000  # more do not fit into memory
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimates:
    """Values with their intervals, three arrays of one shape."""

    value: Floats
    low: Floats
    high: Floats


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Resamples of :class:`~analysis.statistics.samples.Samples`."""

    samples: Samples
    counts: NDArray[np.int64]  # (R, W, K): how often each study was drawn
    medians: Floats  # (R, S, W)


def bootstrap(samples: Samples, seed: int, resamples: int = RESAMPLES) -> Bootstrap:
    """Draw resamples.

    Args:
        samples: The costs of every study.
        seed: The seed of the draws; the same one gives the same intervals.
        resamples: R.

    Raises:
        ValueError: ``resamples`` is below 1 or above ``MOST_RESAMPLES``, or there is only one
            study, so that every interval would be a single point.
    """
    if not 1 <= resamples <= MOST_RESAMPLES:
        raise ValueError(f"`resamples` must be 1 to {MOST_RESAMPLES:,}, got {resamples:,}.")
    studies = samples.studies
    if studies < 2:
        raise ValueError("Resampling needs at least 2 studies, got 1. Run more studies.")
    drawn = [rng.integers(studies, size=(resamples, studies)) for rng in samples.generators(seed)]
    picks = np.stack(drawn, axis=1)
    counts = (picks[..., None] == np.arange(studies)).sum(axis=2)
    return Bootstrap(samples, counts, samples.medians_of(picks))


def percentile_interval(values: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return the percentile interval of resampled values.

    Args:
        values: (R, ...).
        confidence: The share of the resamples inside the interval.

    Raises:
        ValueError: ``confidence`` is not between 0 and 1, or R is too small for it.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    tail, least = (1 - confidence) / 2, math.ceil(2 / (1 - confidence) - 1e-9)
    if len(values) < least:
        raise ValueError(
            f"{len(values)} resamples are too few for a confidence of {confidence}: at least "
            f"{least} are needed."
        )
    low = np.quantile(values, tail, axis=0, method="higher")
    return low, np.quantile(values, 1 - tail, axis=0, method="lower")


def cost_estimates(boot: Bootstrap, confidence: float = CONFIDENCE) -> Estimates:
    """Return the median cost of each contender on each workload, (S, W); inf for a miss."""
    return Estimates(boot.samples.medians, *percentile_interval(boot.medians, confidence))


def score_estimates(boot: Bootstrap, confidence: float = CONFIDENCE) -> Estimates:
    """Return the score of each contender, (S,); the best cost is taken in each resample."""
    score = boot.samples.score
    return Estimates(
        score(boot.samples.medians), *percentile_interval(score(boot.medians), confidence)
    )


def win_estimates(boot: Bootstrap, confidence: float = CONFIDENCE) -> Estimates:
    r"""Return the probability that a contender beats another in the same study, (S, S).

    .. math:: p_{ab} = \frac{1}{W K} \sum_{w,k} [t_{awk} < t_{bwk}] + \tfrac12 [t_{awk} = t_{bwk}]

    Two misses are equal.
    """
    wins = win_matrix(boot.samples.costs)
    contenders, _, workloads, studies = wins.shape
    flat = wins.reshape(contenders**2, workloads * studies)
    drawn = boot.counts.reshape(len(boot.counts), -1) @ flat.T / (workloads * studies)
    low, high = (
        end.reshape(contenders, contenders) for end in percentile_interval(drawn, confidence)
    )
    return Estimates(flat.mean(axis=1).reshape(contenders, contenders), low, high)


def win_matrix(costs: Floats) -> Floats:
    """Return 1 where a's cost is below b's in the same study, 1/2 where equal, (S, S, W, K)."""
    first, second = costs[:, None], costs[None, :]
    return (first < second) + 0.5 * (first == second)


def attainable_confidence(studies: int) -> float:
    r"""Return the coverage of the widest interval of a median that K studies can give.

    The interval from the lowest to the highest study has coverage :math:`1 - 2^{1 - K}`, which no
    resampling exceeds.
    """
    return 1 - 2.0 ** (1 - studies)


def studies_for(confidence: float) -> int:
    """Return the smallest number of studies for an interval of a median with a confidence."""
    return math.ceil(1 - math.log2(1 - confidence) - 1e-9)
