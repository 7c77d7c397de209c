"""The plots of scores, budgets and self-tuning runs, as PNG and SVG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.logs.logs import Logs, Trial
from analysis.report.plots.canvas import (
    AS_IT_IS,
    Plot,
    figure_at,
    legend,
    legend_columns,
    legend_lines,
    markers,
    palette,
    slug,
    style,
)
from analysis.report.tables import plain, unit_name
from analysis.scoring.costs import View
from analysis.scoring.profiles import LIMIT, profile, ratios
from analysis.scoring.scores import VIEWS, Scores
from analysis.training.best import DEPLOYED
from analysis.training.curves import Band, Episode, episodes
from metaopt.bench.records import TrialRecord

VIEW_NAMES: dict[View, str] = {"including": "including tuning", "given": "given tuned"}
Bands = Mapping[tuple[str, str], Band]  # by contender and workload
# By contender and view: the corners of the staircase, tau and the share of workloads from there on.
Profiles = Mapping[tuple[str, View], tuple[NDArray[np.float64], NDArray[np.float64]]]


def profiles_of(scores: Scores) -> Profiles:
    """Return everybody's performance profiles."""
    return {
        (name, view): profile(row)
        for view in VIEWS
        for name, row in zip(scores.contenders, ratios(scores.matrix(view)), strict=True)
    }


def plot_profiles(scores: Scores, profiles: Profiles, out: Path) -> list[Plot]:
    """Draw the performance profiles of both views into ``out``."""
    plots = []
    for view in VIEWS:
        title = VIEW_NAMES[view]
        path = out / f"profile-{view}.png"
        text = _told_profiles(profiles, view)
        caption = (
            f"Share of the workloads that a contender solved at a cost of at most this many times "
            f"the best contender's, {title}: higher and further left is better."
        )
        styles, names = style(scores.contenders), sorted(scores.contenders)
        marks = markers(names)
        with figure_at(path, legend_lines(names)) as (figure, axis):
            handles = []
            for name in names:
                tau, rho = profiles[name, view]
                handles += axis.plot(*_staircase(tau, rho), **styles[name], **marks[name])
            axis.set(title=title, xlim=(1, LIMIT), ylim=(-0.03, 1.05))
            axis.set(xlabel="cost over the best contender's", ylabel="share of workloads")
            legend(figure, names, handles, legend_columns(names))
        plots.append(Plot("Performance profiles", text, path, caption))
    return plots


def plot_anytime(logs: Logs, scores: Scores, bands: Bands, out: Path) -> list[Plot]:
    """Draw the best metric so far against the spent budget, a picture for each workload."""
    plots = []
    for index, workload in enumerate(scores.workloads, start=1):
        mine = {name: bands[name, w] for name, w in sorted(bands) if w == workload}
        if not mine:
            continue
        record = next(t.record for t in logs.trials if t.record.workload == workload)
        path = out / f"anytime-{index}-{slug(workload)}.png"
        _draw_anytime(record, mine, style(scores.contenders), path)
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
        heading = "Best metric so far against spent budget"
        plots.append(Plot(heading, text, path, caption, workload=workload))
    return plots


def plot_episodes(logs: Logs, scores: Scores, out: Path) -> list[Plot]:
    """Draw the first run of each study of every self-tuning contender, episode by episode."""
    plots = []
    pairs = [(c, w) for c in scores.contenders for w in scores.workloads]
    learners = [(c, w) for c, w in pairs if any(map(_is_self_tuning, logs.of(c, w)))]
    for index, (contender, workload) in enumerate(learners, start=1):
        trials = [trial for trial in logs.of(contender, workload) if trial.record.trial == 1]
        runs = [episodes(trial) for trial in trials]
        path = out / f"episodes-{index}-{slug(contender)}-{slug(workload)}.png"
        _draw_episodes(logs.of(contender, workload)[0].record, runs, path)
        plots.append(
            Plot(
                "Loss over episodes of self-tuning runs",
                _told_episodes(contender, workload, runs),
                path,
                f"{plain(contender)} on {plain(workload)}: the first run of each study, the first "
                "study strong and the others faint; later episodes are darker.",
                workload=workload,
            )
        )
    return plots


