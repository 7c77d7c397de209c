"""The plot of a sweep: costs of variants against the one hyperparameter in which they differ."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.logs.logs import Logs
from analysis.report.plots.canvas import (
    NO_MATH,
    Plot,
    figure_at,
    file_slug,
    legend,
    line_styles,
    markers,
)
from analysis.report.plots.cost_plots import BAR, hide_scale, join_to_misses, missed_label
from analysis.report.table import format_cost
from analysis.report.tables.score_tables import Extras, unit_name
from analysis.scoring.scores import Scores
from analysis.wording import MISSED, plain

SWEEPS_HEADING = "How do costs depend on the one hyperparameter that varies?"
_FEWEST = 3  # values that make a sweep


class Sweep(NamedTuple):
    """Variants of one submission that differ in one numeric hyperparameter."""

    of: str
    parameter: str
    contenders: Mapping[float, str]  # by the hyperparameter's value, ascending


def find_sweeps(logs: Logs) -> list[Sweep]:
    """Return the sweeps: three or more of a campaign's variants that differ in one number."""
    variants = (logs.campaign or {}).get("variants", {})
    ran = {name: variants[name] for name in logs.contenders if name in variants}
    groups: dict[tuple[str, str, str], dict[float, str]] = defaultdict(dict)
    for name, variant in ran.items():
        values = variant["hyperparameters"]
        for parameter, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = {key: other for key, other in values.items() if key != parameter}
                rest = repr(sorted(others.items()))
                groups[variant["of"], parameter, rest][float(value)] = name
    return [
        Sweep(of, parameter, dict(sorted(found.items())))
        for (of, parameter, _), found in sorted(groups.items())
        if len(found) >= _FEWEST
    ]


def plot_sweeps(
    logs: Logs, scores: Scores, extras: Extras, out: Path, budgets: Mapping[str, float]
) -> Iterator[Plot]:
    """Draw a plot for each sweep in which some median study reached its target.

    Args:
        logs: The campaign with the variants.
        scores: The costs of the variants.
        extras: The intervals of the costs, if there are any.
        out: The folder of the plots.
        budgets: The known budgets of a study by workload, in the unit of the costs.
    """
    for index, sweep in enumerate(find_sweeps(logs), start=1):
        medians = {workload: _medians(sweep, workload, scores) for workload in scores.workloads}
        if not any(math.isfinite(cost) for row in medians.values() for cost in row):
            continue
        path = out / f"sweep-{index}-{file_slug(sweep.of)}-{file_slug(sweep.parameter)}.png"
        shared = {budgets.get(workload) for workload in scores.workloads}
        budget = shared.pop() if len(shared) == 1 else None
        _draw(sweep, medians, scores, extras, path, budget)
        bars = f" Bars: {extras.interval_name}." if extras.cost_intervals else ""
        yield Plot(
            SWEEPS_HEADING,
            f"{plain(sweep.of)} over {plain(sweep.parameter)}: {_told(sweep, medians)}",
            path,
            f"Median costs including tuning of {plain(sweep.of)} by "
            f"{plain(sweep.parameter)}.{bars} Hollow markers in the upper margin: missed targets.",
        )


def _medians(sweep: Sweep, workload: str, scores: Scores) -> list[float]:
    found = (scores.median(name, workload, "including") for name in sweep.contenders.values())
    return [math.inf if math.isnan(cost) else cost for cost in found]


def _draw(
    sweep: Sweep,
    medians: Mapping[str, Sequence[float]],
    scores: Scores,
    extras: Extras,
    path: Path,
    budget: float | None,
) -> None:
    looks, marks = line_styles(scores.workloads), markers(scores.workloads)
    xs, count = list(sweep.contenders), len(medians)
    with figure_at(
        path, lines=count // 2 + 1, panels=(2, 1), height=3.6 + 0.16 * count, sharex=True,
        height_ratios=(0.4 + 0.16 * count, 3.0),
    ) as (figure, (missed, axis)):  # fmt: skip
        if min(xs) > 0 and max(xs) >= 10 * min(xs):
            axis.set_xscale("log")
        axis.set_yscale("log")
        ends = {key: extras.cost_intervals.get((*key, "including"), (math.inf, math.inf))
                for key in itertools.product(sweep.contenders.values(), medians)}  # fmt: skip
        drawn = [y for row in (*medians.values(), *ends.values()) for y in row if math.isfinite(y)]
        axis.set_ylim(min(drawn) / 1.2, max(drawn) * 1.2)
        missed.set_ylim(count - 0.4, -0.6)
        lines = []
        for row, (workload, costs) in enumerate(medians.items()):
            colour, shape = looks[workload]["color"], marks[workload]["marker"]
            line = {"lw": 2, "linestyle": looks[workload]["linestyle"], "color": colour}
            ys = [cost if math.isfinite(cost) else math.nan for cost in costs]
            lines += axis.plot(xs, ys, **line, marker=shape, markersize=6.5)
            points = zip(xs, costs, sweep.contenders.values(), strict=True)
            for x, cost, name in points:
                if math.isinf(cost):
                    missed.plot(x, row, shape, color=colour, ms=6.5, markerfacecolor="white")
                low, high = ends[name, workload]
                if math.isfinite(high):
                    axis.vlines(x, low, high, color=colour, **BAR)
                elif math.isfinite(low):
                    join_to_misses(axis, (x, low), missed, (x, row), color=colour, **BAR)
        hide_scale(missed)
        axis.set_xlabel(plain(sweep.parameter), **NO_MATH)
        axis.set_ylabel(f"{unit_name(scores.unit)} to the target")
        missed.set_ylabel(missed_label(budget).replace(" (", "\n("), fontsize=8.5, rotation=0,
                          ha="right", va="center")  # fmt: skip
        missed.set_title(plain(sweep.of), **NO_MATH)
        legend(figure, list(medians), lines, 2)


def _told(sweep: Sweep, medians: Mapping[str, Sequence[float]]) -> str:
    """Return the alt text."""
    told = []
    for workload, costs in medians.items():
        listed = ", ".join(
            f"{format_cost(cost) if math.isfinite(cost) else MISSED} at {value:g}"
            for value, cost in zip(sweep.contenders, costs, strict=True)
        )
        told.append(f"{plain(workload)} {listed}")
    return "; ".join(told)
