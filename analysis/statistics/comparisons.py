r"""Paired comparisons of contenders: sign tests, and the number of studies that a decision needs.

In each paired study the contender with the lower cost wins. Equal costs and two misses are ties. If
neither contender is better, each study without a tie is a fair coin flip, for any distribution of
costs and any number of misses. With n wins in N studies without a tie, over all workloads, the
exact two-sided sign test has

.. math:: p = \min\Bigl(1,\; 2 \sum_{i \ge \max(n, N - n)} \binom{N}{i} 2^{-N}\Bigr)

A comparison is decided if p, adjusted by Holm for all comparisons of the table, is at most
1 - confidence. :func:`studies_needed` forecasts the effect of more studies from the wins so far.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from analysis.statistics.resampling import CONFIDENCE, win_matrix
from analysis.statistics.samples import Samples

POWER = 0.8  # probability that the forecast number of studies decides a comparison
MOST_STUDIES = 1000  # largest number of further studies in a forecast


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two contenders, study by study."""

    first: str
    second: str
    wins: int  # of the first
    losses: int
    ties: int
    p: float  # of the sign test
    adjusted: float  # by Holm, for all comparisons of the table
    decided: bool
    more: int | None  # further studies on each workload: 0 if decided; None: more than a thousand

    @property
    def winner(self) -> str | None:
        """The better contender; ``None`` while undecided."""
        if not self.decided:
            return None
        return self.first if self.wins > self.losses else self.second


def compare_all(
    samples: Samples,
    order: Sequence[int] | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> list[Comparison]:
    """Compare every two contenders.

    Args:
        samples: The costs of every study.
        order: The indices of the contenders; the earlier of two is the first. By default 0, 1, ...
        confidence: One minus the probability of any false decision in the table.
    """
    order = list(range(len(samples.contenders)) if order is None else order)
    pairs = list(itertools.combinations(order, 2))
    wins = win_matrix(samples.costs)
    counts = [
        (int((wins[a, b] == 1).sum()), int((wins[a, b] == 0).sum()), int((wins[a, b] == 0.5).sum()))
        for a, b in pairs
    ]
    ps = [sign_test(won, lost) for won, lost, _ in counts]
    found = []
    for (a, b), (won, lost, tied), p, adjusted in zip(pairs, counts, ps, holm(ps), strict=True):
        decided = adjusted <= 1 - confidence + 1e-12
        # The strictest level of Holm, because the other comparisons cannot be forecast.
        level = (1 - confidence) / len(pairs)
        more = 0 if decided else studies_needed(won, lost, samples.studies, level=level)
        names = samples.contenders[a], samples.contenders[b]
        found.append(Comparison(*names, won, lost, tied, p, adjusted, decided, more))
    return found


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p of the exact sign test; 1 without wins and losses."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's step-down method, in the given order.

    References:
        Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def studies_needed(
    wins: int,
    losses: int,
    studies: int,
    *,
    level: float = 1 - CONFIDENCE,
    chance: float | None = None,
) -> int | None:
    r"""Forecast how many further studies on each workload decide a comparison.

    The result is the smallest m for which a sign test over the studies so far and m more on each
    workload has p at most ``level`` with probability ``POWER``. Further studies are assumed to be
    like those so far: ties are as frequent, and the first contender wins a study without a tie
    with probability :math:`(n + \frac12) / (N + 1)`, independently. Half a win is added because a
    few equal outcomes do not make the next one certain. The level holds if the test is run once,
    after all m studies, and not after each study.

    Args:
        wins: n, the wins of the first contender.
        losses: N - n.
        studies: K, the number of studies so far on each workload.
        level: The largest p of a decided comparison.
        chance: The probability of a win, if it is known.

    Returns:
        m; ``None`` if more than ``MOST_STUDIES`` are needed, or if every study tied.
    """
    from scipy.stats import binom

    total = wins + losses
    if total == 0:
        return None
    chance = (wins + 0.5) / (total + 1) if chance is None else chance
    more = np.arange(1, MOST_STUDIES + 1)
    further = more * total // studies  # without a tie
    # The smallest number of wins with p at most `level`; above the total if there is none.
    needed = binom.isf(level / 2, total + further, 0.5) + 1
    decided = binom.sf(needed - wins - 1, further, chance)
    decided += binom.cdf(further - (needed - losses), further, chance)
    enough = np.flatnonzero(decided >= POWER)
    return int(more[enough[0]]) if enough.size else None
