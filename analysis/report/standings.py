"""The standings of a report: a row for each contender, and one for each cost it is made of.

The rows of :func:`cost_rows` are the lines of ``scores.csv``: the page shows the same numbers.
What else is known about them, intervals and whether somebody verified them, comes in as
:class:`~analysis.report.sections.Additions`.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from analysis.logs.hardware import fingerprint_of, hardware_of
from analysis.logs.logs import Logs
from analysis.report.sections import Additions, Interval
from analysis.report.tables import Facets, Shown, Table, unit_name
from analysis.scoring.costs import View
from analysis.scoring.scores import DEVELOPED_NOTE, VIEWS, Scores, format_cost, mark_developed
from analysis.text import plain

_COLUMNS: dict[View, str] = {"including": "including_tuning", "given": "given_tuned"}
_MISS = "not reached"


def hardware_names(logs: Logs) -> dict[str, str]:
    """Return what people call the hardware of each environment, by ``repr`` of that.

    Where different hardware has the same name, its id is added.
    """
    shared = Counter(one.name for one in hardware_of(logs).values())
    environments = {repr(t.record.environment): t.record.environment for t in logs.trials}
    found = {key: fingerprint_of(one) for key, one in environments.items()}
    return {
        key: one.name if shared[one.name] == 1 else f"{one.name} ({one.id})"
        for key, one in found.items()
    }


def facets_of(logs: Logs) -> dict[tuple[str, str], Facets]:
    """Return what rows can be filtered by, for each contender and workload.

    A contender's name with the workload "" has those of all its trials.
    """
    names = hardware_names(logs)
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for trial in logs.trials:
        record = trial.record
        for workload in (record.workload, ""):
            entry = found.setdefault(
                (record.contender, workload),
                {"workload": set(), "hardware": set(), "ruleset": set()},
            )
            entry["workload"].add(record.workload)
            entry["hardware"].add(names[repr(record.environment)])
            entry["ruleset"].add(record.ruleset)
    facets: dict[tuple[str, str], Facets] = {
        key: {name: sorted(v) for name, v in entry.items()} for key, entry in found.items()
    }
    # Who has not run is found by what the contender is elsewhere.
    for contender in logs.contenders:
        for workload in (*logs.workloads, ""):
            facets.setdefault(
                (contender, workload),
                {**facets.get((contender, ""), {}), "workload": [workload] if workload else []},
            )
    return facets


def standings_table(
    scores: Scores,
    flags: Mapping[str, str],
    facets: Mapping[tuple[str, str], Facets],
    additions: Additions,
) -> Table:
    """Return a row for each contender: scores, intervals and its cost on each workload.

    Args:
        scores: The scores, best first.
        flags: Marks behind a contender's name.
        facets: See :func:`facets_of`.
        additions: Intervals and verified flags.
    """  # fmt: skip
    rows = []
    for name in scores.contenders:
        row = [plain(name + flags.get(name, ""))]
        for view in VIEWS:
            value = scores.scores[name][view]
            row.append(Shown(f"{value:.3f}", value))
            if additions.score_intervals:
                row.append(_score_interval(additions.score_intervals.get((name, view))))
        row.append(plain(", ".join(facets[name, ""].get("ruleset", ()))))
        if additions.verified is not None:
            row.append("verified" if additions.verified.get(name) else "not verified")
        for workload in scores.workloads:
            cell = scores.cells[name, workload]
            given, including = (cell.median(view) for view in ("given", "including"))
            share = f"({cell.reached}/{scores.studies})"
            text = f"{format_cost(given)} / {format_cost(including)} {share}"
            text = text if math.isfinite(including) else f"{_MISS} {share}"
            text = mark_developed(text, (name, workload) in scores.developed)
            row.append(Shown(text, including))
        rows.append(tuple(row))
    intervals = [
        (f"{name} interval",) if additions.score_intervals else ()
        for name in ("score", "given tuned")
    ]
    verified = ("verified",) if additions.verified is not None else ()
    fixed = (
        "contender", "score", *intervals[0], "given tuned", *intervals[1], "ruleset", *verified,
    )  # fmt: skip
    columns = {len(fixed) + index: workload for index, workload in enumerate(scores.workloads)}
    caption = (
        f"Score: including tuning, and given tuned. Workloads: median cost to target in "
        f"{unit_name(scores.unit)}, given tuned / including tuning, and how many of the "
        f"studies reached it; {_MISS}: the median study did not. A column is sorted by the "
        "cost including tuning."
    )
    if additions.score_intervals:
        caption += f" Intervals: {additions.interval_name}."
    if scores.developed:
        caption += f" {DEVELOPED_NOTE}"
    header = (*fixed, *map(plain, scores.workloads))
    kept = tuple(facets[name, ""] for name in scores.contenders)
    return Table(caption, header, tuple(rows), name="standings", facets=kept, columns=columns)


def cost_header(scores: Scores, additions: Additions) -> tuple[str, ...]:
    """Return the header of ``scores.csv``."""
    unit = scores.unit
    costs, areas = [], []
    for view in ("given", "including"):
        costs.append(f"{_COLUMNS[view]}_{unit}")
        areas.append(f"score_{view}")
        if additions.cost_intervals:
            costs += [f"{_COLUMNS[view]}_{end}" for end in ("low", "high")]
        if additions.score_intervals:
            areas += [f"score_{view}_{end}" for end in ("low", "high")]
    verified = ("verified",) if additions.verified is not None else ()
    return (
        "contender", "workload", *costs, "reached", "studies", *areas, "ruleset", "hardware",
        *verified,
    )  # fmt: skip


def cost_rows(
    scores: Scores, facets: Mapping[tuple[str, str], Facets], additions: Additions
) -> list[tuple[Any, ...]]:
    """Return the lines of ``scores.csv``: one for each contender and workload."""
    rows = []
    for name in scores.contenders:
        areas = []
        for view in ("given", "including"):
            areas.append(round(scores.scores[name][view], 6))
            if additions.score_intervals:
                areas += additions.score_intervals.get((name, view), (None, None))
        for workload in scores.workloads:
            cell, costs = scores.cells[name, workload], []
            for view in ("given", "including"):
                costs.append(cell.median(view))
                if additions.cost_intervals:
                    ends = additions.cost_intervals.get((name, workload, view), (None, None))
                    costs += ends
            mine = facets[name, workload]
            row = [
                name, workload, *costs, cell.reached, scores.studies, *areas,
                "; ".join(mine.get("ruleset", ())), "; ".join(mine.get("hardware", ())),
            ]  # fmt: skip
            if additions.verified is not None:
                row.append("verified" if additions.verified.get(name) else "not verified")
            rows.append(tuple(row))
    return rows


def costs_table(
    scores: Scores, facets: Mapping[tuple[str, str], Facets], additions: Additions
) -> Table:
    """Return what each score is made of, a row for each contender and workload."""
    rows, kept = [], []
    for workload in scores.workloads:
        for name in scores.contenders:
            cell, mine = scores.cells[name, workload], facets[name, workload]
            row = [plain(workload), plain(name)]
            for view in ("given", "including"):
                cost = cell.median(view)
                row.append(Shown(format_cost(cost) if math.isfinite(cost) else _MISS, cost))
                if additions.cost_intervals:
                    interval = additions.cost_intervals.get((name, workload, view))
                    row.append(_cost_interval(interval))
            share = cell.reached / scores.studies
            row.append(Shown(f"{cell.reached} of {scores.studies}", share))
            row.append(plain(", ".join(mine.get("ruleset", ()))) or "-")
            row.append(plain("; ".join(mine.get("hardware", ()))) or "did not run")
            rows.append(tuple(row))
            kept.append(mine)
    intervals = [
        (f"{name} interval",) if additions.cost_intervals else ()
        for name in ("given tuned", "including tuning")
    ]
    header = (
        "workload", "contender", "given tuned", *intervals[0], "including tuning", *intervals[1],
        "reached", "ruleset", "hardware",
    )  # fmt: skip
    caption = (
        f"Median cost to target over studies in {unit_name(scores.unit)}. "
        f"{_MISS.capitalize()}: the median study did not meet the target within its budget; its "
        "cost is above the budget, and by how much is not known."
    )
    if additions.cost_intervals:
        caption += f" Intervals: {additions.interval_name}; open where they reach a miss."
    return Table(caption, header, tuple(rows), name="costs", facets=tuple(kept))


def _score_interval(interval: Interval | None) -> str:
    if interval is None:
        return Shown("-", None)
    return Shown(f"{interval[0]:.3f} to {interval[1]:.3f}", interval[0])


def _cost_interval(interval: Interval | None) -> str:
    if interval is None or math.isinf(interval[0]):
        return Shown("-" if interval is None else _MISS, None)
    high = format_cost(interval[1]) if math.isfinite(interval[1]) else _MISS
    return Shown(f"{format_cost(interval[0])} to {high}", interval[0])
