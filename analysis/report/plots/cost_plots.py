"""The plot of costs to target: medians, intervals and studies, with misses in a margin."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch

from analysis.logs.logs import Logs
from analysis.report.plots.canvas import (
    NO_MATH,
    Plot,
    figure_at,
    file_slug,
    legend,
    palette,
    tag,
    tag_labels,
)
from analysis.report.table import format_cost
from analysis.report.tables.score_tables import Extras, in_view, unit_name
from analysis.scoring.costs import Unit, View
from analysis.scoring.scores import Scores
from analysis.wording import MISSED, plain

COSTS_HEADING = "What did the target of each workload cost?"
_LOOKS: dict[View, dict[str, Any]] = {
    "including": {"marker": "o", "markersize": 7, "offset": -0.14, "label": "including tuning"},
    "given": {"marker": "D", "markersize": 5.5, "offset": 0.18, "label": "given tuned"},
    "only": {"marker": "o", "markersize": 7, "offset": 0.0, "label": "median"},
}
BAR = {"lw": 4.5, "alpha": 0.35}


def study_budgets(logs: Logs, unit: Unit) -> dict[str, float]:
    """Return the budget of a study on each workload, in ``unit``.

    A workload is left out if its known budgets differ between studies or have another unit.
    """
    found: dict[str, set[tuple[str, float]]] = {}
    for trial in logs.trials:
        budget = trial.record.budget
        if math.isfinite(budget.study):  # infinite: the logs of a trial do not say it
            found.setdefault(trial.record.workload, set()).add((budget.currency, budget.study))
    alike = {workload: next(iter(some)) for workload, some in found.items() if len(some) == 1}
    return {workload: amount for workload, (currency, amount) in alike.items() if currency == unit}


def plot_costs(
    scores: Scores, extras: Extras, out: Path, budgets: Mapping[str, float]
) -> Iterator[Plot]:
    """Draw a plot for each workload whose target some study reached, the lowest cost first.

    Args:
        scores: The costs.
        extras: The intervals of the costs, if there are any.
        out: The folder of the plots.
        budgets: The known budgets of a study by workload, in the unit of the costs.
    """
    ticks = in_view("ticks: the studies", scores.views[0])
    for index, workload in enumerate(scores.workloads, start=1):
        ran = [name for name in scores.contenders if (name, workload) in scores.cells]
        if not any(scores.cells[name, workload].reached for name in ran):
            continue
        order = sorted(
            ran,
            key=lambda name: (
                scores.cells[name, workload].median("including"),
                scores.cells[name, workload].median("given"),
                -scores.cells[name, workload].reached,
                name,
            ),
        )
        path = out / f"costs-{index}-{file_slug(workload)}.png"
        _draw(order, workload, scores, extras, path, budgets.get(workload))
        bars = f" Bars: {extras.interval_name}." if extras.cost_intervals else ""
        yield Plot(
            COSTS_HEADING,
            f"{plain(workload)}: {_told(order, workload, scores)}",
            path,
            f"{plain(workload)}: medians over studies; {ticks}.{bars} Missed targets are in the "
            "right margin, hollow if the median study missed. An open interval extends to the "
            "margin.",
            workload=workload,
        )


def missed_label(budget: float | None) -> str:
    """Return the label of the margin of misses."""
    return MISSED if budget is None else f"{MISSED} (budget {format_cost(budget)})"


def hide_scale(axis: Any) -> None:
    """Remove ticks, grid and background from the margin of misses, which has no scale."""
    axis.grid(visible=False)
    axis.tick_params(which="both", bottom=False, left=False, labelbottom=False, labelleft=False)
    axis.patch.set_visible(False)


def join_to_misses(axis: Any, point: tuple[float, float], beside: Any, place: tuple[float, float],
         **looks: Any) -> None:  # fmt: skip
    """Draw a line from a point on the axis of costs to a point in the margin of misses."""
    line = ConnectionPatch(point, place, axis.transData, beside.transData, capstyle="butt", **looks)
    line.set_in_layout(False)
    axis.add_artist(line)


def _draw(
    order: Sequence[str],
    workload: str,
    scores: Scores,
    extras: Extras,
    path: Path,
    budget: float | None,
) -> None:
    cells = {name: scores.cells[name, workload] for name in order}
    colours = palette()
    costs = [c for cell in cells.values() for c in (*cell.given, *cell.including)]
    costs = [cost for cost in costs if math.isfinite(cost) and cost > 0] or [1.0]
    with figure_at(
        path, lines=2, panels=2, height=1.2 + 0.27 * len(order), sharey=True, width_ratios=(4, 1)
    ) as (figure, (axis, missed)):
        axis.set_xscale("log")
        axis.set_xlim(min(costs) / 1.25, max(costs) * 1.25)
        missed.set_xlim(0, 1)
        for view, colour in zip(scores.views, colours, strict=False):
            looks = _LOOKS[view]
            for row, (name, cell) in enumerate(cells.items()):
                height, median = row + looks["offset"], cell.median(view)
                low, high = extras.cost_intervals.get((name, workload, view), (math.inf,) * 2)
                if math.isfinite(high):
                    axis.hlines(height, low, high, color=colour, **BAR)
                elif math.isfinite(low):
                    join_to_misses(axis, (low, height), missed, (0.5, height), color=colour, **BAR)
                dot = {"marker": looks["marker"], "ms": looks["markersize"], "color": colour}
                if math.isfinite(median):
                    (drawn,) = axis.plot(median, height, **dot)
                    values = {"median": median, "y_": height, "low": low, "high": high}
                else:
                    (drawn,) = missed.plot(0.5, height, **dot, markerfacecolor="white")
                    values = {"x_": 0.5, "y_": height}
                values |= {"reached": cell.reached, "of": len(cell.costs(view))}
                tag(drawn, name, **values)
        tick = {"ls": "", "marker": "|", "color": "0.15", "ms": 7, "markeredgewidth": 0.9}
        for row, cell in enumerate(cells.values()):
            studies = np.array(cell.costs(scores.views[0]))
            height = row + _LOOKS[scores.views[0]]["offset"]
            reached = studies[np.isfinite(studies)]
            axis.plot(reached, np.full(len(reached), height), **tick)
            count = len(studies) - len(reached)
            side_by_side = 0.5 + 0.9 * (np.arange(count) - (count - 1) / 2) / len(studies)
            missed.plot(side_by_side, np.full(count, height), **tick)
        axis.set_yticks(range(len(order)), list(map(plain, order)), **NO_MATH)
        tag_labels(axis, order)
        axis.set_ylim(len(order) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"{unit_name(scores.unit)} to the target")
        axis.set_title(plain(workload), **NO_MATH)
        hide_scale(missed)
        # Text, because the layout leaves no room for an axis label that is wider than its axis.
        missed.annotate(
            missed_label(budget).replace(" (", "\n("), (0.5, 0), (0, -7), "axes fraction",
            "offset points", ha="center", va="top", fontsize=8.5,
        )  # fmt: skip
        looks = [_LOOKS[view] for view in scores.views]
        handles = [
            Line2D([], [], color=colour, linestyle="", marker=look["marker"])
            for look, colour in zip(looks, colours, strict=False)
        ]
        legend(figure, [look["label"] for look in looks], handles, 2)


def _told(order: Sequence[str], workload: str, scores: Scores) -> str:
    """Return the alt text."""
    told = []
    for name in order:
        cell = scores.cells[name, workload]
        first, *others = (cell.median(view) for view in scores.views)
        cost = format_cost(first)
        if others and math.isfinite(first):
            cost += f", given tuned {format_cost(others[0])}"
        told.append(f"{plain(name)} {cost}")
    return "; ".join(told)
