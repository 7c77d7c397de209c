"""The paired, stratified bootstrap: intervals of medians, ratios, scores, means and wins.

Each workload is a stratum. In it a resample draws K studies with replacement, the same ones for
every contender, which keeps the pairing; strata are drawn independently. A study that missed is
drawn as what it is, inf. Intervals are percentile intervals whose ends are values of resamples and
never lie between two, so that an end is a cost or inf and nothing in between.

Letters as in :mod:`analysis.statistics.samples`, and R for the number of resamples.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from analysis.scoring.profiles import profile_area, ratios
from analysis.statistics.samples import Floats, Samples

RESAMPLES = 10_000
MOST_RESAMPLES = 1_000_000  # what fits into memory
CONFIDENCE = 0.95
_TRIMMED = 0.25  # of an interquartile mean, at each end


@dataclasses.dataclass(frozen=True)
class Estimate:
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


def bootstrap(samples: Samples, rng: np.random.Generator, resamples: int = RESAMPLES) -> Bootstrap:
    """Draw resamples.

    Args:
        samples: What was measured.
        rng: Where chance comes from; the same state gives the same intervals.
        resamples: R.

    Raises:
        ValueError: ``resamples`` is not positive or beyond ``MOST_RESAMPLES``, or there is one
            study: every resample would be that study, and every interval a point that looks
            certain.
    """
    if not 1 <= resamples <= MOST_RESAMPLES:
        raise ValueError(f"`resamples` must be 1 to {MOST_RESAMPLES:,}, got {resamples:,}.")
    contenders, workloads, studies = samples.costs.shape
    if studies < 2:
        raise ValueError("One study says nothing of chance: resampling needs 2 studies or more.")
    picks = rng.integers(studies, size=(resamples, workloads, studies))
    drawn = np.empty((resamples, contenders, workloads))
    for w in range(workloads):  # one at a time: a resample of all would be K times as large
        drawn[:, :, w] = np.median(samples.costs[:, w, picks[:, w]], axis=2).T
    counts = (picks[..., None] == np.arange(studies)).sum(axis=2)
    return Bootstrap(samples, counts, drawn)


def interval(
    values: Floats, confidence: float, *, undefined: tuple[float, float] | None = None
) -> tuple[Floats, Floats]:
    """Return the percentile interval of resampled values.

    Args:
        values: (R, ...).
        confidence: Share of the resamples that lie inside.
        undefined: What NaN counts as at the low and at the high end: the range of what it might
            have been.

    Raises:
        ValueError: ``confidence`` is no share, R is too small for it, or a value is NaN and
            nothing says what it might be.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    resamples = len(values)
    cut = math.floor((1 - confidence) / 2 * resamples + 1e-9)
    if cut < 1:
        raise ValueError(
            f"{resamples} resamples are too few for a confidence of {confidence}: at least "
            f"{math.ceil(2 / (1 - confidence) - 1e-9)} are needed."
        )
    last = resamples - 1 - cut
    unknown = np.isnan(values)
    if not unknown.any():
        ordered = np.partition(values, (cut, last), axis=0)
        return ordered[cut], ordered[last]
    if undefined is None:
        raise ValueError("A resampled value is NaN, and `undefined` does not say what it may be.")
    below, above = undefined
    low = np.partition(np.where(unknown, below, values), cut, axis=0)[cut]
    high = np.partition(np.where(unknown, above, values), last, axis=0)[last]
    return low, high


def cost_estimates(boot: Bootstrap, confidence: float = CONFIDENCE) -> Estimate:
    """Return the median cost of each contender on each workload, (S, W); inf for a miss."""
    return Estimate(boot.samples.medians, *interval(boot.medians, confidence))


def score_estimates(boot: Bootstrap, confidence: float = CONFIDENCE) -> Estimate:
    """Return the score of each contender, (S,), the best cost of each resample its own."""
    return Estimate(
        profile_area(ratios(boot.samples.medians)), *interval(resampled_scores(boot), confidence)
    )


def resampled_scores(boot: Bootstrap) -> Floats:
    """Return the scores of every resample, (R, S)."""
    return profile_area(ratios(boot.medians))


def ratio_estimates(
    boot: Bootstrap, first: int, second: int, confidence: float = CONFIDENCE
) -> tuple[Estimate, Estimate]:
    r"""Return the ratio of two contenders' median costs: on each workload, and over all.

    .. math:: r_w = \frac{\mathrm{med}_k\, t_{awk}}{\mathrm{med}_k\, t_{bwk}}, \qquad
              r = \Bigl(\prod_w r_w\Bigr)^{1 / W}

    0 where only the second missed, inf where only the first did. Where both missed it is NaN: it
    might be anything, and so the low end of an interval counts it as 0 and the high end as inf.

    Args:
        boot: The resamples.
        first: Index of a.
        second: Index of b.
        confidence: Of the intervals.

    Returns:
        Estimates of shapes (W,) and ().
    """
    observed = boot.samples.medians
    value = _ratio(observed[first], observed[second])
    drawn = _ratio(boot.medians[:, first], boot.medians[:, second])
    each = Estimate(value, *interval(drawn, confidence, undefined=(0.0, math.inf)))
    whole = interval(_geometric_mean(drawn), confidence, undefined=(0.0, math.inf))
    return each, Estimate(np.asarray(_geometric_mean(value)), *whole)


