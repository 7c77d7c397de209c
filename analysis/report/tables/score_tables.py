"""The score table and the cost table of the commands, the report and the leaderboard."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.logs.hardware import fingerprints, unique_fingerprints
from analysis.logs.logs import Logs
from analysis.report.marks import Marks
from analysis.report.table import (
    COST,
    DEVELOPED_NOTE,
    MEDIAN_COSTS,
    SCORE,
    SHARE,
    YES,
    Column,
    Estimate,
    Facets,
    MedianCosts,
    Share,
    Table,
    estimate_format,
    number_format,
)
from analysis.scoring.benchmark import Benchmark, Floats
from analysis.scoring.costs import View
from analysis.scoring.profiles import ordered_mean
from analysis.scoring.scores import Scores

VIEW_NAMES: dict[View, str] = {
    "including": "including tuning", "given": "given tuned", "only": "",
}  # fmt: skip
RULES_NOTES = {
    "strict": "the cheapest trial within its budget; a missing study is a miss; exact integral",
    "algoperf": "as the official scorer: the trial with the earliest evaluation; missing studies "
    "are left out; a grid of 100 points",
}
_UNITS: dict[str, str] = {
    "steps": "steps",
    "gradient_evaluations": "gradient evaluations",
    "seconds": "seconds",
    "adjusted": "gradient evaluations times the time factor",
}


@dataclasses.dataclass(frozen=True)
class Extras:
    """Additional content of score and cost tables.

    Attributes:
        score_intervals: The ends of the intervals of scores, by contender and view.
        cost_intervals: The ends of the intervals of median costs, by contender, workload and view.
        interval_name: A phrase for the intervals, such as "95%, bootstrap over studies".
        verified: Whether a rerun agrees with each contender; ``None`` without a rerun.
        facets: The filter values by contender and workload; with the workload "", those of all of
            the contender's trials.
    """

    score_intervals: Mapping[tuple[str, View], tuple[float, float]] = dataclasses.field(
        default_factory=dict
    )
    cost_intervals: Mapping[tuple[str, str, View], tuple[float, float]] = dataclasses.field(
        default_factory=dict
    )
    interval_name: str = "intervals"
    verified: Mapping[str, bool] | None = None
    facets: Mapping[tuple[str, str], Facets] = dataclasses.field(default_factory=dict)


NO_EXTRAS = Extras()
TIME_FACTORS = (
    "seconds per gradient evaluation without compilation, over AdamW's on the same "
    "machine and workload."
)


def time_factor_over_workloads(
    factors: Mapping[tuple[str, str], float], contender: str
) -> Estimate | None:
    """Return the geometric mean of a contender's time factors, the lowest and the highest.

    ``None`` if none was measured. An audit measures a workload once, so the range is not that of
    the error of a measurement.
    """
    mine = [factor for (name, _), factor in factors.items() if name == contender]
    if not mine:
        return None
    return Estimate(float(np.exp(ordered_mean(np.log(mine)))), min(mine), max(mine))


def in_view(text: str, view: View) -> str:
    """Append the name of a view to a phrase, if the view has one.

    Examples:
        >>> in_view("Scores", "given"), in_view("Scores", "only")
        ('Scores given tuned', 'Scores')
    """
    return f"{text} {VIEW_NAMES[view]}".rstrip()


def unreached_notes(benchmark: Benchmark, medians: Mapping[View, Floats]) -> list[str]:
    """Return a note for each view with workloads on which no contender's median study arrived.

    Args:
        benchmark: The workloads of the scores.
        medians: The median costs in each view, (contenders, workloads).
    """
    found: dict[View, tuple[str, ...]] = {
        view: benchmark.unreached(costs, view) for view, costs in medians.items()
    }
    return [
        f"{in_view('No median study reached the target', view)} on {', '.join(names)}: every "
        "contender scores 0 there."
        for view, names in found.items()
        if names
    ]


def unit_name(unit: str) -> str:
    """Return the readable name of a unit."""
    return _UNITS.get(unit, unit.replace("_", " "))


def score_table(scores: Scores, marks: Marks, extras: Extras = NO_EXTRAS) -> Table:
    """Return one row per contender: scores, intervals, and its costs on each workload."""
    columns = [Column("contender", marks.format)]
    shown = {view for _, view in extras.score_intervals}
    for index, view in enumerate(scores.views):
        name = "score" if index == 0 else VIEW_NAMES[view]
        key = f"score_{view}"
        style = estimate_format(SCORE) if view in shown else SCORE
        columns.append(Column(name, style, key))
    if extras.facets:
        columns.append(Column("ruleset"))
    if extras.verified is not None:
        columns.append(Column("verified", YES))
    columns += [Column(w, MEDIAN_COSTS, workload=w) for w in scores.workloads]
    rows = []
    for name in scores.contenders:
        row: list[Any] = [name]
        for view in scores.views:
            value = scores.scores.get(name, {}).get(view)
            ends = extras.score_intervals.get((name, view))
            if view in shown:
                row.append(None if value is None or ends is None else Estimate(value, *ends))
            else:
                row.append(value)
        if extras.facets:
            row.append(", ".join(extras.facets.get((name, ""), {}).get("ruleset", ())))
        if extras.verified is not None:
            row.append(bool(extras.verified.get(name)))
        row += [_costs(scores, name, workload) for workload in scores.workloads]
        rows.append(tuple(row))
    facets = tuple(extras.facets[name, ""] for name in scores.contenders) if extras.facets else ()
    return Table(
        _caption(scores, extras), tuple(columns), tuple(rows), "scores", facets=facets,
        notes=(*scores.notes, *score_notes(scores), *marks.notes),
    )  # fmt: skip


def _costs(scores: Scores, contender: str, workload: str) -> MedianCosts | None:
    cell = scores.cells.get((contender, workload))
    if cell is None:
        return None
    including = cell.median("including") if "including" in scores.views else None
    studies = max(len(cell.given), len(cell.including))
    developed = (contender, workload) in scores.developed
    factor = scores.factors.get((contender, workload))
    return MedianCosts(cell.median("given"), including, cell.reached, studies, developed, factor)


def _caption(scores: Scores, extras: Extras) -> str:
    unit = unit_name(scores.unit)
    if scores.rules == "algoperf":
        text = f"AlgoPerf's benchmark score, {RULES_NOTES['algoperf']}. Times to target in {unit}"
    elif not scores.tuned:
        text = f"Score: area under the profile. Workloads: median cost to target in {unit}"
    else:
        text = (
            "Score: including tuning, and given tuned. Workloads: median cost to target in "
            f"{unit}, given tuned / including tuning"
        )
    text += " (studies that reached it); missed: the median study did not reach the target."
    if extras.score_intervals:
        text += f" Intervals: {extras.interval_name}."
    if extras.verified is not None:
        text += " Verified: another run came to the same costs."
    if scores.factors:
        text += f" x: time factor, {TIME_FACTORS}"
    return text


def score_notes(scores: Scores) -> list[str]:
    """Return the notes below a table of scores."""
    notes = []
    if any(name not in scores.scores or not scores.scores[name] for name in scores.contenders):
        notes.append("Without a score: did not run on every workload.")
    if scores.developed:
        notes.append(DEVELOPED_NOTE)
    if any(cell.orders for cell in scores.cells.values()):
        notes.append(
            "Including tuning, the costs of random search are medians over studies and over orders "
            "of their trials."
        )
    scored = dataclasses.replace(
        scores, contenders=tuple(name for name in scores.contenders if scores.scores.get(name))
    )
    medians: dict[View, Floats] = {}
    if scored.contenders:
        medians = {view: scored.matrix(view) for view in scores.views}
    return notes + unreached_notes(scores.benchmark, medians)


def cost_table(scores: Scores, marks: Marks, extras: Extras = NO_EXTRAS) -> Table:
    """Return one row per workload and contender: costs, with intervals and time factor."""
    columns = [Column("workload"), Column("contender", marks.format)]
    views: list[View] = [*reversed(scores.views)]
    for view in views:
        name = VIEW_NAMES[view] or "cost"
        key = f"{name.replace(' ', '_')}_{scores.unit}"
        style = estimate_format(COST) if extras.cost_intervals else COST
        columns.append(Column(name, style, key))
    columns.append(Column("reached", SHARE))
    if scores.factors:
        columns.append(Column("time factor", number_format(".2f")))
    if extras.facets:
        columns += [Column("ruleset"), Column("hardware")]
    rows, facets = [], []
    for workload in scores.workloads:
        for name in scores.contenders:
            cell = scores.cells.get((name, workload))
            if cell is None:
                continue
            row: list[Any] = [workload, name]
            for view in views:
                cost = cell.median(view)
                ends = extras.cost_intervals.get((name, workload, view))
                if extras.cost_intervals:
                    row.append(None if ends is None else Estimate(cost, *ends))
                else:
                    row.append(cost)
            row.append(Share(cell.reached, max(len(cell.given), len(cell.including))))
            if scores.factors:
                row.append(scores.factors.get((name, workload)))
            mine = extras.facets.get((name, workload), {})
            if extras.facets:
                row.append(", ".join(mine.get("ruleset", ())))
                row.append("; ".join(mine.get("hardware", ())) or "did not run")
            rows.append(tuple(row))
            facets.append(mine)
    caption = (
        f"Median cost to target over studies in {unit_name(scores.unit)}. Missed: the median study "
        "did not meet the target within its budget; its cost is above the budget, and by how much "
        "is not known."
    )
    if extras.cost_intervals:
        caption += f" Intervals: {extras.interval_name}; open if they reach a miss."
    if scores.factors:
        caption += f" Time factor: {TIME_FACTORS}"
    kept = tuple(facets) if extras.facets else ()
    return Table(
        caption, tuple(columns), tuple(rows), "costs", facets=kept, keys=2, notes=marks.notes
    )


def facets_of(logs: Logs) -> dict[tuple[str, str], Facets]:
    """Return the filter values by contender and workload, see :class:`Extras`."""
    names = hardware_names(logs)
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for trial, fingerprint in zip(logs.trials, fingerprints(logs), strict=True):
        record = trial.record
        for workload in (record.workload, ""):
            entry = found.setdefault(
                (record.contender, workload),
                {"workload": set(), "hardware": set(), "ruleset": set()},
            )
            entry["workload"].add(record.workload)
            entry["hardware"].add(names[fingerprint.id])
            entry["ruleset"].add(record.ruleset)
    facets: dict[tuple[str, str], Facets] = {
        key: {name: sorted(v) for name, v in entry.items()} for key, entry in found.items()
    }
    # A contender that did not run on a workload has its facets from the other workloads.
    for contender in logs.contenders:
        for workload in (*logs.workloads, ""):
            facets.setdefault(
                (contender, workload),
                {**facets.get((contender, ""), {}), "workload": [workload] if workload else []},
            )
    return facets


def hardware_names(logs: Logs) -> dict[str, str]:
    """Return readable names of the hardware by id; equal names are distinguished by the id."""
    found = unique_fingerprints(fingerprints(logs))
    shared = Counter(one.name for one in found)
    return {
        one.id: one.name if shared[one.name] == 1 else f"{one.name} ({one.id})" for one in found
    }


def filters_of(
    scores: Scores, facets: Mapping[tuple[str, str], Facets]
) -> dict[str, Sequence[str]]:
    """Return the choices of each filter of a page."""
    found: dict[str, Sequence[str]] = {"workload": scores.workloads}
    for name in ("hardware", "ruleset"):
        found[name] = sorted({value for entry in facets.values() for value in entry.get(name, ())})
    return found
