r"""Costs to target as arrays, the input of all statistics.

Letters, the same in every module of the statistics and in docs/statistics.md:

    t_swk   cost of contender s on workload w in study k; inf for a miss
    S, W, K numbers of contenders, workloads, studies

Study k of every contender on a workload has the same seeds, so resamples and comparisons pair the
studies. No value is imputed for a missed study: its cost is inf.
"""

import dataclasses
import math

import numpy as np

from analysis.scoring.benchmark import Benchmark, Floats
from analysis.scoring.costs import StudyCosts, View
from analysis.scoring.scores import Scores


@dataclasses.dataclass(frozen=True)
class Samples:
    """The cost of every study.

    Attributes:
        contenders: The S names.
        workloads: The W names, held-out variants last.
        costs: t, (S, W, K).
        benchmark: The workloads that a score averages over; by default all of them.
        view: The view of the costs, which decides the axis of a score.

    Raises:
        ValueError: The shape differs from the names, there are no costs, or a cost is negative or
            NaN.
    """

    contenders: tuple[str, ...]
    workloads: tuple[str, ...]
    costs: Floats
    benchmark: Benchmark | None = None
    view: View = "given"

    def __post_init__(self) -> None:
        """Check shape and values."""
        shape = len(self.contenders), len(self.workloads)
        if self.costs.ndim != 3 or self.costs.shape[:2] != shape or 0 in self.costs.shape:
            raise ValueError(
                f"`costs` must be (contenders, workloads, studies) with {shape} first and nothing "
                f"empty, got {self.costs.shape}."
            )
        if not (self.costs >= 0).all():  # also catches NaN
            raise ValueError("`costs` must be 0 or more, inf for a miss; NaN is no cost.")

    @property
    def studies(self) -> int:
        """K."""
        return self.costs.shape[2]

    @property
    def reached(self) -> Floats:
        """The share of studies that reached the target, (S, W)."""
        return np.isfinite(self.costs).mean(axis=2)

    @property
    def medians(self) -> Floats:
        """The median over studies, (S, W); misses count as inf."""
        return np.median(self.costs, axis=2)

    @property
    def scored(self) -> Benchmark:
        """The benchmark; a score is a mean over its base workloads."""
        return self.benchmark or Benchmark(self.workloads)

    def score(self, medians: Floats) -> Floats:
        """Return the scores of median costs, (..., S) for (..., S, W)."""
        return self.scored.score(medians, self.view)


def samples_of(scores: Scores, view: View) -> Samples:
    """Return the costs behind scores, contenders by name; pairs without logs are misses.

    Raises:
        ValueError: The rules are not strict. Others leave missing studies out, which breaks the
            pairing.
    """
    if scores.rules != "strict":
        raise ValueError(f"Statistics need the rules strict, got {scores.rules}.")
    contenders, workloads = sorted(scores.contenders), scores.benchmark.workloads
    missed = StudyCosts(*(2 * ((math.inf,) * scores.studies,)))
    costs = [[scores.cells.get((s, w), missed).costs(view) for w in workloads] for s in contenders]
    return Samples(
        tuple(contenders), tuple(workloads), np.array(costs, float), scores.benchmark, view
    )
