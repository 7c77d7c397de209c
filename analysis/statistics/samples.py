r"""Costs to target as arrays, the input of all statistics.

Letters, the same in every module of the statistics and in docs/statistics.md:

    t_swk   cost of contender s on workload w in study k; inf for a miss
    S, W, K numbers of contenders, workloads, studies

Study k of every contender on a workload has the same seeds, so resamples and comparisons pair the
studies. No value is imputed for a missed study: its cost is inf.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.scoring.benchmark import Benchmark, Floats
from analysis.scoring.costs import StudyCosts, View
from analysis.scoring.orders import OrderCosts, medians_over_orders
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
        orders: The costs of each study over the orders of its trials, by the indices of contender
            and workload; ``costs`` then has the medians over orders.
        budgets: The budgets that a miss had, (S, W); NaN where they are not known, ``None`` if
            none is.

    Raises:
        ValueError: The shape differs from the names, there are no costs, or a cost is negative or
            NaN.
    """

    contenders: tuple[str, ...]
    workloads: tuple[str, ...]
    costs: Floats
    benchmark: Benchmark | None = None
    view: View = "given"
    orders: Mapping[tuple[int, int], Sequence[OrderCosts]] = dataclasses.field(default_factory=dict)
    budgets: Floats | None = None

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
        """The median over studies and orders, (S, W); misses count as inf."""
        return self.medians_of(np.tile(np.arange(self.studies), (1, len(self.workloads), 1)))[0]

    def generators(self, seed: int) -> list[np.random.Generator]:
        """Return a source of draws for each workload, which depends on the seed and its name only.

        So the draws of a workload stay the same if workloads are sorted, added or left out.
        """
        names = (name.encode("utf-8", "surrogatepass") for name in self.workloads)
        return [np.random.default_rng((seed, *name)) for name in names]

    def medians_of(self, picks: NDArray[np.int64]) -> Floats:
        """Return medians over picked studies, (R, S, W).

        Args:
            picks: The indices of studies on each workload, with repetitions, (R, W, any number).
        """
        medians = np.empty((len(picks), *self.costs.shape[:2]))
        for w in range(len(self.workloads)):  # one at a time, to save memory
            medians[:, :, w] = np.median(self.costs[:, w, picks[:, w]], axis=2).T
        for (s, w), orders in self.orders.items():
            counts = (picks[:, w, :, None] == np.arange(self.studies)).sum(axis=1)
            medians[:, s, w] = medians_over_orders(orders, counts)
        return medians

    def without_misses(self, costs: Floats) -> Floats:
        """Return costs, (..., S, W), with the budget in place of each miss; NaN if not known."""
        return np.where(np.isinf(costs), np.nan if self.budgets is None else self.budgets, costs)

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
    nothing = (math.inf,) * scores.studies
    missed = StudyCosts(nothing, nothing)
    cells = {
        (s, w): scores.cells.get((name, workload), missed)
        for s, name in enumerate(contenders)
        for w, workload in enumerate(workloads)
    }
    costs = np.array([cell.costs(view) for cell in cells.values()], float)
    orders = {place: cell.orders for place, cell in cells.items() if cell.orders}
    shape = len(contenders), len(workloads)
    known = [math.nan if (b := cell.budget(view)) is None else b for cell in cells.values()]
    budgets = np.array(known).reshape(shape)
    # A contender that did not run on a workload had the largest budget there.
    budgets = np.where(np.isnan(budgets), np.fmax.reduce(budgets, axis=0), budgets)
    return Samples(
        tuple(contenders), tuple(workloads), costs.reshape(*shape, -1), scores.benchmark, view,
        orders if view == "including" else {}, budgets,
    )  # fmt: skip
