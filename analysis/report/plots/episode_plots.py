"""The paper's figures, drawn from a campaign: training loss over episodes, and since deployment."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.logs.logs import Logs
from analysis.report.plots.canvas import (
    NO_MATH,
    WIDTH,
    Plot,
    figure_at,
    file_slug,
    legend,
    legend_columns,
    legend_lines,
    line_styles,
    tag,
    tag_band,
)
from analysis.training.episodes import (
    Line,
    OverEpisodes,
    Panel,
    Piece,
    Runs,
    SinceDeployment,
    over_episodes,
    since_deployment,
)
from analysis.training.last_evaluations import LastEvaluation
from analysis.wording import plain

_WIDE = 2 * WIDTH
_LEARNING = "How does the training loss fall from episode to episode?"
_CHANGING = "How does it fall where nothing is deployed and batches change?"
_SINCE = "How good is the learned rule, frozen and on new batches?"


def plot_training(logs: Logs, runs: Runs, ends: Iterable[LastEvaluation], out: Path) -> list[Plot]:
    """Draw all figures for which the logs have data into ``out``, in the order of the page."""
    ends = tuple(ends)
    styles = line_styles(tuple(logs.contenders))
    learning, changing, deployed = [], [], []
    for index, workload in enumerate(logs.workloads, start=1):
        for data in over_episodes(logs, runs, ends, workload):
            kind = "changing" if data.changing else "learning"
            name = f"{kind}-{index}-{file_slug(workload)}-{data.length}.png"
            plot = _plot_episodes(data, styles, out / name)
            (changing if data.changing else learning).append(plot)
        since = since_deployment(logs, runs, ends, workload)
        if since is not None:
            path = out / f"deployed-{index}-{file_slug(workload)}.png"
            deployed.append(_plot_deployed(since, styles, path))
    return [*learning, *deployed, *changing]


def _plot_episodes(data: OverEpisodes, styles: Mapping[str, dict[str, Any]], path: Path) -> Plot:
    names = [line.name for line in (*data.learners, *data.baselines)]
    with figure_at(path, legend_lines(names, _WIDE), width=_WIDE) as (figure, axis):
        axis.grid(visible=False, axis="x")
        for start in data.starts:
            line = axis.axvline(start, color="0.75", linewidth=0.6, zorder=0)
            tag(line, "", "upright", x_=[start], y_=[0])
        faint = min(0.08, 0.3 / max(1, len(data.baselines)))
        behind = [_draw(axis, line, styles[line.name], behind=faint) for line in data.baselines]
        several = len(data.learners) > 1
        ahead = []
        for line in data.learners:
            looks = styles[line.name] if several else styles[line.name] | {"linestyle": "-"}
            ahead.append(_draw(axis, line, looks, ends=data.changing))
        axis.set_title(plain(data.workload), **NO_MATH)
        axis.set_xlabel("optimizer steps since the start of the run")
        axis.set_ylabel("training loss")
        axis.set_xlim(0, data.starts[-1] + data.length)
        if data.geometric:
            axis.set_yscale("log")
        legend(figure, names, [*ahead, *behind], legend_columns(names, _WIDE), names)
    heading = _CHANGING if data.changing else _LEARNING
    return Plot(
        heading, _told(data), path, _episodes_caption(data), wide=True, workload=data.workload
    )


def _plot_deployed(data: SinceDeployment, styles: Mapping[str, dict[str, Any]], path: Path) -> Plot:
    shown = {line.name for panel in data.panels for line in panel.lines}
    names = sorted(shown, key=lambda name: (name not in data.learners, name))
    handles: dict[str, Any] = {}
    lines = legend_lines(names, _WIDE)
    with figure_at(path, lines, panels=len(data.panels), width=_WIDE) as (figure, axes):
        for axis, panel in zip(np.atleast_1d(axes), data.panels, strict=True):
            for line in sorted(panel.lines, key=lambda line: line.name in data.learners):
                faint = min(0.08, 0.3 / len(panel.lines))
                behind = None if line.name in data.learners else faint
                handles[line.name] = _draw(axis, line, styles[line.name], behind=behind)
            axis.set_title(plain(panel.metric), **NO_MATH)
            axis.set_xlabel("optimizer steps, since deployment or since the start")
            axis.set_xlim(0, data.shown or 1)
            if panel.geometric:
                axis.set_yscale("log")
            _fit(axis, panel, data.shown)
        figure.suptitle(plain(data.workload), fontsize=11, **NO_MATH)
        drawn = [handles[name] for name in names]
        legend(figure, names, drawn, legend_columns(names, _WIDE), names)
    metrics = " and ".join(panel.metric for panel in data.panels)
    text = f"{plain(data.workload)}: {plain(metrics)} since deployment, baselines since their start"
    told = [f"{plain(panel.metric)}: {_last_values(panel)}" for panel in data.panels]
    text = f"{text}. Last values, {'; '.join(told)}"
    return Plot(_SINCE, text, path, _deployed_caption(data), wide=True, workload=data.workload)


def _fit(axis: Any, panel: Panel, shown: float) -> None:
    """Exclude values beyond the shown steps from the limits of the vertical axis."""
    pieces = [line.pieces[0] for line in panel.lines]
    seen = [values[piece.x <= shown] for piece in pieces for values in (piece.low, piece.high)]
    values = np.concatenate(seen)
    if not len(values):  # only runs longer than `shown` have this metric
        return
    low, high = float(values.min()), float(values.max())
    if panel.geometric:
        margin = (high / low) ** 0.05 if high > low else 1.1
        axis.set_ylim(low / margin, high * margin)
    else:
        margin = 0.05 * (high - low) or 0.05
        axis.set_ylim(low - margin, high + margin)


def _draw(
    axis: Any, line: Line, looks: dict[str, Any], *, behind: float | None = None, ends: bool = False
) -> Any:
    """Draw a line with its band; return its handle for the legend.

    Args:
        axis: The axes to draw on.
        line: The curves.
        looks: The colour and the line style.
        behind: The opacity of the band of a background line, which is thinner; ``None`` for a
            line in the foreground.
        ends: Whether to mark the end of each piece that was not cut with a dot.
    """
    # Half the usual widths, which differ so that coinciding lines all stay visible.
    thin = {"alpha": 0.85, "linewidth": 0.5 * looks["linewidth"]}
    strength = {"linewidth": 2.0} if behind is None else thin
    handle = None
    for piece in line.pieces:
        (handle,) = axis.plot(piece.x, piece.middle, **looks | strength)
        band = 0.22 if behind is None else behind
        colour = {"color": looks["color"], "alpha": band, "lw": 0}
        area = axis.fill_between(piece.x, piece.low, piece.high, **colour)
        tag_band(handle, area, line.name, "step", piece)
    if ends:
        last = [(piece.x[-1], piece.middle[-1]) for piece in line.pieces if not piece.cut]
        dots = {"linestyle": "", "marker": "o", "markersize": 6, "markeredgecolor": "white"}
        x, y = zip(*last, strict=True) if last else ((), ())
        (drawn,) = axis.plot(x, y, color=looks["color"], **dots)
        tag(drawn, line.name, x_=x, y_=y)
    return handle


def _told(data: OverEpisodes) -> str:
    """Return the alt text: the ends of the learners' lines and of the baselines."""
    lines = []
    for line in data.learners:
        whole = [piece for piece in line.pieces if not piece.cut] or line.pieces
        lines.append(
            f"{plain(line.name)} {_last_value(whole[0])} at the end of its first episode, "
            f"{_last_value(whole[-1])} of its last"
        )
    behind = [f"{plain(line.name)} {_last_value(line.pieces[0])}" for line in data.baselines]
    tuned = f"; tuned baselines after as many steps: {', '.join(behind)}" if behind else ""
    episodes = f"{len(data.starts)} episodes of {data.length} steps"
    return f"{plain(data.workload)}: training loss over {episodes}: {'; '.join(lines)}{tuned}"