def _staircase(
    tau: NDArray[np.float64], rho: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of a profile and points between them, at which a marker may stand."""
    at = np.unique(np.concatenate([np.linspace(1, LIMIT, 61), tau]))
    x, y = np.repeat(at, 2)[1:], np.repeat(rho[np.searchsorted(tau, at, side="right") - 1], 2)[:-1]
    return x, y


def _told_profiles(profiles: Profiles, view: View) -> str:
    """Say the shares at both ends of each profile."""
    shares = []
    for (name, which), (tau, rho) in profiles.items():
        if which == view:
            first = rho[np.searchsorted(tau, 1.0, side="right") - 1]
            shares.append(f"{plain(name)} {first:.0%} and {rho[-1]:.0%}")
    return (
        f"Performance profiles, {VIEW_NAMES[view]}: share of workloads on which each is the best, "
        f"and within {LIMIT:g} times the best: {', '.join(shares)}"
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
            colour = styles[name]["color"]
            axis.fill_between(band.x, band.low, band.high, color=colour, alpha=faint, lw=0)
        handles.append(axis.axhline(record.target.value, color="0.1", linewidth=1))
        axis.set_title(plain(record.workload), **AS_IT_IS)
        axis.set_xscale("log")
        axis.set_xlabel(f"budget spent by the study, {unit_name(record.budget.currency)}")
        axis.set_ylabel(f"best {plain(record.target.metric)}", **AS_IT_IS)
        values = np.concatenate([band.low for band in bands.values()])
        if "loss" in record.target.metric and (values > 0).any() and (values >= 0).all():
            # A loss that underflows to 0 leaves the plot at its bottom.
            axis.set_yscale("log", nonpositive="clip")
            axis.set_ylim(bottom=0.5 * values[values > 0].min())
        legend(figure, labels, handles, legend_columns(labels))


def _draw_episodes(record: TrialRecord, runs: Sequence[Sequence[Episode]], path: Path) -> None:
    most = max((len(run) for run in runs), default=1)
    shades, blue = sns.color_palette("flare", max(2, most)), palette()[0]
    phases: dict[str, Any] = {}
    with figure_at(path, 1) as (figure, axis):
        positive = False
        for index, run in enumerate(runs):
            for episode in run:
                deployed = episode.phase == DEPLOYED
                colour = blue if deployed else shades[episode.number]
                axis.plot(
                    episode.spent, episode.loss, color=colour, linewidth=1.5 if deployed else 1.1,
                    alpha=0.9 if index == 0 else 0.35,
                )  # fmt: skip
                positive = positive or bool((episode.loss > 0).any())
                phases.setdefault(episode.phase, Line2D([], [], color=colour, linewidth=2))
        axis.set_title(f"{plain(record.contender)} on {plain(record.workload)}", **AS_IT_IS)
        axis.set_ylabel("training loss")
        axis.set_xlabel(f"budget spent by the run, {unit_name(record.budget.currency)}")
        if positive:
            axis.set_yscale("log")
        names = [f"{name} (darker: later)" if name != DEPLOYED else name for name in phases]
        legend(figure, names, list(phases.values()), 2)


def _told_episodes(contender: str, workload: str, runs: Sequence[Sequence[Episode]]) -> str:
    title = f"{plain(contender)} on {plain(workload)}: training loss, episode by episode"
    run = next((run for run in runs if run), None)
    if run is None:
        return title
    first, last = (f"{episode.loss[-1]:.3g}" for episode in (run[0], run[-1]))
    count = f"{len(run)} episode{'s' if len(run) != 1 else ''}"
    return f"{title}. First study: {count}, ending at {first} in the first and {last} in the last"


def _is_self_tuning(trial: Trial) -> bool:
    return trial.record.ruleset == "self-tuning"
