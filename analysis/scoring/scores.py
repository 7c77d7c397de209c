"""The score table under the rules ``strict`` (the default).

The cheapest trial of a study counts, a missing study is a miss, budgets are enforced, and the
integral is exact. What the official scorer computes is in :mod:`analysis.scoring.algoperf_rules`.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.logs.hardware import ANY_HARDWARE, HardwareChoice
from analysis.logs.reading import Logs, read_logs
from analysis.scoring.costs import Cell, View, cost_table
from analysis.scoring.profiles import profile_area, ratios
from metaopt.bench.budget import Currency

VIEWS: tuple[View, View] = ("including", "given")
_DEVELOPED = "‡"
DEVELOPED_NOTE = f"{_DEVELOPED} The submission was designed with this workload."


@dataclasses.dataclass(frozen=True)
class Scores:
    """Costs to target and scores of every contender, best first."""

    currency: Currency
    contenders: tuple[str, ...]
    workloads: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    scores: dict[str, dict[View, float]]  # by contender
    studies: int
    notes: tuple[str, ...] = ()  # what a table has to say of them
    # Contenders and workloads where the workload was looked at while the submission was designed.
    developed: frozenset[tuple[str, str]] = frozenset()

    def matrix(self, view: View) -> NDArray[np.float64]:
        """Return the medians over studies, (contenders, workloads)."""
        return np.array(
            [[self.cells[c, w].median(view) for w in self.workloads] for c in self.contenders]
        )

    def sorted_by(self, view: View) -> "Scores":
        """Return the same with the contenders in order of one view, ties by the other and name."""
        other: View = "given" if view == "including" else "including"
        order = sorted(
            self.contenders, key=lambda c: (-self.scores[c][view], -self.scores[c][other], c)
        )
        return dataclasses.replace(self, contenders=tuple(order))


def score_strictly(
    logs: Logs, currency: Currency | None = None, hardware: HardwareChoice = ANY_HARDWARE
) -> Scores:
    """Score a campaign under the strict rules, in both views.

    Args:
        logs: What was read.
        currency: Of the costs; by default that of the first budget.
        hardware: Whether seconds of different hardware may be mixed.

    Raises:
        ValueError: They are and may not.
    """
    currency = currency or logs.trials[0].record.budget.currency
    notes = hardware.check(logs, currency)
    cells = cost_table(logs, currency)
    contenders, workloads = tuple(logs.contenders), tuple(logs.workloads)
    records = (trial.record for trial in logs.trials)
    developed = frozenset((r.contender, r.workload) for r in records if r.developed_here)
    scores = Scores(currency, contenders, workloads, cells, {}, logs.study_count, notes, developed)
    areas = {view: profile_area(ratios(scores.matrix(view))) for view in VIEWS}
    by_contender: dict[str, dict[View, float]] = {
        contender: {view: float(areas[view][index]) for view in VIEWS}
        for index, contender in enumerate(contenders)
    }
    return dataclasses.replace(scores, scores=by_contender).sorted_by("including")


def score_path(
    path: Path,
    currency: Currency | None = None,
    hardware: HardwareChoice = ANY_HARDWARE,
    within: str | None = None,
) -> tuple[Logs, Scores]:
    """Read and score; raises ``ValueError`` where there is nothing to score, or not on this."""
    logs = hardware.select(read_logs(path, within))
    return logs, score_strictly(logs, currency, hardware)


def mark_developed(text: str, developed: bool) -> str:
    """Return a cell's text, marked where the workload took part in designing the submission.

    Examples:
        >>> mark_developed("100 / 150", True), mark_developed("100 / 150", False)
        ('100 / 150 ‡', '100 / 150')
    """
    return f"{text} {_DEVELOPED}" if developed else text


def format_cost(value: float) -> str:
    """Write a cost for a table; a target that was not reached is a dash.

    Examples:
        >>> format_cost(12345.6), format_cost(0.12345), format_cost(float("inf"))
        ('12,346', '0.123', '-')
    """
    if math.isinf(value):
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
