"""What the statistics add to a report: intervals in its tables, and a section on them."""

import dataclasses
import re
from pathlib import Path

from analysis.report.inference_tables import (
    ROWS_HEADER,
    comparisons_table,
    inference_rows,
    left_out_table,
    ranks_table,
)
from analysis.report.pages import csv_text
from analysis.report.sections import Additions, Section
from analysis.report.tables import Shown, Table
from analysis.scoring.scores import VIEWS, Scores
from analysis.statistics.inference import Inference, infer
from analysis.statistics.samples import samples_of
from analysis.text import plain

HEADING = "How sure the scores are"
_ONE_STUDY = "One study says nothing of chance: intervals and comparisons need two studies or more."
_NUMBER = re.compile(r"-?[\d,]*\.?\d+(?:e[-+]?\d+)?(?=$|[ (-])")


def infer_both(scores: Scores) -> list[Inference]:
    """Return the statistics of both views, including tuning first; none with one study only."""
    if scores.studies < 2:
        return []
    return [infer(samples_of(scores, view), scores.unit, view) for view in VIEWS]


def additions_of(found: list[Inference], out: Path) -> Additions:
    """Return intervals for scores and costs, and the section on them.

    Args:
        found: See :func:`infer_both`.
        out: Where the plots go.
    """
    if not found:
        return Additions(sections=(Section(HEADING, (_ONE_STUDY,)),))
    areas, costs = {}, {}
    for one in found:
        for s, name in enumerate(one.samples.contenders):
            areas[name, one.view] = float(one.scores.low[s]), float(one.scores.high[s])
            for w, workload in enumerate(one.samples.workloads):
                ends = float(one.costs.low[s, w]), float(one.costs.high[s, w])
                costs[name, workload, one.view] = ends
    first = found[0]
    return Additions(
        score_intervals=areas,
        cost_intervals=costs,
        interval_name=(
            f"{100 * first.confidence:g} %, paired bootstrap over studies, {first.resamples:,} "
            f"resamples, seed {first.seed}"
        ),
        sections=(_section(found, out),),
    )


def statistics_csv(found: list[Inference]) -> str:
    """Return every number of the statistics, one line each, to the last digit."""
    rows = [(one.view, *row) for one in found for row in inference_rows(one)]
    return csv_text(("view", *ROWS_HEADER), rows)


def with_numbers(table: Table) -> Table:
    """Return a table whose cells that begin with a number are sorted by it; ∞ comes last.

    Examples:
        >>> table = with_numbers(Table("", ("name", "cost"), (("a", "1,200 (900 to ∞)"),)))
        >>> table.rows[0][1].sort
        1200.0
    """
    kept = []
    for index, column in enumerate(zip(*table.rows, strict=True)):
        found = [_NUMBER.match(cell) for cell in column]
        others = {cell[:1] for cell, number in zip(column, found, strict=True) if not number}
        if index and any(found) and others <= {"", "∞", "("}:
            column = tuple(
                Shown(cell, float(number.group().replace(",", "")) if number else None)
                for number, cell in zip(found, column, strict=True)
            )
        kept.append(column)
    return dataclasses.replace(table, rows=tuple(zip(*kept, strict=True)))


def _section(found: list[Inference], out: Path) -> Section:
    """Return plots of both views; the tables are of costs including tuning."""
    from analysis.report.plots.statistics import plot_inference

    first = found[0]
    plots = [
        dataclasses.replace(plot, text=f"{plot.text}: {_told(one, plot.path.stem)}")
        for one in found
        for plot in plot_inference(one, out)
    ]
    tables = []
    if first.comparisons:
        tables.append(dataclasses.replace(comparisons_table(first), name="comparisons"))
    tables.append(_by_workload(ranks_table(first), first, "ranks"))
    if first.left_out is not None:
        tables.append(dataclasses.replace(left_out_table(first), name="left_out"))
    text = (
        "Tables: costs including tuning; both views are in statistics.csv.",
        *dict.fromkeys(warning for one in found for warning in one.warnings),
    )
    return Section(HEADING, tuple(map(plain, text)), tuple(plots), tuple(map(with_numbers, tables)))


def _by_workload(table: Table, found: Inference, name: str) -> Table:
    """Return a table whose last columns are about the workloads."""
    workloads = found.samples.workloads
    first = len(table.header) - len(workloads)
    columns = {first + index: workload for index, workload in enumerate(workloads)}
    return dataclasses.replace(table, name=name, columns=columns)


def _told(found: Inference, stem: str) -> str:
    """Say what a plot shows to who cannot see it."""
    names = found.samples.contenders
    if stem.startswith("ranks"):
        mean = found.ranking.mean
        listed = (f"{plain(names[s])} {mean[s]:.2f}" for s in found.order)
        return f"{', '.join(listed)}; critical difference {found.ranking.critical_difference:.2f}"
    low, value, high = found.scores.low, found.scores.value, found.scores.high
    return ", ".join(
        f"{plain(names[s])} {value[s]:.3f} ({low[s]:.3f} to {high[s]:.3f})" for s in found.order
    )
