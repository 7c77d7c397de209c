"""Costs to target: given tuned, and including tuning.

For one study of a contender on a workload, with inf where no trial met the target within budget:

    given       the smallest own cost of a trial that met it; for a self-tuning run the cost since
                the restart of the episode that met it
    including   what the study had spent when some trial first met it, on all trials: also between
                the pauses of the one that met it

A cell of the table is the median over studies; a missing study is a miss, and inf takes part.
"""

import dataclasses
import math
import statistics
from typing import Literal

from analysis.logs.reading import Logs
from metaopt.bench.budget import Currency
from metaopt.bench.records import TrialRecord

View = Literal["including", "given"]

# The column of evaluations that holds what a trial had spent.
COLUMNS: dict[Currency, str] = {
    "steps": "global_step",
    "gradient_evaluations": "gradient_evaluations",
    "seconds": "accumulated_submission_time",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One contender on one workload."""

    given: tuple[float, ...]  # one entry per study, inf for a miss
    including: tuple[float, ...]

    def costs(self, view: View) -> tuple[float, ...]:
        """Return the studies' costs in one view."""
        return getattr(self, view)

    def median(self, view: View) -> float:
        """Return the median over studies."""
        return statistics.median(self.costs(view))

    @property
    def reached(self) -> int:
        """How many studies met the target."""
        return sum(map(math.isfinite, self.including))


def cost_table(logs: Logs, currency: Currency) -> dict[tuple[str, str], Cell]:
    """Return the cell of every contender on every workload, all in one currency.

    A miss is a miss in every currency: whether a hit counts is decided in that of the budgets.
    """
    by_study: dict[tuple[str, str, int], list[TrialRecord]] = {}
    for trial in logs.trials:
        record = trial.record
        by_study.setdefault((record.contender, record.workload, record.study), []).append(record)
    cells = {}
    for contender in logs.contenders:
        for workload in logs.workloads:
            pairs = [
                study_costs(by_study.get((contender, workload, study), []), currency)
                for study in range(1, logs.study_count + 1)
            ]
            cells[contender, workload] = Cell(*zip(*pairs, strict=True))
    return cells


def study_costs(trials: list[TrialRecord], currency: Currency) -> tuple[float, float]:
    """Return ``(given, including)`` of one study's trials; inf where no hit counts.

    A hit beyond the study's budget, or beyond the trial's own, does not count.
    """
    given = including = math.inf
    for trial in trials:
        if trial.reached is None:
            continue
        budget = trial.budget
        total = trial.spent_at(trial.reached.cost)
        own = trial.reached.cost.amount(budget.currency)
        if total.amount(budget.currency) > budget.study or own > budget.trial:
            continue
        given = min(given, trial.reached.episode_cost.amount(currency))
        including = min(including, total.amount(currency))
    return given, including
