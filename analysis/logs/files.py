"""What the files of one trial hold: evaluation rows as columns of numbers, JSON documents.

    column   one of eval_measurements.csv, as float64, one entry per row; NaN where there is none
    fault    what is wrong with a file, under the name of a rule; a faulty cell counts as NaN

Nothing is evaluated or unpickled: cells are given to ``float``, documents to ``json``.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]

STEP, SECONDS, SCORE = "global_step", "accumulated_submission_time", "score"
EVAL_SECONDS, LOGGING_SECONDS = "accumulated_eval_time", "accumulated_logging_time"
WALL_SECONDS, PREEMPTIONS = "total_duration", "preemption_count"
CLOCKS = (SECONDS, EVAL_SECONDS, LOGGING_SECONDS, WALL_SECONDS)
NEEDED = (STEP, SECONDS, SCORE)
TEXT_COLUMNS = frozenset({"phase"})

MAX_EVALUATION_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 2**20
MAX_COLUMNS = 10_000


class Fault(NamedTuple):
    """Something wrong inside of a file."""

    rule: str
    what: str


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """The rows of an ``eval_measurements.csv``."""

    header: tuple[str, ...] = ()
    rows: int = 0
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)  # those asked for
    faults: tuple[Fault, ...] = ()

    @property
    def faulty(self) -> frozenset[str]:
        """Columns with cells that are no numbers."""
        numbers = (fault for fault in self.faults if fault.rule == "types-numbers")
        return frozenset(fault.what.partition(":")[0] for fault in numbers)

    def column(self, name: str) -> Column:
        """Return a column; NaN in every row where the file has none of that name."""
        found = self.columns.get(name)
        return np.full(self.rows, np.nan) if found is None else found


def read_evaluations(
    content: bytes, wanted: Callable[[str], bool] = lambda name: True
) -> Evaluations:
    """Read the columns that are wanted; of a name that comes twice, the first column.

    Costs about 25 ns a byte for all columns, a third of that for two.
    """
    text = content.decode("utf-8", errors="replace")
    # Lines of bare cells need no CSV reader; one that has quotes or a bare \r does.
    try:
        if '"' in text or "\r" in text or "\0" in text:
            lines = list(csv.reader(io.StringIO(text, newline="")))
        else:
            lines = [line.split(",") for line in text.split("\n") if line]
    except csv.Error as error:
        return Evaluations(faults=(Fault("types-csv", f"no CSV: {error}"),))
    lines = [line for line in lines if line]
    if not lines:
        return Evaluations()
    header, rows = tuple(lines[0]), lines[1:]
    if len(header) > MAX_COLUMNS:
        what = f"{len(header):,} columns, not read: the limit is {MAX_COLUMNS:,}"
        return Evaluations(faults=(Fault("files-size", what),))
    faults = list(_faults_of_shape(header, rows))
    columns: dict[str, Column] = {}
    for index, name in enumerate(header):
        if name not in columns and name not in TEXT_COLUMNS and wanted(name):
            columns[name] = _numbers(rows, index, name, faults)
    return Evaluations(header, len(rows), columns, tuple(faults))


def _faults_of_shape(header: tuple[str, ...], rows: list[list[str]]) -> list[Fault]:
    faults = []
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        faults.append(Fault("columns-repeated", f"columns that come twice: {repeated}"))
    width = len(header)
    ragged = [number for number, row in enumerate(rows, 1) if len(row) != width]
    if ragged:
        what = f"{len(ragged)} rows have not {width} cells, the first is row {ragged[0]}"
        faults.append(Fault("types-rows", what))
    return faults


def _numbers(rows: list[list[str]], index: int, name: str, faults: list[Fault]) -> Column:
    try:
        cells = [row[index] for row in rows]
        if "_" not in "".join(cells):  # float() takes 1_0 for 10
            return np.array(list(map(float, cells)), np.float64)
    except (ValueError, IndexError):
        pass
    values, wrong = np.full(len(rows), np.nan), []
    for number, row in enumerate(rows):
        cell = row[index].strip() if index < len(row) else ""
        try:
            values[number] = math.nan if not cell else float("x" if "_" in cell else cell)
        except ValueError:
            wrong.append((number + 1, cell))
    if wrong:
        number, cell = wrong[0]
        what = (
            f"{name}: {len(wrong)} cells are no numbers, the first is {cell[:40]!r}, row {number}"
        )
        faults.append(Fault("types-numbers", what))
    return values


def read_document(content: bytes) -> tuple[dict[str, Any] | None, str]:
    """Return a JSON object and ``""``; or ``None`` and what is wrong."""
    try:
        document = json.loads(content)
    except RecursionError:
        return None, "no JSON: nested too deep"
    except ValueError as error:
        return None, f"no JSON: {error}" if content else "empty"
    if not isinstance(document, dict):
        return None, f"no JSON object but {type(document).__name__}"
    return document, ""
