"""The plots of the statistics: scores with their intervals, and the critical-difference diagram."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from analysis.report.plots.canvas import NO_MATH, Plot, figure_at, tag, tag_labels
from analysis.report.tables.score_tables import in_view
from analysis.statistics.inference import Inference
from analysis.wording import plain

_INK = "0.15"
_BLUE = "#0173b2"
_SOFT = "0.55"
_LONGEST = 34  # characters of a name in a plot
_SCALE = 4.4  # inches from the first rank to the last
_LETTER = 0.083  # inches per letter of a name


def plot_inference(found: Inference, heading: str, out: Path) -> list[Plot]:
    """Draw the defined statistics into ``out``; return the plots of one section in their order."""
    title = in_view("scores", found.view)
    scores = Plot(
        heading,
        f"{title.capitalize()} with intervals, and with each workload left out",
        out / f"intervals-{found.view}.png",
        caption=(
            f"Dots: {title}. Bars: bootstrap intervals of {found.percent}. "
            "Ticks: scores with one workload left out."
        ),
    )
    plot_scores(found, scores.path)
    plots = [scores]
    if found.ranking.warning is None:
        ranks = Plot(
            heading,
            in_view("Critical-difference diagram of mean ranks", found.view),
            out / f"ranks-{found.view}.png",
            caption=(
                "Mean ranks over workloads; 1 is the lowest cost. A thick line joins contenders "
                "whose mean ranks differ by less than the critical difference."
            ),
            wide=True,
        )
        plot_critical_differences(found, ranks.path)
        plots.append(ranks)
    return plots


def plot_scores(found: Inference, path: Path) -> None:
    """Draw each contender's score, its interval, and the scores with a workload left out."""
    order = found.order
    with figure_at(path, lines=max(0, len(order) - 10)) as (_, axis):
        rows = np.arange(len(order))
        index = list(order)
        low, high = found.scores.low[index], found.scores.high[index]
        axis.hlines(rows, low, high, color=_BLUE, linewidth=5, alpha=0.35)
        if found.left_out is not None:
            for row, s in zip(rows, index, strict=True):
                without = found.left_out.scores[:, s]
                axis.plot(without, [row] * len(without), "|", color=_INK, markersize=9)
        names = [found.samples.contenders[s] for s in index]
        values = found.scores.value[index]
        for name, row, *ends in zip(names, rows, values, low, high, strict=True):
            (dot,) = axis.plot(ends[0], row, "o", color=_BLUE, markersize=7)
            tag(dot, name, score=ends[0], y_=row, low=ends[1], high=ends[2])
        axis.set_yticks(rows, list(map(_short, names)))
        tag_labels(axis, names)
        for label in axis.get_yticklabels():
            label.set(**NO_MATH)
        axis.set(xlim=(-0.02, 1.02), ylim=(len(order) - 0.5, -0.5), xlabel="score")
        axis.set_title(in_view("Scores", found.view))
        axis.grid(axis="y", visible=False)


def plot_critical_differences(found: Inference, path: Path) -> None:
    """Draw mean ranks on a line, and the groups within one critical difference.

    Raises:
        ValueError: There are too few workloads or contenders for a diagram.
    """
    if found.ranking.warning is not None:
        raise ValueError(found.ranking.warning)
    mean = found.ranking.mean
    order = [int(i) for i in np.argsort(mean, kind="stable")]
    groups = found.ranking.groups()
    levels = _levels([(mean[group[0]], mean[group[-1]]) for group in groups])
    depth = 0.45 * (max(levels, default=-1) + 1)  # of all thick lines below the axis
    half = (len(order) + 1) // 2
    bottom = depth + 0.75 + half
    places = len(order)
    names = 0.3 + _LETTER * max(len(_label(found, s)) for s in order)  # inches on either side
    with figure_at(path, lines=max(0, round(1.4 * (bottom - 6))), width=_SCALE + 2 * names) as (
        _,
        axis,
    ):
        axis.set_axis_off()
        margin = (places - 1) * names / _SCALE
        axis.set(xlim=(1 - margin, places + margin), ylim=(bottom, -2.2))
        _draw_scale(axis, places, found.ranking.critical_difference)
        for group, level in zip(groups, levels, strict=True):
            at = 0.4 + 0.45 * level
            ends = mean[group[0]] - 0.04, mean[group[-1]] + 0.04
            axis.plot(ends, (at, at), color=_BLUE, linewidth=4, solid_capstyle="butt")
        for position, s in enumerate(order):
            left = position < half
            row = position if left else places - 1 - position
            drawn = _draw_name(axis, _label(found, s), mean[s], depth + 0.95 + row, places, left)
            tag(drawn, found.samples.contenders[s])
        axis.set_title(in_view("Mean ranks", found.view))


def _draw_scale(axis: Any, places: int, difference: float) -> None:
    axis.plot((1, places), (0, 0), color=_INK, linewidth=1.2)
    for place in range(1, places + 1):
        axis.plot((place, place), (-0.15, 0), color=_INK, linewidth=1.2)
        axis.text(place, -0.28, str(place), ha="center", va="bottom")
    end = min(1 + difference, places)
    axis.plot((1, end), (-1.25, -1.25), color=_INK, linewidth=1.2)
    for tick in (1, end):
        axis.plot((tick, tick), (-1.37, -1.13), color=_INK, linewidth=1.2)
    text = f"critical difference {difference:.2f}"
    axis.text((1 + end) / 2, -1.45, text, ha="center", va="bottom")


def _draw_name(axis: Any, text: str, rank: float, at: float, places: int, left: bool) -> Any:
    """Draw a contender's rank and its name; return the name."""
    edge = 0.85 if left else places + 0.15
    axis.plot((rank, rank, edge), (0, at, at), color=_SOFT, linewidth=0.9)
    axis.plot(rank, 0, "o", color=_INK, markersize=4)
    place = edge - 0.08 if left else edge + 0.08
    drawn = axis.text(place, at, text, ha="right" if left else "left", va="center", **NO_MATH)
    drawn.set_in_layout(False)  # the figure has room for it; the layout would shrink the scale
    return drawn


def _levels(spans: list[tuple[float, float]]) -> list[int]:
    """Return a level for each span such that spans on the same level do not touch."""
    ends: list[float] = []
    levels = []
    for start, stop in spans:
        level = next((i for i, end in enumerate(ends) if end < start - 0.15), len(ends))
        if level == len(ends):
            ends.append(-math.inf)
        ends[level] = stop
        levels.append(level)
    return levels


def _label(found: Inference, index: int) -> str:
    return f"{_short(found.samples.contenders[index])}  {found.ranking.mean[index]:.2f}"


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
