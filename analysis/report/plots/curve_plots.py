"""The plots of performance profiles and of the best metric so far."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.logs.logs import Logs
from analysis.report.plots.canvas import (
    NO_MATH,
    Plot,
    figure_at,
    file_slug,
    legend,
    legend_columns,
    legend_lines,
    line_styles,
    markers,
    tag,
    tag_band,
)
from analysis.report.tables.score_tables import in_view, unit_name
from analysis.scoring.benchmark import AXES
from analysis.scoring.costs import View
from analysis.scoring.profiles import Axis, profile
from analysis.scoring.scores import Scores
from analysis.training.curves import Band
from analysis.wording import plain
from metaopt.bench.records import TrialRecord

PROFILES_HEADING = "How often is a contender within some factor of the cheapest?"
ANYTIME_HEADING = "What has been found after a part of the budget?"
Bands = Mapping[tuple[str, str], Band]  # by contender and workload
# By contender and view: the corners of the step function, (tau, share of workloads).
Profiles = Mapping[tuple[str, View], tuple[NDArray[np.float64], NDArray[np.float64]]]


def profiles_of(scores: Scores) -> Profiles:
    """Return the performance profiles whose areas are the scores, of all contenders."""
    found = {}
    for view in scores.views:
        rows = scores.benchmark.ratios(scores.matrix(view), view)
        for name, row in zip(scores.contenders, rows, strict=True):
            found[name, view] = profile(row, AXES[view].limit)
    return found


def plot_profiles(scores: Scores, profiles: Profiles, out: Path) -> list[Plot]:
    """Draw the performance profiles of both views into ``out``."""
    plots = []
    for view in scores.views:
        title, along = in_view("Profile", view), AXES[view]
        path = out / f"profile-{view}.png"
        text = _told_profiles(profiles, view)
        cost = in_view("cost", view)
        caption = (
            f"Share of the workloads on which a contender's {cost} is at most x times the best "
            "contender's. Higher and further left is better."
        )
        styles, names = line_styles(scores.contenders), sorted(scores.contenders)
        marks = markers(names)
        with figure_at(path, legend_lines(names)) as (figure, axis):
            handles = []
            for name in names:
                x, y = _staircase(*profiles[name, view], along)
                handles += axis.plot(x, y, **styles[name], **marks[name])
                tag(handles[-1], name, "line", within_times_the_best=x, share_of_workloads=y)
            if along.logarithmic:
                axis.set_xscale("log", base=2)
                axis.xaxis.set_major_formatter("{x:g}")
            axis.set(title=title, xlim=(1, along.limit), ylim=(-0.03, 1.05))
            axis.set(xlabel="cost over the best contender's", ylabel="share of workloads")
            legend(figure, names, handles, legend_columns(names), names)
        plots.append(Plot(PROFILES_HEADING, text, path, caption))
    return plots


def plot_anytime(logs: Logs, scores: Scores, bands: Bands, out: Path) -> list[Plot]:
    """Draw the best metric so far against the spent budget, one plot per workload."""
    plots = []
    for index, workload in enumerate(scores.workloads, start=1):
        mine = {name: bands[name, w] for name, w in sorted(bands) if w == workload}
        if not mine:
            continue
        record = next(t.record for t in logs.trials if t.record.workload == workload)
        path = out / f"anytime-{index}-{file_slug(workload)}.png"
        _draw_anytime(record, mine, line_styles(scores.contenders), path)
        last = [f"{plain(name)} {band.middle[-1]:.3g}" for name, band in mine.items()]
        text = (
            f"{plain(workload)}: best {plain(record.target.metric)} so far against what the study "
            f"had spent. Medians at the end of the budget: {', '.join(last)}; target "
            f"{record.target.value:.3g}"
        )
        caption = (
            f"{plain(workload)}: medians over studies, bands from the lowest to the highest study; "
            f"the horizontal line is the target, {record.target.value:.4g}."
        )
        plots.append(Plot(ANYTIME_HEADING, text, path, caption, workload=workload))
    return plots


def _staircase(
    tau: NDArray[np.float64], rho: NDArray[np.float64], axis: Axis
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of a profile, with points between them that may carry markers."""
    spaced = np.geomspace if axis.logarithmic else np.linspace
    at = np.unique(np.concatenate([spaced(1, axis.limit, 61), tau]))
    x, y = np.repeat(at, 2)[1:], np.repeat(rho[np.searchsorted(tau, at, side="right") - 1], 2)[:-1]
    return x, y


def _told_profiles(profiles: Profiles, view: View) -> str:
    """Return the alt text: the shares at both ends of each profile."""
    shares = []
    for (name, which), (tau, rho) in profiles.items():
        if which == view:
            first = rho[np.searchsorted(tau, 1.0, side="right") - 1]
            shares.append(f"{plain(name)} {first:.0%} and {rho[-1]:.0%}")
    return (
        f"{in_view('Performance profiles', view)}: share of workloads on which each is the best, "
        f"and within {AXES[view].limit:g} times the best: {', '.join(shares)}"
    )


def _draw_anytime(
    record: TrialRecord, bands: Mapping[str, Band], styles: Mapping[str, dict[str, Any]], path: Path
) -> None:
    names, marks = list(bands), markers(list(styles))
    labels, faint = [*names, "target"], min(0.1, 0.5 / len(bands))
    with figure_at(path, legend_lines(labels)) as (figure, axis):
        handles = []
        for name, band in bands.items():
            handles += axis.plot(band.x, band.middle, **styles[name], **marks[name])
            looks = {"color": styles[name]["color"], "alpha": faint, "lw": 0}
            area = axis.fill_between(band.x, band.low, band.high, **looks)
            tag_band(handles[-1], area, name, "spent", band)
        handles.append(axis.axhline(record.target.value, color="0.1", linewidth=1))
        axis.set_title(plain(record.workload), **NO_MATH)
        axis.set_xscale("log")
        axis.set_xlabel(f"budget spent by the study, {unit_name(record.budget.currency)}")
        axis.set_ylabel(f"best {plain(record.target.metric)}", **NO_MATH)
        values = np.concatenate([band.low for band in bands.values()])
        if record.target.better == "lower" and (values > 0).any() and (values >= 0).all():
            # A loss that underflows to 0 has no logarithm: its line leaves the plot at the bottom.
            # At the top the bands do, for one trial that diverges would flatten all lines.
            axis.set_yscale("log", nonpositive="clip")
            medians = np.concatenate([band.middle for band in bands.values()])
            top = 2 * medians[np.isfinite(medians)].max(initial=record.target.value)
            axis.set_ylim(bottom=0.5 * values[values > 0].min(), top=top)
        ends, target = axis.get_xlim(), (record.target.value,) * 2
        tag(handles[-1], "", "line", x_=ends, target=target)
        legend(figure, labels, handles, legend_columns(labels), names)
