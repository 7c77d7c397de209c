r"""Ranks over workloads: Friedman's test, and the critical difference of mean ranks.

On each workload contenders are ranked by median cost; rank 1 is the lowest. Equal costs share the
mean of their ranks, and so do all misses. The mean rank of contender s over W workloads is
:math:`\bar r_s`.

Friedman's test asks whether the ranks differ by more than chance. Its statistic, corrected for
ties, is

.. math:: Q = \frac{W^2 (S - 1) \sum_s (\bar r_s - \frac{S + 1}{2})^2}
                   {\sum_{s,w} (r_{sw} - \frac{S + 1}{2})^2}

Its p comes from permutations within workloads, all of them or 9,999 random ones. This is valid for
few workloads too, unlike the usual chi-squared approximation. By Nemenyi's test two contenders
differ if their mean ranks differ by at least

.. math:: \mathrm{CD} = q_\alpha \sqrt{\frac{S (S + 1)}{6 W}}

with q the studentized range for S means over the square root of 2.

References:
    Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006.
"""

import dataclasses
import math

import numpy as np

from analysis.statistics.resampling import CONFIDENCE
from analysis.statistics.samples import Floats

ENOUGH_WORKLOADS = 10
_PERMUTATIONS = 9_999  # and the measured one; all of them where there are no more


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Ranks of contenders on every workload, with Friedman's and Nemenyi's tests."""

    ranks: Floats  # (S, W)
    statistic: float  # Friedman's; NaN if every rank ties, or with two contenders or one workload
    p: float
    critical_difference: float
    warning: str | None  # why no critical-difference diagram may be drawn

    @property
    def mean(self) -> Floats:
        """Mean ranks, (S,)."""
        return self.ranks.mean(axis=1)

    def groups(self) -> list[tuple[int, ...]]:
        """Return the maximal groups of contenders within one critical difference, by rank."""
        order = np.argsort(self.mean, kind="stable")
        ordered = self.mean[order]
        reach = np.searchsorted(ordered, ordered + self.critical_difference, side="left")
        found: list[tuple[int, ...]] = []
        last = 0
        for start, stop in enumerate(reach):
            if stop > last and stop - start > 1:
                found.append(tuple(int(i) for i in order[start:stop]))
            last = max(last, int(stop))
        return found


def rank_contenders(
    medians: Floats, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> Ranking:
    """Rank contenders on every workload.

    Args:
        medians: (contenders, workloads), inf for a miss.
        rng: The source of the permutations of Friedman's test.
        confidence: The confidence of the critical difference.
    """
    from scipy.stats import permutation_test, rankdata

    ranks = rankdata(medians, axis=0)
    contenders, workloads = ranks.shape
    statistic = p = difference = math.nan
    if contenders > 1:
        difference = critical_difference(contenders, workloads, confidence)
    if contenders > 2 and workloads > 1 and (ranks != ranks.mean()).any():
        # Sorted, so that the draws do not depend on the order of workloads.
        ordered = ranks[:, np.lexsort(ranks)]
        test = permutation_test(
            tuple(ordered), _friedman, permutation_type="samples", n_resamples=_PERMUTATIONS,
            vectorized=True, alternative="greater", rng=rng,
        )  # fmt: skip
        statistic, p = float(test.statistic), float(test.pvalue)
    return Ranking(ranks, statistic, p, difference, _warning(contenders, workloads, difference))


def _friedman(*rows: Floats, axis: int) -> Floats:
    """Return Q of the ranks, one array per contender with its workloads along ``axis``."""
    ranks = np.moveaxis(np.stack(rows), axis, -1)  # (S, ..., W)
    contenders, workloads = len(rows), ranks.shape[-1]
    middle = (contenders + 1) / 2
    between = ((ranks.mean(axis=-1) - middle) ** 2).sum(axis=0)
    return workloads**2 * (contenders - 1) * between / ((ranks - middle) ** 2).sum(axis=(0, -1))


def critical_difference(contenders: int, workloads: int, confidence: float = CONFIDENCE) -> float:
    """Return Nemenyi's critical difference of mean ranks."""
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(confidence, contenders, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(contenders * (contenders + 1) / (6 * workloads)))


def _warning(contenders: int, workloads: int, difference: float) -> str | None:
    if contenders < 3:
        return f"{contenders} contenders are too few to rank: Friedman's test needs 3."
    if workloads < ENOUGH_WORKLOADS:
        return (
            f"{workloads} workload{'s are' if workloads != 1 else ' is'} too few for a "
            f"critical-difference diagram, which needs {ENOUGH_WORKLOADS}: mean ranks would have "
            f"to differ by {difference:.1f}, of the {contenders - 1} between first and last."
        )
    return None