def _ratio(first: Floats, second: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = first / second
    # Two that start at their target cost the same: nothing.
    return np.where((first == 0) & (second == 0), 1.0, quotient)


def _geometric_mean(ratios: Floats) -> Floats:
    """Return it over the last axis; NaN where 0 meets inf, or for NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(np.log(ratios).mean(axis=-1))


def win_estimates(boot: Bootstrap, confidence: float = CONFIDENCE) -> Estimate:
    r"""Return the probability that a contender beats another in the same study, (S, S).

    .. math:: p_{ab} = \frac{1}{W K} \sum_{w,k} [t_{awk} < t_{bwk}] + \tfrac12 [t_{awk} = t_{bwk}]

    Two that both missed are equal.
    """
    wins = win_matrix(boot.samples.costs)
    contenders, _, workloads, studies = wins.shape
    flat = wins.reshape(contenders**2, workloads * studies)
    drawn = boot.counts.reshape(len(boot.counts), -1) @ flat.T / (workloads * studies)
    low, high = (end.reshape(contenders, contenders) for end in interval(drawn, confidence))
    return Estimate(flat.mean(axis=1).reshape(contenders, contenders), low, high)


def win_matrix(costs: Floats) -> Floats:
    """Return 1 where a's cost is below b's in the same study, 1/2 where equal, (S, S, W, K)."""
    first, second = costs[:, None], costs[None, :]
    return (first < second) + 0.5 * (first == second)


def interquartile_means(boot: Bootstrap, confidence: float = CONFIDENCE) -> Estimate:
    r"""Return the mean of the middle half of a contender's relative costs, (S,).

    Relative costs are :math:`t_{swk} / \min_{s'} \mathrm{med}_k\, t_{s'wk}`, of all studies on all
    workloads together; the yardstick is that of the measured studies in every resample. Workloads
    whose best median is a miss, or costs nothing, have none and are left out. Of n values
    ``int(n / 4)`` are cut at each end; below four values that is the plain mean.

    With a miss in the middle half it is not defined: then the value is NaN, the low end is that of
    the means in which a miss counts as its lower bound, and the high end is inf.
    """
    costs, floors = boot.samples.costs, boot.samples.floors
    best = boot.samples.medians.min(axis=0)
    kept = np.isfinite(best) & (best > 0)
    if not kept.any():
        nothing = np.full(len(costs), np.nan)
        return Estimate(nothing, np.zeros(len(costs)), np.full(len(costs), np.inf))
    yardstick = best[kept, None]
    flat = (len(costs), kept.sum() * boot.samples.studies)
    counts = boot.counts[:, kept].reshape(len(boot.counts), -1)
    once = np.ones((1, counts.shape[1]), dtype=counts.dtype)
    values, lows, highs = [], [], []
    for above, below in zip(
        (costs[:, kept] / yardstick).reshape(flat),
        (floors[:, kept] / yardstick).reshape(flat),
        strict=True,
    ):
        values.append(_trimmed_mean(above, once)[0])
        lows.append(interval(_trimmed_mean(below, counts), confidence)[0])
        highs.append(interval(_trimmed_mean(above, counts), confidence)[1])
    value = np.array(values)
    return Estimate(np.where(np.isinf(value), np.nan, value), np.array(lows), np.array(highs))


def _trimmed_mean(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return the trimmed means of resamples that have value i ``counts[:, i]`` times, (R,)."""
    order = np.argsort(values)
    values, counts = values[order], counts[:, order]
    total = counts.sum(axis=1, keepdims=True)
    cut = (_TRIMMED * total).astype(np.int64)
    ends = np.cumsum(counts, axis=1)
    kept = np.minimum(ends, total - cut) - np.maximum(ends - counts, cut)
    kept = np.clip(kept, 0, None)
    finite = np.isfinite(values)
    means = kept[:, finite] @ values[finite] / (total - 2 * cut)[:, 0]
    return np.where(kept[:, ~finite].any(axis=1), np.inf, means)


def attainable_confidence(studies: int) -> float:
    r"""Return the coverage of the widest interval of a median that K studies can give.

    From the lowest to the highest study: :math:`1 - 2^{1 - K}`. No resampling gets beyond it.
    """
    return 1 - 2.0 ** (1 - studies)


def studies_for(confidence: float) -> int:
    """Return the number of studies from which an interval of a median can have a confidence."""
    return math.ceil(1 - math.log2(1 - confidence) - 1e-9)
