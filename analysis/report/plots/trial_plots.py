"""The plots of trials: hyperparameters against outcomes, and importance of hyperparameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.report.plots.canvas import (
    NO_MATH,
    WIDTH,
    Plot,
    figure_at,
    file_slug,
    legend,
    tag,
    tag_labels,
)
from analysis.training.hyperparameters import Importance, Points, tick_labels
from analysis.wording import MISSED, plain
from metaopt.bench.records import FAILURES

TRIALS_HEADING = "Which hyperparameters did the tuners try, and what came out?"
IMPORTANCE_HEADING = "Which hyperparameters decided the outcome?"
MOST_LINES = 300  # trials drawn in one panel; more are thinned evenly by rank
_BEST, _WORST = 0.05, 0.92  # positions in the colour map, whose end is invisible on white
_FAILED = 2.25  # where the outcome of a failure is drawn
_TOP = 2.4
_ENDS = {"reached": "-", MISSED: (0, (4, 1.5)), "failed": (0, (1, 1.2))}


def plot_trials(everything: Sequence[Points], workloads: Sequence[str], out: Path) -> list[Plot]:
    """Draw parallel coordinates: one plot per workload with one panel per contender."""
    plots = []
    for index, workload in enumerate(workloads, start=1):
        mine = [points for points in everything if points.workload == workload]
        if mine:
            path = out / f"trials-{index}-{file_slug(workload)}.png"
            _draw_panels(mine, path)
            plots.append(
                Plot(
                    TRIALS_HEADING, _told_trials(mine), path,
                    _trials_caption(mine), wide=len(mine) > 1, workload=workload,
                )
            )  # fmt: skip
    return plots


def plot_importance(found: Sequence[Importance], workloads: Sequence[str], out: Path) -> list[Plot]:
    """Draw the importance of hyperparameters: one heat map per workload, a row per contender."""
    plots = []
    for index, workload in enumerate(workloads, start=1):
        mine = [one for one in found if one.workload == workload]
        if mine:
            path = out / f"importance-{index}-{file_slug(workload)}.png"
            _draw_importance(mine, path)
            first = [f"{plain(o.contender)} {plain(o.names[0])} {o.means[0]:.2f}" for o in mine]
            text = f"{plain(workload)}: the most important hyperparameter: {', '.join(first)}"
            counts = [f"{plain(o.contender)} {o.trials} trials" for o in mine]
            caption = f"{plain(workload)}: {', '.join(counts)}."
            plots.append(Plot(IMPORTANCE_HEADING, text, path, caption, workload=workload))
    return plots


def _draw_panels(everything: Sequence[Points], path: Path) -> None:
    columns = min(2, len(everything))
    rows = -(-len(everything) // columns)
    with figure_at(path, 2, panels=(rows, columns), width=columns * WIDTH, height=3.0 * rows) as (
        figure,
        axes,
    ):
        panels = np.atleast_1d(axes).ravel()
        for axis, points in zip(panels, everything, strict=False):
            _draw_points(axis, points)
        for axis in panels[len(everything) :]:
            axis.set_axis_off()
        names = list(_ENDS)
        handles = [Line2D([], [], color="0.2", linestyle=_ENDS[name]) for name in names]
        colours = _colours(np.array([0.0, 0.5, 1.0]))
        names += ["best trial", "middle", "worst"]
        handles += [Line2D([], [], color=colour, linewidth=4) for colour in colours]
        legend(figure, names, handles, 6 if columns > 1 else 3)


def _draw_points(axis: Any, points: Points) -> None:
    places = np.column_stack(
        [*(parameter.places for parameter in points.parameters), _outcome_places(points)]
    )
    x = np.arange(places.shape[1])
    ranks = points.ranks
    colours = _colours(ranks)
    for trial in _shown(ranks)[::-1]:  # the best last, on top
        best = ranks[trial] <= 0.1
        (line,) = axis.plot(
            x, places[trial], color=colours[trial], linestyle=_ENDS[_end_of(points, trial)],
            linewidth=1.8 if best else 0.9, alpha=0.95 if best else 0.6,
        )  # fmt: skip
        values = {p.name.rstrip("_"): p.values[trial] for p in points.parameters}
        outcome = {"x_": x[-1], "y_": places[trial, -1], "outcome": points.outcomes[trial]}
        tag(line, points.contender, **outcome | values)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    for position, parameter in enumerate(points.parameters):
        axis.axvline(position, color="0.35", linewidth=0.8, zorder=0)
        for place, label in tick_labels(parameter):
            _write(axis, position, place, label)
    axis.axvline(x[-1], color="0.1", linewidth=1.4, zorder=0)
    for value, label in ((0, "0"), (1, "1"), (1.5, MISSED), (_FAILED, "failed")):
        if value < 1.2 or points.outcomes.max() > 1:
            _write(axis, x[-1], value / _TOP, label)
    names = [plain(p.name) + (" (log)" if p.logarithmic else "") for p in points.parameters]
    axis.set_xticks(x, [*names, "outcome"], rotation=18, ha="right", fontsize=8.5, **NO_MATH)
    axis.set(yticks=[], ylim=(-0.05, 1.05), xlim=(-0.15, x[-1] + 0.55))
    axis.set_title(
        f"{plain(points.contender)} on {plain(points.workload)}, {len(ranks)} trials", **NO_MATH
    )


def _write(axis: Any, x: float, y: float, label: str) -> None:
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
    axis.text(
        x + 0.04, y, label, fontsize=8.5, va="center", ha="left", bbox=box, zorder=5, **NO_MATH
    )


def _outcome_places(points: Points) -> NDArray[np.float64]:
    """Return the heights of the outcomes: values are clipped at 2, failures are above."""
    failed = np.array([record.status in FAILURES for record in points.records])
    met = np.array([record.reached is not None for record in points.records])
    return np.where(failed & ~met, _FAILED, np.minimum(points.outcomes, 2.0)) / _TOP


def _shown(ranks: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices of the drawn trials, the best first."""
    order = np.argsort(ranks, kind="stable")
    if len(order) <= MOST_LINES:
        return order
    return order[np.linspace(0, len(order) - 1, MOST_LINES).round().astype(int)]