def _last_values(panel: Panel) -> str:
    return ", ".join(f"{plain(line.name)} {_last_value(line.pieces[0])}" for line in panel.lines)


def _last_value(piece: Piece) -> str:
    return f"{piece.middle[-1]:.3g}"


def _episodes_caption(data: OverEpisodes) -> str:
    mean = "geometric mean" if data.geometric else "mean"
    parts = [
        f"Lines: {mean} over studies of the first run; bands: lowest to highest study. "
        f"Vertical lines: starts of episodes of {data.length:,} steps."
    ]
    if data.window > 1:
        parts.append(f"Running mean over {data.window} steps within each episode.")
    else:
        parts.append("Loss on the training set at evaluations, not smoothed.")
    if data.changing:
        parts.append("Dots: the last value of each complete episode.")
    if data.baselines:
        parts.append(
            "Thin background lines: the first "
            f"{data.length:,} steps of each study's trial with the lowest last training loss, "
            "repeated in every episode."
        )
    for line in data.learners:
        counts = [piece.studies for piece in line.pieces]
        if len(set(counts)) > 1:
            parts.append(
                f"Number of studies in each episode of {plain(line.name)}: "
                f"{', '.join(map(str, counts))}."
            )
    return " ".join(parts)


def _deployed_caption(data: SinceDeployment) -> str:
    metric = plain(data.panels[-1].metric)
    geometric = [plain(panel.metric) for panel in data.panels if panel.geometric]
    of = f" (geometric for {', '.join(geometric)})" if geometric else ""
    parts = [
        f"Lines: mean{of} over studies of the trial with the best last {metric}; bands: lowest to "
        f"highest study. Steps since deployment for {', '.join(map(plain, data.learners))} "
        "(thicker), since the start for the others. Not smoothed."
    ]
    if data.longest > data.shown:
        parts.append(
            f"Shown up to the end of the longest tuned trial; the longest line continues to step "
            f"{data.longest:,.0f}, see ends.csv."
        )
    if data.left_out:
        parts.append(f"Never deployed, left out: {', '.join(map(plain, data.left_out))}.")
    return " ".join(parts)
