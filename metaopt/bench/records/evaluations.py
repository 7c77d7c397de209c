"""The evaluation rows of a trial: reading, writing, and where a target is first met."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaopt.bench.measure.targets import Target
from metaopt.bench.records.atomic_files import write_text
from metaopt.bench.records.trials import Cost, Reached


def write_evaluations(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write evaluation rows as CSV, columns sorted as AlgoPerf sorts them, NaN left as ``nan``."""
    columns = sorted({name for row in rows for name in row})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="nan", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """Read the rows that :func:`write_evaluations` wrote; numbers become floats (steps: ints)."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)
        ]


def _number(text: str | None) -> Any:
    if text is None:  # a line that was cut short
        return math.nan
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def find_reached(rows: Iterable[Mapping[str, Any]], target: Target) -> Reached | None:
    """Return where ``target`` is first met in evaluation rows, or ``None``.

    The cost since the restart of the episode is the row's cost less that at the first step of the
    episode, which the runner writes into the columns ``episode_start_*``; its seconds are those
    without compilation.
    """
    for index, row in enumerate(rows):
        if target.is_met(metric_of(row, target.metric)):
            cost = row_cost(row)
            start = Cost(
                steps=int(row.get("episode_start_steps", 0)),
                gradient_evaluations=row.get("episode_start_gradient_evaluations", 0.0),
                seconds=row.get("episode_start_seconds", 0.0),
            )
            compilation = row.get("compilation_seconds", 0.0)
            compilation -= row.get("episode_start_compilation_seconds", 0.0)
            given = cost - start - Cost(seconds=compilation)
            return Reached(evaluation=index, cost=cost, episode_cost=given)
    return None


def best_value(rows: Iterable[Mapping[str, Any]], target: Target) -> float | None:
    """Return the best finite value of the target's metric; ``None`` without any."""
    best: float | None = None
    for row in rows:
        value = metric_of(row, target.metric)
        if target.is_improvement(value, best):
            best = value
    return best


def metric_of(row: Mapping[str, Any], name: str) -> float:
    """Return a metric of an evaluation row; NaN if it is missing or not a number."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def row_cost(row: Mapping[str, Any]) -> Cost:
    """Return the trial's cost at an evaluation row."""
    return Cost(
        steps=int(row["global_step"]),
        gradient_evaluations=row["gradient_evaluations"],
        seconds=row["accumulated_submission_time"],
    )
