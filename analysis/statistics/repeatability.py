r"""Repeatability: whether another campaign of the same kind would rank the contenders alike.

*Split-half tau.* The K studies are divided into two halves, independently on each workload. Each
half has scores, and Kendall's tau-b compares the two rankings. The figure is the mean over many
divisions, and describes rankings from half of the studies. By Spearman and Brown the number of
studies that would give a tau of g is about

.. math:: K \frac{g (1 - \tau)}{(1 - g) \tau}

*Intraclass correlation.* ICC(1) of log costs on one workload is the share of their variance that
lies between contenders, from the mean squares of a one-way analysis of variance,

.. math:: \frac{\mathrm{MSB} - \mathrm{MSW}}{\mathrm{MSB} + (k_0 - 1) \mathrm{MSW}}
    \quad\text{with}\quad k_0 = \frac{N - \sum_s n_s^2 / N}{S - 1}

for n_s costs of contender s, N in all; k_0 = K if every contender has K of them.

Contenders that reached no target in any study are left out of both.

References:
    Shrout and Fleiss, Intraclass Correlations: Uses in Assessing Rater Reliability, 1979.
    Spearman, Correlation Calculated from Faulty Data, 1910; Brown, Some Experimental Results in the
    Correlation of Mental Abilities, 1910.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.samples import Floats, Samples

GOAL = 0.7  # of the split-half tau; a table below it would not repeat
DIVISIONS = 200
LEAST_STUDIES = 4
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Repeatability:
    """How well the ranking of a table would repeat.

    Attributes:
        tau: The split-half tau; NaN if it is not defined.
        reason: Why it is not defined; empty if it is.
        studies: K.
        needed: The number of studies that would give ``GOAL``; ``None`` if none follows.
        correlations: The intraclass correlation on each workload, (W,); NaN if not defined.
        left_out: The contenders that reached no target in any study.
    """

    tau: float
    reason: str
    studies: int
    needed: int | None
    correlations: Floats
    left_out: tuple[str, ...]

    @property
    def repeats(self) -> bool | None:
        """Whether the ranking would repeat; ``None`` if that is not known."""
        return None if math.isnan(self.tau) else self.tau >= GOAL


def measure_repeatability(samples: Samples) -> Repeatability:
    """Return the repeatability of a table."""
    arrived = np.flatnonzero(np.isfinite(samples.costs).any(axis=(1, 2)))
    left_out = tuple(name for s, name in enumerate(samples.contenders) if s not in arrived)
    tau, reason = math.nan, ""
    if samples.studies < LEAST_STUDIES:
        reason = f"it needs at least {LEAST_STUDIES} studies, and these are {samples.studies}"
    elif len(arrived) < 2:
        reason = f"it needs 2 contenders that reached a target, and there are {len(arrived)}"
    else:
        tau = split_half_tau(samples, arrived)
    needed = None if reason else studies_to_repeat(tau, samples.studies)
    correlations = np.array(_correlations(samples, arrived))
    return Repeatability(tau, reason, samples.studies, needed, correlations, left_out)


def split_half_tau(samples: Samples, contenders: NDArray[np.int64]) -> float:
    """Return the mean Kendall's tau-b between the rankings of two halves of the studies.

    A division in which tau is not defined counts as 0. Of an odd number of studies, each division
    drops one at random.

    Args:
        samples: The costs.
        contenders: The indices of at least two contenders to rank.
    """
    from scipy.stats import kendalltau

    studies = np.tile(np.arange(samples.studies), (DIVISIONS, 1))
    drawn = [rng.permuted(studies, axis=1) for rng in samples.generators(_SEED)]
    picks = np.stack(drawn, axis=1)  # (divisions, W, K)
    half = samples.studies // 2
    # Rounded, because rounding errors would break ties.
    one, other = (
        np.round(samples.score(samples.medians_of(part)[:, contenders]), 9)
        for part in (picks[..., :half], picks[..., half : 2 * half])
    )
    taus = [kendalltau(a, b)[0] for a, b in zip(one, other, strict=True)]
    return float(np.mean(np.nan_to_num(taus)))


def studies_to_repeat(tau: float, studies: int) -> int | None:
    """Return the even number of studies whose halves would agree by ``GOAL``.

    An approximation (Spearman and Brown), at least ``LEAST_STUDIES``; ``None`` if tau is not
    positive.
    """
    if tau <= 0:
        return None
    compared = studies // 2 * 2  # of an odd number, one is dropped
    exact = compared * GOAL * (1 - tau) / ((1 - GOAL) * tau)
    return max(LEAST_STUDIES, 2 * math.ceil(exact / 2 - 1e-9))


def intraclass_correlation(groups: Sequence[Floats]) -> float:
    """Return ICC(1) of values in groups; NaN if nothing varies or groups have no repetitions.

    Args:
        groups: The values of each group, at least one in each.
    """
    values, sizes = np.concatenate(groups), np.array([len(group) for group in groups])
    total, count = len(values), len(groups)
    if count < 2 or total == count or np.ptp(values) == 0:
        return math.nan
    means = np.array([group.mean() for group in groups])
    between = (sizes * (means - values.mean()) ** 2).sum() / (count - 1)
    within = sum(((g - m) ** 2).sum() for g, m in zip(groups, means, strict=True)) / (total - count)
    size = (total - (sizes**2).sum() / total) / (count - 1)
    return float((between - within) / (between + (size - 1) * within))


def _correlations(samples: Samples, contenders: NDArray[np.int64]) -> list[float]:
    """Return the intraclass correlation of log cost on each workload; a miss costs its budget."""
    costs = np.moveaxis(samples.without_misses(np.moveaxis(samples.costs, 2, 0)), 0, 2)
    found = []
    for rows in np.moveaxis(costs[contenders], 1, 0):
        if np.isnan(rows).any():  # a miss whose budget is not known
            found.append(math.nan)
            continue
        # A cost of 0, where the initial parameters meet the target, has no logarithm.
        groups = [np.log(row[row > 0]) for row in rows if (row > 0).any()]
        found.append(intraclass_correlation(groups) if groups else math.nan)
    return found
