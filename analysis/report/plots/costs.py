"""The plot of what it cost each contender to reach the target: medians, intervals, studies."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from analysis.report.plots.canvas import AS_IT_IS, Plot, figure_at, legend, palette, slug
from analysis.report.sections import Additions
from analysis.report.tables import plain, unit_name
from analysis.scoring.costs import View
from analysis.scoring.scores import Scores, format_cost

HEADING = "Costs to target"
_BEYOND = 2.2  # times the largest cost: where those without one are drawn
_LOOKS: dict[View, dict[str, Any]] = {
    "including": {"marker": "o", "markersize": 7, "offset": -0.14, "label": "including tuning"},
    "given": {"marker": "D", "markersize": 5.5, "offset": 0.18, "label": "given tuned"},
}


def plot_costs(scores: Scores, additions: Additions, out: Path) -> Iterator[Plot]:
    """Draw a plot for each workload that somebody reached the target of, least cost first.

    Args:
        scores: The costs.
        additions: Their intervals, if there are any.
        out: Where the plots go.
    """
    for index, workload in enumerate(scores.workloads, start=1):
        cells = [scores.cells[name, workload] for name in scores.contenders]
        if not any(cell.reached for cell in cells):
            continue
        order = sorted(
            scores.contenders,
            key=lambda name: (
                scores.cells[name, workload].median("including"),
                scores.cells[name, workload].median("given"),
                -scores.cells[name, workload].reached,
                name,
            ),
        )
        path = out / f"costs-{index}-{slug(workload)}.png"
        _draw(order, workload, scores, additions, path)
        bars = f" Bars: {additions.interval_name}." if additions.cost_intervals else ""
        yield Plot(
            HEADING,
            f"{plain(workload)}: {_told(order, workload, scores)}",
            path,
            f"{plain(workload)}: medians over studies; ticks: the studies, including tuning.{bars} "
            "On the right, what missed the target; an open interval runs up to there.",
            workload=workload,
        )


def place_of_misses(costs: Sequence[float]) -> tuple[float, float]:
    """Return where what missed is drawn on a logarithmic axis, and the line that sets it apart."""
    beyond = _BEYOND * max(costs)
    return beyond, beyond / math.sqrt(_BEYOND)


def _draw(
    order: Sequence[str], workload: str, scores: Scores, additions: Additions, path: Path
) -> None:
    rows = np.arange(len(order))
    colours = palette()
    costs = [c for name in order for c in _finite(scores, name, workload)]
    beyond, border = place_of_misses(costs)
    with figure_at(path, lines=2, height=1.2 + 0.27 * len(order)) as (figure, axis):
        for hue, (view, looks) in enumerate(_LOOKS.items()):
            for row, name in zip(rows, order, strict=True):
                height, colour = row + looks["offset"], colours[hue]
                ends = additions.cost_intervals.get((name, workload, view))
                if ends is not None and math.isfinite(ends[0]):
                    axis.hlines(
                        height, ends[0], min(ends[1], beyond), color=colour, lw=4.5, alpha=0.35
                    )
                median = scores.cells[name, workload].median(view)
                axis.plot(
                    min(median, beyond), height, looks["marker"], color=colour,
                    markersize=looks["markersize"],
                    markerfacecolor=colour if math.isfinite(median) else "white",
                )  # fmt: skip
        for row, name in zip(rows, order, strict=True):
            studies = np.minimum(scores.cells[name, workload].costs("including"), beyond)
            height = np.full(len(studies), row + _LOOKS["including"]["offset"])
            axis.plot(studies, height, "|", color="0.15", markersize=7, markeredgewidth=0.9)
        axis.axvline(border, color="0.6", lw=1, linestyle=":")
        axis.set_xscale("log")
        axis.set_xlim(min(costs) / 1.25, beyond * 1.25)
        axis.set_yticks(rows, list(map(plain, order)), **AS_IT_IS)
        axis.set_ylim(len(order) - 0.5, -1.0)
        axis.text(beyond * 1.15, -0.6, "missed", ha="right", va="center", fontsize=8.5)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"{unit_name(scores.unit)} to the target")
        axis.set_title(plain(workload), **AS_IT_IS)
        handles = [
            Line2D([], [], color=colours[hue], linestyle="", marker=looks["marker"])
            for hue, looks in enumerate(_LOOKS.values())
        ]
        legend(figure, [looks["label"] for looks in _LOOKS.values()], handles, 2)


def _finite(scores: Scores, name: str, workload: str) -> list[float]:
    cell = scores.cells[name, workload]
    return [cost for cost in (*cell.given, *cell.including) if math.isfinite(cost)]


def _told(order: Sequence[str], workload: str, scores: Scores) -> str:
    """Say what the plot shows to who cannot see it."""
    told = []
    for name in order:
        cell = scores.cells[name, workload]
        given, including = (cell.median(view) for view in ("given", "including"))
        cost = f"{format_cost(including)}, given tuned {format_cost(given)}"
        told.append(f"{plain(name)} {cost if math.isfinite(including) else 'not reached'}")
    return "; ".join(told)