def _end_of(points: Points, trial: int) -> str:
    record = points.records[trial]
    if record.reached is not None:
        return "reached"
    return "failed" if record.status in FAILURES else MISSED


def _colours(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    return mpl.colormaps["viridis"](_BEST + (_WORST - _BEST) * ranks)


def _told_trials(everything: Sequence[Points]) -> str:
    parts = []
    for points in everything:
        best = int(np.argmin(points.outcomes))
        if (end := _end_of(points, best)) == "failed":
            parts.append(f"{plain(points.contender)}: every trial failed")
            continue
        values = ", ".join(f"{plain(p.name)} {_number(p.values[best])}" for p in points.parameters)
        parts.append(f"{plain(points.contender)}: the best trial ({end}) had {values}")
    return f"{plain(everything[0].workload)}: trials as lines. {'; '.join(parts)}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else plain(value)


def _trials_caption(everything: Sequence[Points]) -> str:
    parts = [
        f"{plain(everything[0].workload)}: each line is a trial of any study; darker is better, by "
        "rank. Outcome: up to 1, the share of the trial's budget at which it met the target; above "
        "1, 1 plus its distance from the target."
    ]
    if any(points.cut for points in everything):
        parts.append("Trials cut short by the study's budget are left out.")
    if any(len(points.outcomes) > MOST_LINES for points in everything):
        parts.append(f"At most {MOST_LINES} trials per panel are drawn, evenly from best to worst.")
    return " ".join(parts)


def _draw_importance(found: Sequence[Importance], path: Path) -> None:
    names = sorted({name for one in found for name in one.names})
    table = np.full((len(found), len(names)), np.nan)
    for row, one in enumerate(found):
        for name, mean in zip(one.names, one.means, strict=True):
            table[row, names.index(name)] = mean
    with figure_at(path, height=1.5 + 0.3 * len(found)) as (figure, axis):
        del figure
        sns.heatmap(
            table, ax=axis, vmin=0, vmax=1, cmap="Blues",
            annot=True, fmt="z.2f", annot_kws={"size": 8.5}, linewidths=1, linecolor="white",
            cbar_kws={"label": "importance"}, mask=np.isnan(table),
        )  # fmt: skip
        axis.grid(visible=False)
        contenders = [plain(one.contender) for one in found]
        axis.set_yticks(np.arange(len(found)) + 0.5, contenders, rotation=0, **NO_MATH)
        tag_labels(axis, [one.contender for one in found])
        axis.set_xticks(
            np.arange(len(names)) + 0.5, list(map(plain, names)), rotation=25, ha="right",
            **NO_MATH,
        )  # fmt: skip
        axis.set_title(plain(found[0].workload), **NO_MATH)
