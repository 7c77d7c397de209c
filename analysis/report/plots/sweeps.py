"""The plot of a sweep: costs of variants that differ in one number, against that number."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from analysis.logs.logs import Logs
from analysis.report.plots.canvas import AS_IT_IS, Plot, figure_at, legend, markers, slug, style
from analysis.report.plots.costs import place_of_misses
from analysis.report.sections import Additions
from analysis.report.tables import plain, unit_name
from analysis.scoring.scores import Scores, format_cost

HEADING = "Costs over a sweep"
_FEWEST = 3  # values that are a sweep


class Sweep(NamedTuple):
    """Variants of one submission that differ in one number."""

    of: str
    parameter: str
    contenders: Mapping[float, str]  # by its value, ascending


def find_sweeps(logs: Logs) -> list[Sweep]:
    """Return the sweeps among a campaign's variants: alike but for one number, three or more."""
    variants = (logs.campaign or {}).get("variants", {})
    ran = {name: variants[name] for name in logs.contenders if name in variants}
    groups: dict[tuple[str, str, str], dict[float, str]] = defaultdict(dict)
    for name, variant in ran.items():
        values = variant["hyperparameters"]
        for parameter, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = {key: other for key, other in values.items() if key != parameter}
                rest = repr(sorted(others.items()))
                groups[variant["of"], parameter, rest][float(value)] = name
    return [
        Sweep(of, parameter, dict(sorted(found.items())))
        for (of, parameter, _), found in sorted(groups.items())
        if len(found) >= _FEWEST
    ]


def plot_sweeps(logs: Logs, scores: Scores, additions: Additions, out: Path) -> Iterator[Plot]:
    """Draw a plot for each sweep in which some target was reached.

    Args:
        logs: Whose campaign has the variants.
        scores: Their costs.
        additions: Intervals of them, if there are any.
        out: Where the plots go.
    """
    for index, sweep in enumerate(find_sweeps(logs), start=1):
        cells = [
            scores.cells[name, w] for name in sweep.contenders.values() for w in scores.workloads
        ]
        if not any(math.isfinite(cell.median("including")) for cell in cells):
            continue
        path = out / f"sweep-{index}-{slug(sweep.of)}-{slug(sweep.parameter)}.png"
        _draw(sweep, scores, additions, path)
        bars = f" Bars: {additions.interval_name}." if additions.cost_intervals else ""
        yield Plot(
            HEADING,
            f"{plain(sweep.of)} over {plain(sweep.parameter)}: {_told(sweep, scores)}",
            path,
            f"{plain(sweep.of)} with other values of {plain(sweep.parameter)}: median costs "
            f"including tuning.{bars} Hollow, above the dotted line: the target was missed.",
        )


def _draw(sweep: Sweep, scores: Scores, additions: Additions, path: Path) -> None:
    looks, marks = style(scores.workloads), markers(scores.workloads)
    xs = list(sweep.contenders)
    medians = {
        workload: [
            scores.cells[name, workload].median("including") for name in sweep.contenders.values()
        ]
        for workload in scores.workloads
    }
    finite = [cost for row in medians.values() for cost in row if math.isfinite(cost)]
    beyond, border = place_of_misses(finite)
    with figure_at(path, lines=len(scores.workloads) // 2 + 1) as (figure, axis):
        lines = []
        for workload in scores.workloads:
            look: dict[str, Any] = {"color": looks[workload]["color"]}
            ys = [min(cost, beyond) for cost in medians[workload]]
            shape = marks[workload]["marker"]
            line = {**look, "lw": 2, "linestyle": looks[workload]["linestyle"], "marker": shape}
            lines += axis.plot(xs, ys, **line, markersize=6.5)
            for x, y, cost, name in zip(
                xs, ys, medians[workload], sweep.contenders.values(), strict=True
            ):
                if math.isinf(cost):
                    axis.plot(x, y, shape, **look, markersize=6.5, markerfacecolor="white")
                ends = additions.cost_intervals.get((name, workload, "including"))
                if ends is not None and math.isfinite(ends[0]):
                    axis.vlines(x, ends[0], min(ends[1], beyond), **look, lw=4.5, alpha=0.3)
        axis.axhline(border, color="0.6", lw=1, linestyle=":")
        if min(xs) > 0 and max(xs) >= 10 * min(xs):
            axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(plain(sweep.parameter), **AS_IT_IS)
        axis.set_ylabel(f"{unit_name(scores.unit)} to the target")
        axis.set_title(plain(sweep.of), **AS_IT_IS)
        legend(figure, list(scores.workloads), lines, 2)


def _told(sweep: Sweep, scores: Scores) -> str:
    """Say what the plot shows to who cannot see it."""
    told = []
    for workload in scores.workloads:
        costs = [
            scores.cells[name, workload].median("including") for name in sweep.contenders.values()
        ]
        listed = ", ".join(
            f"{format_cost(cost) if math.isfinite(cost) else 'missed'} at {value:g}"
            for value, cost in zip(sweep.contenders, costs, strict=True)
        )
        told.append(f"{plain(workload)} {listed}")
    return "; ".join(told)
