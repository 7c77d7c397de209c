r"""Costs to target as arrays: what the statistics work on.

Letters, the same in every module of the statistics and in docs/statistics.md:

    t_swk   cost of contender s on workload w in study k; inf where it did not reach the target
    l_swk   a lower bound of that cost: t_swk where it reached the target, else what is known
    S, W, K numbers of contenders, workloads, studies

Study k of every contender on a workload has the same seeds: whatever resamples or compares studies
takes study k of all contenders together. Nothing is imputed for a study that missed: it is inf.
"""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.checks.fairness import missing_studies
from analysis.logs.hardware import ANY_HARDWARE, HardwareChoice
from analysis.logs.logs import Logs
from analysis.logs.reader import read_logs
from analysis.scoring.costs import Cell, View, cost_table
from metaopt.bench.budget import Currency
from metaopt.bench.records import Cost

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Samples:
    """The cost of every study.

    Raises:
        ValueError: Shapes differ from the names, there is nothing, or a number is no cost.
    """

    contenders: tuple[str, ...]
    workloads: tuple[str, ...]
    costs: Floats  # t, (contenders, workloads, studies)
    floors: Floats  # l, the same shape

    def __post_init__(self) -> None:
        """Check shapes and values."""
        shape = len(self.contenders), len(self.workloads)
        for name in ("costs", "floors"):
            values = getattr(self, name)
            if values.ndim != 3 or values.shape[:2] != shape or 0 in values.shape:
                raise ValueError(
                    f"`{name}` must be (contenders, workloads, studies) with {shape} first and "
                    f"nothing empty, got {values.shape}."
                )
            if not (values >= 0).all():  # also catches NaN
                raise ValueError(f"`{name}` must be 0 or more, inf for a miss; NaN is no cost.")
        if self.costs.shape != self.floors.shape or (self.floors > self.costs).any():
            raise ValueError("`floors` must be bounds of `costs` from below, one for each.")

    @property
    def studies(self) -> int:
        """K."""
        return self.costs.shape[2]

    @property
    def reached(self) -> Floats:
        """Share of studies that reached the target, (contenders, workloads)."""
        return np.isfinite(self.costs).mean(axis=2)

    @property
    def medians(self) -> Floats:
        """Median over studies, (contenders, workloads); inf takes part."""
        return np.median(self.costs, axis=2)


def samples_of(logs: Logs, currency: Currency, view: View) -> Samples:
    """Return the samples of a campaign under the strict rules.

    Args:
        logs: What was read.
        currency: Of the costs.
        view: ``including`` or ``given`` (tuned). A study that missed has spent what it has spent,
            which bounds its cost including tuning from below. Of its cost given tuned nothing is
            known: its bound is 0.
    """
    cells = cost_table(logs, currency)
    spent: dict[tuple[str, str, int], Any] = {}
    for trial in logs.trials:
        record = trial.record
        key = record.contender, record.workload, record.study
        spent[key] = spent.get(key, Cost()) + record.ledger.cost
    floors = {
        (contender, workload): tuple(
            spent.get((contender, workload, study), Cost()).amount(currency)
            for study in range(1, logs.study_count + 1)
        )
        for contender, workload in cells
    }
    return make_samples(logs.contenders, logs.workloads, cells, floors, view)


def samples_of_path(
    path: Path, currency: Currency | None, view: View, hardware: HardwareChoice = ANY_HARDWARE
) -> tuple[Samples, Currency, tuple[str, ...]]:
    """Read a campaign; return its samples, their currency and what is to be said of them.

    Args:
        path: The campaign's output folder, or its logs.
        currency: Of the costs; by default that of the budgets.
        view: ``including`` or ``given``.
        hardware: Runs on which hardware, and whether their seconds may be mixed.

    Raises:
        ValueError: There is nothing to read, or seconds would be mixed.
    """
    logs = hardware.select(read_logs(path))
    currency = currency or logs.trials[0].record.budget.currency
    missing = tuple(f"MISSING, counted as a miss: {entry}" for entry in missing_studies(logs))
    notes = hardware.check(logs, currency) + missing
    return samples_of(logs, currency, view), currency, notes


def make_samples(
    contenders: list[str],
    workloads: list[str],
    cells: dict[tuple[str, str], Cell],
    spent: dict[tuple[str, str], tuple[float, ...]],
    view: View,
) -> Samples:
    """Return samples of cells by (contender, workload) and of what their studies spent."""
    costs = np.array([[cells[s, w].costs(view) for w in workloads] for s in contenders], float)
    bounds = np.array([[spent[s, w] for w in workloads] for s in contenders], float)
    if view == "given":
        bounds = np.zeros_like(costs)
    floors = np.where(np.isfinite(costs), costs, bounds)
    return Samples(tuple(contenders), tuple(workloads), costs, floors)
