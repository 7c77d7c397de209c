"""The plots of a report, as PNG files. One style, readable for the colour-blind and in print."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from analysis.costs import View
from analysis.curves import anytime, episodes
from analysis.profiles import LIMIT, profile, ratios
from analysis.reading import Logs
from analysis.scoring import Scores

_DASHES = ["-", "--", "-.", ":"]
_NAMES = {
    "steps": "steps",
    "gradient_evaluations": "gradient evaluations",
    "seconds": "seconds of the submission",
}
_VIEWS: dict[View, str] = {"including": "including tuning", "given": "given tuned"}


def plot_all(logs: Logs, scores: Scores, out: Path) -> list[tuple[Path, str]]:
    """Draw every plot into ``out``; return the files with a description of each."""
    drawn = [
        (_plot_profiles(scores, out / "profiles.png"), "Performance profiles in both views"),
        (
            _plot_anytime(logs, scores, out / "anytime.png"),
            "Best validation metric so far against the study's spent budget, per workload",
        ),
    ]
    learners = [c for c in scores.contenders if _is_self_tuning(logs, c)]
    for contender in learners:
        path = out / f"episodes-{_slug(contender)}.png"
        drawn.append(
            (
                _plot_episodes(logs, scores, contender, path),
                f"Training loss of {contender} over its episodes, per workload",
            )
        )
    return drawn


def style(contenders: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return colour and line style of each contender; the colours repeat, the pairs do not."""
    colours = sns.color_palette("colorblind", 8)
    return {
        name: {"color": colours[index % 8], "linestyle": _DASHES[(index // 8 + index) % 4]}
        for index, name in enumerate(sorted(contenders))
    }


@contextmanager
def _figure(path: Path, columns: int, height: float = 3.6) -> Iterator[tuple[Figure, list[Any]]]:
    """Give a figure with ``columns`` panels side by side; write it to ``path`` and close it."""
    with sns.axes_style("whitegrid"), plt.rc_context({"font.size": 9, "axes.titlesize": 10}):
        figure, axes = plt.subplots(
            1, columns, figsize=(3.8 * columns, height), squeeze=False, layout="constrained"
        )
        yield figure, list(axes[0])
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _legend(figure: Figure, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = min(4, len(labels)) or 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _plot_profiles(scores: Scores, path: Path) -> Path:
    styles = style(scores.contenders)
    with _figure(path, 2) as (figure, axes):
        for axis, (view, title) in zip(axes, _VIEWS.items(), strict=True):
            table = ratios(scores.matrix(view))
            for name, row in zip(scores.contenders, table, strict=True):
                tau, rho = profile(row)
                axis.step(tau, rho, where="post", label=name, linewidth=1.8, **styles[name])
            axis.set(
                title=title, xlim=(1, LIMIT), ylim=(-0.03, 1.03),
                xlabel="cost over the best contender's", ylabel="share of workloads",
            )  # fmt: skip
        _legend(figure, axes[0])
    return path


def _plot_anytime(logs: Logs, scores: Scores, path: Path) -> Path:
    styles = style(scores.contenders)
    with _figure(path, len(scores.workloads)) as (figure, axes):
        for axis, workload in zip(axes, scores.workloads, strict=True):
            record = next(t.record for t in logs.trials if t.record.workload == workload)
            for name in scores.contenders:
                band = anytime(logs, name, workload)
                if band is None or not len(band.x):
                    continue
                axis.plot(band.x, band.median, label=name, linewidth=1.6, **styles[name])
                colour = styles[name]["color"]
                axis.fill_between(band.x, band.low, band.high, color=colour, alpha=0.12, lw=0)
            axis.axhline(record.target.value, color="0.3", linewidth=1, label="target")
            axis.set(title=workload, xscale="log")
            axis.set_xlabel(f"spent budget, {_NAMES[record.budget.currency]}")
            axis.set_ylabel(f"best {record.target.metric}")
            if record.target.metric.endswith("loss"):
                axis.set_yscale("log")
        _legend(figure, axes[0])
    return path


def _plot_episodes(logs: Logs, scores: Scores, contender: str, path: Path) -> Path:
    with _figure(path, len(scores.workloads), height=3.2) as (figure, axes):
        for axis, workload in zip(axes, scores.workloads, strict=True):
            trials = [
                trial
                for trial in logs.trials
                if (trial.record.contender, trial.record.workload) == (contender, workload)
            ]
            for trial in trials:
                _draw_episodes(axis, trial)
            axis.set(title=workload, yscale="log", xlabel="step", ylabel="training loss")
        _legend_of_phases(figure, axes)
    return path


def _draw_episodes(axis: Any, trial: Any) -> None:
    parts = episodes(trial)
    shades = sns.color_palette("flare", max(1, len(parts)))
    for shade, (phase, rows) in zip(shades, parts, strict=False):
        deployed = phase == "deployed"
        colour = sns.color_palette("colorblind")[0] if deployed else shade
        loss = rows["loss"].replace([np.inf, -np.inf], np.nan)
        alpha = 0.9 if trial.record.study == 1 else 0.35
        axis.plot(rows["global_step"], loss, color=colour, linewidth=1.1, alpha=alpha, label=phase)


def _legend_of_phases(figure: Figure, axes: list[Any]) -> None:
    by_label: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            by_label.setdefault(label, handle)
    if by_label:
        figure.legend(
            by_label.values(), by_label, loc="outside lower center", ncols=3, frameon=False
        )


def _is_self_tuning(logs: Logs, contender: str) -> bool:
    return any(
        trial.record.contender == contender and trial.record.ruleset == "self-tuning"
        for trial in logs.trials
    )


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)
