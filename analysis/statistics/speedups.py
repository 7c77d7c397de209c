r"""Speed-ups over a reference contender, with bounds where a median study missed its target.

The speed-up of contender s over the reference is the geometric mean over the W workloads of

.. math:: m_{\mathrm{ref}, w} / m_{sw}

with m the median cost, which is taken first. An infinite median is replaced by the budget that the
contender had, so that the speed-up becomes a bound. Where both medians are infinite the ratio is 1,
and nothing is known about it.

An end of an interval holds whatever the misses would have cost: in a resample in which the
contender missed a target, the speed-up may be as low as 0 for the lower end, and where the
reference missed, infinite for the upper end. An end of 0 or infinity is empty.
"""

import dataclasses
import math
from typing import Literal

import numpy as np

from analysis.scoring.profiles import ordered_mean
from analysis.statistics.resampling import (
    CONFIDENCE,
    Bootstrap,
    Estimates,
    percentile_interval,
)
from analysis.statistics.samples import Floats, Samples

REFERENCE = "adamw+random"
# AlgoPerf's logs have no contender of that name. Theirs is the baseline, which is shown as
# "Baseline" or "Self-Tuning Baseline".
_ALGOPERF = "baseline"

Bound = Literal["", ">=", "<=", "~"]


@dataclasses.dataclass(frozen=True)
class Speedups:
    """The speed-up of each of S contenders over a reference.

    Attributes:
        contenders: The names of the contenders.
        reference: The name of the reference.
        values: The speed-ups, (S,); NaN where a miss has no known budget, and for an end of an
            interval that has no limit.
        bounds: ``>=`` where the reference missed on some workloads, ``<=`` where the contender did,
            ``~`` where both did; none for the reference.
        both_missed: The number of workloads on which both missed.
        ratios: The ratios that a speed-up is the mean of, (S, W); NaN where it has none.
    """

    contenders: tuple[str, ...]
    reference: str
    values: Estimates
    bounds: tuple[Bound, ...]
    both_missed: tuple[int, ...]
    ratios: Floats

    def of(self, contender: str) -> tuple[Bound, float, float, float]:
        """Return the bound, the speed-up and its interval; NaN for another contender's."""
        if contender not in self.contenders:
            return "", math.nan, math.nan, math.nan
        s, values = self.contenders.index(contender), self.values
        ends = float(values.low[s]), float(values.high[s])
        return self.bounds[s], float(values.value[s]), *ends


def measure_speedups(
    boot: Bootstrap, reference: str, confidence: float = CONFIDENCE
) -> Speedups | None:
    """Return the speed-ups with intervals; ``None`` if the default reference did not run.

    Args:
        boot: The resamples.
        reference: The name of the reference.
        confidence: The confidence of the intervals.

    Raises:
        ValueError: The reference is not a contender and not the default.
    """
    samples = boot.samples
    if reference == REFERENCE and reference not in samples.contenders:
        baselines = [name for name in samples.contenders if name.casefold().endswith(_ALGOPERF)]
        if not baselines:
            return None
        reference = min(baselines, key=len)
    if reference not in samples.contenders:
        raise ValueError(
            f"`reference` must be a contender, got {reference!r}. Choose one of "
            f"{', '.join(samples.contenders)}."
        )
    place = samples.contenders.index(reference)
    base = len(samples.scored.base)
    missed = np.isinf(samples.medians[:, :base])  # (S, W)
    misses = missed.sum(axis=1)
    drawn = _speedups(samples, boot.medians, place)
    drawn_missed = np.isinf(boot.medians[..., :base]).sum(axis=-1) > 0  # (R, S)
    low, _ = percentile_interval(np.where(drawn_missed, 0.0, drawn), confidence)
    _, high = percentile_interval(np.where(drawn_missed[:, [place]], np.inf, drawn), confidence)
    return Speedups(
        samples.contenders,
        reference,
        Estimates(
            _speedups(samples, samples.medians, place),
            np.where(low == 0, np.nan, low),
            np.where(np.isinf(high), np.nan, high),
        ),
        tuple(
            "" if s == place else _bound(count > 0, misses[place] > 0)
            for s, count in enumerate(misses)
        ),
        tuple(map(int, (missed & missed[place]).sum(axis=1))),
        np.exp(_log_ratios(samples, samples.medians, place)),
    )


def _speedups(samples: Samples, medians: Floats, reference: int) -> Floats:
    """Return the speed-ups, (..., S), of medians, (..., S, W)."""
    with np.errstate(invalid="ignore"):
        return np.exp(ordered_mean(_log_ratios(samples, medians, reference)))


def _log_ratios(samples: Samples, medians: Floats, reference: int) -> Floats:
    """Return the logarithms of the reference's median costs over each contender's."""
    base = len(samples.scored.base)
    costs, missed = samples.without_misses(medians)[..., :base], np.isinf(medians)[..., :base]
    theirs, both = costs[..., [reference], :], missed & missed[..., [reference], :]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(both | (costs == theirs), 0.0, np.log(theirs) - np.log(costs))
        # A cost of 0, where the initial parameters meet the target, has no ratio.
    return np.where(np.isfinite(logs), logs, np.nan)


def _bound(contender_missed: bool, reference_missed: bool) -> Bound:
    if contender_missed:
        return "~" if reference_missed else "<="
    return ">=" if reference_missed else ""
