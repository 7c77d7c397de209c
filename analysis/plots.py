"""The plots of scores, budgets and self-tuning runs, as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D

from analysis.canvas import (
    AS_IT_IS,
    Plot,
    figure_at,
    legend,
    legend_columns,
    legend_lines,
    slug,
    style,
)
from analysis.costs import View
from analysis.curves import DEPLOYED, anytime, episodes
from analysis.profiles import LIMIT, profile, ratios
from analysis.reading import Logs
from analysis.scoring import Scores
from analysis.tables import plain, unit_name

_VIEWS: dict[View, str] = {"including": "including tuning", "given": "given tuned"}
_BLUE = "#0173b2"


def plot_all(logs: Logs, scores: Scores, out: Path) -> list[Plot]:
    """Draw every plot into ``out``; return them in the order of the page."""
    plots = []
    for view, title in _VIEWS.items():
        plot = Plot(
            "Performance profiles",
            f"Share of workloads solved within a factor of the best cost, {title}",
            out / f"profile-{view}.png",
        )
        _plot_profiles(scores, view, title, plot.path)
        plots.append(plot)
    for index, workload in enumerate(scores.workloads, start=1):
        plot = Plot(
            "Best metric so far against spent budget",
            f"{plain(workload)}: best validation metric against what the study had spent",
            out / f"anytime-{index}-{slug(workload)}.png",
        )
        if _plot_anytime(logs, scores, workload, plot.path):
            plots.append(plot)
    learners = [name for name in scores.contenders if _is_self_tuning(logs, name)]
    for index, (contender, workload) in enumerate(
        ((c, w) for c in learners for w in scores.workloads if logs.of(c, w)), start=1
    ):
        plot = Plot(
            "Loss over episodes of self-tuning runs",
            f"{plain(contender)} on {plain(workload)}: training loss, episode by episode",
            out / f"episodes-{index}-{slug(contender)}-{slug(workload)}.png",
        )
        _plot_episodes(logs, contender, workload, plot.path)
        plots.append(plot)
    return plots


def _plot_profiles(scores: Scores, view: View, title: str, path: Path) -> None:
    styles, names = style(scores.contenders), sorted(scores.contenders)
    table = dict(zip(scores.contenders, ratios(scores.matrix(view)), strict=True))
    with figure_at(path, legend_lines(names)) as (figure, axis):
        handles = []
        for name in names:
            tau, rho = profile(table[name])
            handles += axis.step(tau, rho, where="post", **styles[name])
        axis.set(title=title, xlim=(1, LIMIT), ylim=(-0.03, 1.05))
        axis.set(xlabel="cost over the best contender's", ylabel="share of workloads")
        legend(figure, names, handles, legend_columns(names))


def _plot_anytime(logs: Logs, scores: Scores, workload: str, path: Path) -> bool:
    """Draw one workload; return whether there was anything to draw."""
    styles = style(scores.contenders)
    bands = {name: anytime(logs, name, workload) for name in sorted(scores.contenders)}
    names = [name for name, band in bands.items() if band is not None]
    if not names:
        return False
    record = next(t.record for t in logs.trials if t.record.workload == workload)
    with figure_at(path, legend_lines([*names, "target"])) as (figure, axis):
        handles = []
        for name in names:
            band = bands[name]
            assert band is not None
            handles += axis.plot(band.x, band.middle, **styles[name])
            colour = styles[name]["color"]
            axis.fill_between(band.x, band.low, band.high, color=colour, alpha=0.1, lw=0)
        handles.append(axis.axhline(record.target.value, color="0.25", linewidth=1))
        axis.set_title(plain(workload), **AS_IT_IS)
        axis.set_xscale("log")
        axis.set_xlabel(f"budget spent by the study, {unit_name(record.budget.currency)}")
        axis.set_ylabel(f"best {plain(record.target.metric)}", **AS_IT_IS)
        values = np.concatenate([band.low for band in bands.values() if band])
        if "loss" in record.target.metric and (values > 0).any() and (values >= 0).all():
            # A loss that underflows to 0 leaves the plot at its bottom.
            axis.set_yscale("log", nonpositive="clip")
            axis.set_ylim(bottom=0.5 * values[values > 0].min())
        legend(figure, [*names, "target"], handles, legend_columns([*names, "target"]))
    return True


def _plot_episodes(logs: Logs, contender: str, workload: str, path: Path) -> None:
    """Draw the first run of each study."""
    trials = [trial for trial in logs.of(contender, workload) if trial.record.trial == 1]
    runs = [episodes(trial) for trial in trials]
    record = logs.of(contender, workload)[0].record
    most = max((len(run) for run in runs), default=1)
    shades = sns.color_palette("flare", max(2, most))
    phases: dict[str, Any] = {}
    with figure_at(path, 1) as (figure, axis):
        positive = False
        for index, run in enumerate(runs):
            for episode in run:
                deployed = episode.phase == DEPLOYED
                colour = _BLUE if deployed else shades[episode.number]
                axis.plot(
                    episode.spent, episode.loss, color=colour, linewidth=1.5 if deployed else 1.1,
                    alpha=0.9 if index == 0 else 0.35,
                )  # fmt: skip
                positive = positive or bool((episode.loss > 0).any())
                phases.setdefault(episode.phase, Line2D([], [], color=colour, linewidth=2))
        axis.set_title(f"{plain(contender)} on {plain(workload)}", **AS_IT_IS)
        axis.set_ylabel("training loss")
        axis.set_xlabel(f"budget spent by the run, {unit_name(record.budget.currency)}")
        if positive:
            axis.set_yscale("log")
        names = [f"{name} (darker: later)" if name != DEPLOYED else name for name in phases]
        legend(figure, names, list(phases.values()), 2)


def _is_self_tuning(logs: Logs, contender: str) -> bool:
    return any(
        trial.record.contender == contender and trial.record.ruleset == "self-tuning"
        for trial in logs.trials
    )
