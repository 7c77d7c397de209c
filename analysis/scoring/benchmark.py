"""The workloads that a score averages over, and AlgoPerf's rules for held-out variants.

The rules turn a table of costs into costs on the base workloads:

    1. a variant counts only if the target of its base workload was reached;
    2. a cost beyond the end of the score's axis, as a multiple of the best one, is a miss;
    3. a base workload counts only if its variant still counts.

The axis ends at four times the best cost, and including tuning, where the axis is logarithmic, at
32 times. Our campaigns have no variants; their scores average over all workloads.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from analysis.logs.logs import Logs
from analysis.scoring.costs import View
from analysis.scoring.profiles import LIMIT, LINEAR, LOGARITHMIC, Axis, profile_area, ratios

Floats = NDArray[np.float64]
# Costs including tuning spread over two orders of magnitude, so most would be beyond 4.
AXES: dict[View, Axis] = {"including": LOGARITHMIC, "given": LINEAR, "only": LINEAR}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Base workloads and their variants, in the order of the columns of a table of costs."""

    base: tuple[str, ...]
    base_of: dict[str, str] = dataclasses.field(default_factory=dict)  # by variant

    @property
    def workloads(self) -> tuple[str, ...]:
        """All columns."""
        return (*self.base, *self.base_of)

    def apply(self, costs: Floats, limit: float = LIMIT) -> Floats:
        """Return the costs on the base workloads, with the rules for variants applied.

        Args:
            costs: (..., contenders, workloads); inf or NaN for a miss.
            limit: The largest ratio to the best cost that is not a miss.

        Returns:
            (..., contenders, base workloads); inf for a miss.
        """
        table = np.where(np.isnan(costs), np.inf, costs)
        count = len(self.base)
        if self.base_of:
            base = [self.base.index(name) for name in self.base_of.values()]
            for offset, place in enumerate(base):
                variant = table[..., count + offset]
                table[..., count + offset] = np.where(np.isinf(table[..., place]), np.inf, variant)
            best = table.min(axis=-2, keepdims=True)
            table = np.where(table > limit * best, np.inf, table)
            for offset, place in enumerate(base):
                missed = np.isinf(table[..., count + offset])
                table[..., place] = np.where(missed, np.inf, table[..., place])
        return table[..., :count]

    def ratios(self, costs: Floats, view: View) -> Floats:
        """Return the ratios to the best cost, (..., contenders, base workloads)."""
        return ratios(self.apply(costs, AXES[view].limit))

    def unreached(self, costs: Floats, view: View) -> tuple[str, ...]:
        """Return the base workloads on which no contender scores; costs (contenders, workloads)."""
        missed = np.isinf(self.apply(costs, AXES[view].limit)).all(axis=0)
        return tuple(self.base[place] for place in np.flatnonzero(missed))

    def score(self, costs: Floats, view: View) -> Floats:
        """Return the exact area under each profile, (..., contenders), for costs as in `apply`."""
        return profile_area(self.ratios(costs, view), AXES[view])

    def score_on_grid(self, costs: Floats) -> Floats:
        """Return the area as AlgoPerf's scorer integrates it: trapezoids between 100 points."""
        ratio = ratios(self.apply(costs))
        tau = np.linspace(1.0, LIMIT, 100)
        rho = (ratio[..., None] <= tau).mean(axis=-2)
        return np.trapezoid(rho, tau, axis=-1) / (LIMIT - 1.0)


def benchmark_of(logs: Logs) -> Benchmark:
    """Return the benchmark of logs: all workloads of a campaign, or those of the competition.

    If the targets' file lists no held-out workloads, logged variants count as held out, as in the
    official scorer.
    """
    targets = logs.competition.targets
    if logs.is_ours or targets is None:
        return Benchmark(tuple(logs.workloads))
    variants = targets.held_out or tuple(
        name
        for name in logs.workloads
        if name not in targets.base and targets.base_of(name) != name
    )
    return Benchmark(targets.base, {name: targets.base_of(name) for name in variants})
