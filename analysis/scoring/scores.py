r"""Score contenders: their costs on each workload, and the areas under their profiles.

Two sets of rules choose among the same hits:

    ============== =============================== ==========================================
    \              ``strict``, the default         ``algoperf``, as the official scorer
    ============== =============================== ==========================================
    trial          the cheapest hit within budget  the hit with the smallest evaluation index,
                                                   ties by cost; budgets are ignored
    missing study  a miss                          left out of the median
    views          given and including             given
    integral       exact                           trapezoids between 100 points
    ============== =============================== ==========================================

In some cases the official scorer stops, or its result depends on the order of files. There
``algoperf`` continues: of two frameworks the one with the larger median counts, a base workload
without logs adds 0 to every score, and an empty file or a missing column is a miss.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from analysis.logs.hardware import ANY_HARDWARE, HardwareChoice
from analysis.logs.logs import Logs
from analysis.scoring.benchmark import Benchmark, Floats, benchmark_of
from analysis.scoring.costs import VIEWS as VIEWS
from analysis.scoring.costs import (
    StudyCosts,
    Unit,
    View,
    costs_by_pair,
    hit_of,
    time_factors,
    unit_of,
)

ScoringRules = Literal["strict", "algoperf"]


@dataclasses.dataclass(frozen=True)
class Scores:
    """Costs to target and scores.

    Attributes:
        rules: The scoring rules.
        unit: The unit of the costs.
        contenders: The contenders, best first; those without a score last.
        benchmark: The workloads that scores average over.
        cells: The costs by contender and workload, for pairs with logs; also on workloads outside
            of the benchmark.
        scores: The scores by contender and view.
        studies: The number of studies that each contender should have on each workload.
        notes: The notes to show below a table of the scores.
        developed: The pairs of a contender and a workload that its submission was designed with.
        factors: The measured time factors by contender and workload.
        tuned: Whether any contender was tuned; otherwise both views have the same costs.
    """

    rules: ScoringRules
    unit: Unit
    contenders: tuple[str, ...]
    benchmark: Benchmark
    cells: Mapping[tuple[str, str], StudyCosts]
    scores: Mapping[str, Mapping[View, float]]
    studies: int
    notes: tuple[str, ...] = ()
    developed: frozenset[tuple[str, str]] = frozenset()
    factors: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    tuned: bool = True

    @property
    def workloads(self) -> tuple[str, ...]:
        """The workloads with logs: base workloads, variants, then others."""
        found = {workload for _, workload in self.cells}
        known = [name for name in self.benchmark.workloads if name in found]
        return (*known, *sorted(found - set(known)))

    @property
    def views(self) -> tuple[View, ...]:
        """The views of the rules; a single one if nothing was tuned."""
        if self.rules == "algoperf":
            return ("given",)
        return VIEWS if self.tuned else ("only",)

    def median(self, contender: str, workload: str, view: View) -> float:
        """Return the median cost; NaN without logs."""
        cell = self.cells.get((contender, workload))
        return math.nan if cell is None else cell.median(view)

    def matrix(self, view: View) -> Floats:
        """Return the medians over studies, (contenders, workloads of the benchmark)."""
        return np.array(
            [[self.median(c, w, view) for w in self.benchmark.workloads] for c in self.contenders]
        )

    def sorted_by(self, view: View) -> "Scores":
        """Return the scores with the contenders sorted by one view, ties by the other."""
        views: list[View] = [view, *(other for other in self.views if other != view)]

        def key(name: str) -> tuple[list[float], str]:
            # Rounded, because the order of a sum changes its last digit.
            mine: Mapping[View, float] = self.scores.get(name, {})
            return [-round(mine.get(one, -1), 9) for one in views], name

        return dataclasses.replace(self, contenders=tuple(sorted(self.contenders, key=key)))


def score_logs(
    logs: Logs,
    rules: ScoringRules = "strict",
    unit: Unit | None = None,
    hardware: HardwareChoice = ANY_HARDWARE,
) -> Scores:
    """Score logs, ours or AlgoPerf's.

    Args:
        logs: The logs.
        rules: The scoring rules.
        unit: The unit of the costs; by default the budgets' currency.
        hardware: Whether seconds of different hardware may be mixed.

    Raises:
        ValueError: The logs have no costs in that unit, or seconds would be mixed.
    """
    if rules == "algoperf":
        if unit not in (None, "seconds"):
            raise ValueError(f"The rules algoperf count seconds, got --cost {unit}.")
        if hardware.mix:
            raise ValueError("--mix-hardware goes with --rules strict: algoperf mixes all seconds.")
        unit, cells = "seconds", official_cells(logs)
        notes = HardwareChoice(mix=True).check(logs, unit)
    else:
        unit = unit_of(logs, unit)
        notes, cells = hardware.check(logs, unit), costs_by_pair(logs, unit)
    benchmark = benchmark_of(logs)
    developed = frozenset(pair for pair, trials in logs.by_pair.items()
                          if any(trial.record.developed_here for trial in trials))  # fmt: skip
    return scores_of(
        rules, unit, tuple(logs.contenders), benchmark, cells, logs.study_count, notes=notes,
        developed=developed, factors=time_factors(logs),
        tuned=logs.is_ours or any(t.record.ruleset == "external" for t in logs.trials),
    )  # fmt: skip


def scores_of(
    rules: ScoringRules,
    unit: Unit,
    contenders: tuple[str, ...],
    benchmark: Benchmark,
    cells: Mapping[tuple[str, str], StudyCosts],
    studies: int,
    **others: Any,
) -> Scores:
    """Compute the scores of costs; see :class:`Scores` for the arguments."""
    scores = Scores(rules, unit, contenders, benchmark, cells, {}, studies, **others)
    areas = {
        view: benchmark.score(scores.matrix(view), view)
        if rules == "strict"
        else benchmark.score_on_grid(scores.matrix(view))
        for view in scores.views
    }
    by_contender = {
        name: {view: float(area[index]) for view, area in areas.items()}
        for index, name in enumerate(contenders)
    }
    return dataclasses.replace(scores, scores=by_contender).sorted_by(scores.views[0])


def official_cells(logs: Logs) -> dict[tuple[str, str], StudyCosts]:
    """Return the official scorer's times to target, one per study with logs."""
    cells = {}
    for pair, trials in logs.by_pair.items():
        frameworks: dict[str, dict[int, list[Any]]] = {}
        for trial in trials:
            if trial.evaluations is not None:
                studies = frameworks.setdefault(trial.key.framework, {})
                studies.setdefault(trial.key.study, []).append(trial.record)
        times = [
            tuple(official_time(records) for _, records in sorted(studies.items()))
            for studies in frameworks.values()
        ]
        if times:
            cells[pair] = StudyCosts(max(times, key=statistics.median), ())
    return cells


def official_time(records: list[Any]) -> float:
    """Return a study's time: that of the hit with the smallest evaluation index, ties by time."""
    hits = [hit for record in records if (hit := hit_of(record, "seconds")) is not None]
    first = min(hits, key=lambda hit: (hit.evaluation, hit.trial), default=None)
    return math.inf if first is None else first.trial


def tied_studies(logs: Logs) -> list[str]:
    """Return the studies that the rules algoperf decide by a tie in the evaluation index."""
    studies: dict[str, list[Any]] = {}
    for trial in logs.trials:
        hit = hit_of(trial.record, "seconds")
        if hit is not None:
            name = f"{trial.key.submission} on {trial.key.workload}, study {trial.key.study}"
            studies.setdefault(name, []).append(hit)
    tied = []
    for name, hits in studies.items():
        first = min(hit.evaluation for hit in hits)
        if len({hit.trial for hit in hits if hit.evaluation == first}) > 1:
            tied.append(name)
    return tied
