"""The time breakdown plot: a stacked bar of seconds by activity for each contender."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.logs.logs import Logs
from analysis.report.plots.canvas import (
    NO_MATH,
    WIDTH,
    Plot,
    figure_at,
    legend,
    palette,
    tag,
    tag_labels,
)
from analysis.training.breakdown import TIME_PARTS, time_breakdown
from analysis.wording import plain
from metaopt.bench.records import TrialRecord

BREAKDOWN_HEADING = "Where did the time go?"
_HATCHES = ("", "////", "\\\\\\\\", "....", "xxxx", "++++")  # one for each part
_HUES = (0, 1, 4, 2, 7, 3)  # of the palette
_CAPTION = (
    "Seconds by activity, summed over all workloads and studies; the table below has each "
    "workload. A budget in seconds is charged for training, compilation and the tuner, but not for "
    "evaluation and logging. Processes are reused, so the first contender in a process pays the "
    "compilation for the others. Seconds with compilation therefore rank contenders only if "
    "budgets are in seconds."
)


def plot_breakdown(logs: Logs, out: Path) -> Plot:
    """Draw a stacked bar of seconds for each contender into ``out``, the longest first."""
    groups: dict[str, list[TrialRecord]] = {name: [] for name in logs.contenders}
    for trial in logs.trials:
        groups[trial.record.contender].append(trial.record)
    spent = {
        name: np.array(time_breakdown(records, (s for s in logs.studies if s.contender == name)))
        for name, records in groups.items()
    }
    names = sorted(spent, key=lambda name: (-spent[name].sum(), name))
    table = np.maximum(np.array([spent[name] for name in names]), 0.0)  # (contenders, parts)
    path = out / "breakdown.png"
    _draw(names, table, path)
    return Plot(BREAKDOWN_HEADING, _told(names, table), path, _CAPTION, wide=True)


def _draw(names: Sequence[str], table: NDArray[np.float64], path: Path) -> None:
    shown = [i for i, part in enumerate(TIME_PARTS) if part != "lost" or table[:, i].any()]
    colours = palette()
    places, left = np.arange(len(names)), np.zeros(len(names))
    with figure_at(path, 1, width=1.5 * WIDTH, height=1.1 + 0.3 * len(names)) as (figure, axis):
        bars = []
        for i in shown:
            looks = {"color": colours[_HUES[i]], "hatch": _HATCHES[i], "edgecolor": "white"}
            bars.append(axis.barh(places, table[:, i], left=left, height=0.66, lw=0.5, **looks))
            for name, place, bar in zip(names, places, bars[-1], strict=True):
                x, seconds = bar.get_x() + bar.get_width() / 2, bar.get_width()
                tag(bar, name, x_=x, y_=place, **{f"{TIME_PARTS[i]}, seconds": seconds})
            left = left + table[:, i]
        for place, total in zip(places, left, strict=True):
            axis.text(total, place, f" {total:,.3g} s", va="center", fontsize=8.5)
        axis.set_yticks(places, list(map(plain, names)), **NO_MATH)
        tag_labels(axis, names)
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_xlim(0, 1.12 * max(float(left.max()), 1e-9))
        axis.set_xlabel("seconds, all workloads and studies together")
        legend(figure, [TIME_PARTS[i] for i in shown], bars, len(shown))


def _told(names: Sequence[str], table: NDArray[np.float64]) -> str:
    told: Mapping[str, str] = {name: _told_one(row) for name, row in zip(names, table, strict=True)}
    listed = "; ".join(f"{plain(name)} {text}" for name, text in told.items())
    return f"Seconds of each contender by activity: {listed}"


def _told_one(row: NDArray[np.float64]) -> str:
    total, largest = float(row.sum()), int(np.argmax(row))
    return f"{total:,.3g} s" + (
        f", {row[largest] / total:.0%} of it {TIME_PARTS[largest]}" if total else ""
    )
