"""The picture of a report's answer: speed-ups over the reference, with intervals."""

from pathlib import Path

import numpy as np

from analysis.report.plots.canvas import NO_MATH, WIDTH, Plot, figure_at, palette, tag, tag_labels
from analysis.report.plots.statistics_plots import plot_scores
from analysis.report.tables.score_tables import in_view
from analysis.statistics.inference import Inference
from analysis.statistics.speedups import Speedups
from analysis.wording import plain

_MOST = 12  # contenders; the table below the picture has all


def plot_answer(found: Inference, heading: str, out: Path) -> Plot:
    """Draw the speed-ups of the first contenders; scores if there is no reference, or only it."""
    speedups = found.speedups
    defined = [] if speedups is None else [
        s for s in found.order
        if found.samples.contenders[s] != speedups.reference
        and np.isfinite(speedups.values.value[s])
    ]  # fmt: skip
    if speedups is None or not defined:
        path = out / f"intervals-{found.view}.png"
        plot_scores(found, path)
        caption = f"{in_view('Scores', found.view)} with intervals of {found.percent}."
        return Plot(heading, caption, path, caption)
    shown, path = defined[:_MOST], out / "answer.png"
    _draw(found, speedups, shown, path)
    told = [
        f"{plain(found.samples.contenders[s])} {speedups.bounds[s]} "
        f"{speedups.values.value[s]:.2f}".replace("  ", " ")
        for s in shown
    ]
    most = f" The {_MOST} with the best scores are shown." if len(defined) > _MOST else ""
    return Plot(
        heading,
        f"{in_view('Speed-ups', found.view)} over {plain(speedups.reference)}: {'; '.join(told)}",
        path,
        f"{in_view('Speed-up', found.view)} over {plain(speedups.reference)}, by score. Dots: "
        f"geometric means over workloads; bars: intervals of {found.percent}; ticks: "
        "single workloads. Hollow: a bound, because a median missed. A bar to the edge has no end, "
        f"because resamples missed.{most}",
    )


def _draw(found: Inference, speedups: Speedups, shown: list[int], path: Path) -> None:
    names = [found.samples.contenders[s] for s in shown]
    values, colour = speedups.values, palette()[0]
    with figure_at(path, width=WIDTH, height=0.9 + 0.24 * max(2, len(names))) as (_, axis):
        axis.set_xscale("log")
        axis.axvline(1, color="0.15", linewidth=1)
        for row, (s, name) in enumerate(zip(shown, names, strict=True)):
            ratios = speedups.ratios[s][np.isfinite(speedups.ratios[s])]
            (ticks,) = axis.plot(ratios, np.full(len(ratios), row), "|", color="0.15", ms=8)
            workloads = [
                plain(name)
                for name, ratio in zip(found.samples.scored.base, speedups.ratios[s], strict=True)
                if np.isfinite(ratio)
            ]
            tag(ticks, name, speed_up=ratios, y_=np.full(len(ratios), row), workload=workloads)
            value, low, high = (part[s] for part in (values.value, values.low, values.high))
            face = "white" if speedups.bounds[s] else colour
            (dot,) = axis.plot(value, row, "o", color=colour, markerfacecolor=face, ms=7)
            tag(dot, name, speed_up=value, y_=row, low=low, high=high)
        index, rows = list(shown), np.arange(len(shown))
        middle, low, high = (part[index] for part in (values.value, values.low, values.high))
        bar = {"color": colour, "linewidth": 5, "alpha": 0.35}
        for ends in (low, high):
            axis.hlines(rows, middle, np.where(np.isnan(ends), middle, ends), **bar)
        edges = axis.get_xlim()
        for ends, edge in ((low, edges[0]), (high, edges[1])):
            axis.hlines(rows[np.isnan(ends)], middle[np.isnan(ends)], edge, **bar)
        axis.set_xlim(edges)
        axis.set_yticks(range(len(names)), list(map(plain, names)), **NO_MATH)
        tag_labels(axis, names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"speed-up over {plain(speedups.reference)}", **NO_MATH)
