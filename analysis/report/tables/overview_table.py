"""The narrow table of a report's answer: fifteen workloads fit 1,300 pixels."""

import dataclasses
import math
from typing import Any

from analysis.report.marks import Marks
from analysis.report.table import (
    BARE_BOUND,
    OVERVIEW_COST,
    SCORE,
    YES,
    Bounded,
    CellFormat,
    Column,
    OverviewCost,
    ScoreEstimate,
    Table,
    estimate_format,
)
from analysis.report.tables.score_tables import (
    NO_EXTRAS,
    TIME_FACTORS,
    VIEW_NAMES,
    Extras,
    in_view,
    score_notes,
    time_factor_over_workloads,
    unit_name,
)
from analysis.scoring.benchmark import AXES
from analysis.scoring.costs import View
from analysis.scoring.profiles import shares
from analysis.scoring.scores import Scores
from analysis.statistics.speedups import Speedups

_GEOMETRIC = "the geometric mean over workloads"
_BARE_FACTOR = CellFormat(
    lambda found: f"{found.value:.2f}",
    lambda found: {"": found.value, "low": found.low, "high": found.high},
    lambda found: found.value,
)
_BARE_SCORE = CellFormat(
    lambda found: SCORE.text(found.value),
    lambda found: {"": found.value},
    lambda found: found.value,
)


def overview_table(
    scores: Scores, marks: Marks, extras: Extras = NO_EXTRAS, speedups: Speedups | None = None
) -> Table:
    """Return one narrow row per contender: scores, speed-up, time factor, cost on each workload.

    Args:
        scores: The scores.
        marks: The marks of the contenders.
        extras: The intervals of the scores, and the filter values of rows.
        speedups: The speed-ups in the first view.
    """
    first = scores.views[0]
    columns = [Column("contender", marks.format)]
    shown = {view for _, view in extras.score_intervals}
    for index, view in enumerate(scores.views):
        name = "score" if index == 0 else VIEW_NAMES[view]
        style = estimate_format(SCORE) if index == 0 and view in shown else _BARE_SCORE
        columns.append(Column(name, style, f"score_{view}", turned=index > 0))
    if extras.verified is not None:
        columns.append(Column("verified", YES))
    if speedups is not None:
        columns.append(Column("speed-up", BARE_BOUND))
    if scores.factors:
        columns.append(Column("time factor", _BARE_FACTOR, turned=True))
    columns += [Column(w, OVERVIEW_COST, workload=w, turned=True) for w in scores.workloads]
    added = {view: _shares(scores, view) for view in scores.views}
    rows = []
    for name in scores.contenders:
        row: list[Any] = [name]
        for view in scores.views:
            value = scores.scores.get(name, {}).get(view, math.nan)
            ends = extras.score_intervals.get((name, view), (math.nan, math.nan))
            row.append(ScoreEstimate(value, *ends, added[view].get(name, {})))
        if extras.verified is not None:
            row.append(bool(extras.verified.get(name)))
        if speedups is not None:
            row.append(Bounded(*speedups.of(name)))
        if scores.factors:
            row.append(time_factor_over_workloads(scores.factors, name))
        for workload in scores.workloads:
            cell = scores.cells.get((name, workload))
            if cell is None:
                row.append(None)
                continue
            developed, studies = (name, workload) in scores.developed, len(cell.costs(first))
            row.append(OverviewCost(cell.median(first), cell.reached, studies, developed))
        rows.append(tuple(row))
    facets = tuple(extras.facets[name, ""] for name in scores.contenders) if extras.facets else ()
    return Table(
        _overview_caption(scores, extras, speedups), tuple(columns), tuple(rows), "overview",
        facets=facets, notes=(*scores.notes, *score_notes(scores), *marks.notes),
    )  # fmt: skip


def _shares(scores: Scores, view: View) -> dict[str, dict[str, float]]:
    """Return the shares of each score from the base workloads, by contender and workload."""
    names = [name for name in scores.contenders if scores.scores.get(name)]
    if scores.rules != "strict" or not names:
        return {}
    costs = dataclasses.replace(scores, contenders=tuple(names)).matrix(view)
    found = shares(scores.benchmark.ratios(costs, view), AXES[view])
    base = scores.benchmark.base
    return {
        name: dict(zip(base, map(float, row), strict=True))
        for name, row in zip(names, found, strict=True)
    }


def _overview_caption(scores: Scores, extras: Extras, speedups: Speedups | None) -> str:
    first = scores.views[0]
    text = (
        f"Workloads: {in_view('median cost to target', first)} in {unit_name(scores.unit)}; k/n: "
        "the median study missed, and k of n reached the target."
    )
    if len(scores.views) > 1:
        text = f"Score: including tuning, and given tuned, from 0 to 1, the cheapest. {text}"
    if speedups is not None:
        text += f" Speed-up: over {speedups.reference}, {_GEOMETRIC} (>=, <=, ~: a bound)."
    if scores.factors:
        text += f" Time factor: {TIME_FACTORS[:-1]}, {_GEOMETRIC}."
    if extras.score_intervals:
        text += f" Intervals: {extras.interval_name}; of few studies, they are too narrow."
    if extras.verified is not None:
        text += " Verified: another run came to the same costs."
    return text
