"""The content of a trial's files: evaluation rows as columns of numbers, and JSON documents.

    column   of eval_measurements.csv, float64, one entry per row; NaN where a cell has no number
    fault    a problem in a file, with the id of the rule that it breaks

Truncated rows are ignored: all of their entries are NaN, and a last line without a newline is left
out. Nothing is evaluated or unpickled: cells go to ``float``, documents to a JSON parser.
"""

import contextlib
import csv
import dataclasses
import io
import math
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from metaopt.bench.measure.targets import Target

ColumnValues = NDArray[np.float64]

STEP, SECONDS, SCORE = "global_step", "accumulated_submission_time", "score"
EVAL_SECONDS, LOGGING_SECONDS = "accumulated_eval_time", "accumulated_logging_time"
WALL_SECONDS, PREEMPTIONS = "total_duration", "preemption_count"
CLOCKS = (SECONDS, EVAL_SECONDS, LOGGING_SECONDS, WALL_SECONDS)
NEEDED = (STEP, SECONDS, SCORE)
TEXT_COLUMNS = frozenset({"phase"})
_LOAD = frozenset({"gpu.", "cpu.", "mem.", "net."})
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_EVALUATION_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 2**20
MAX_COLUMNS = 10_000


class Fault(NamedTuple):
    """A problem in a file."""

    rule: str
    what: str


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """The rows of an ``eval_measurements.csv``."""

    header: tuple[str, ...] = ()
    rows: int = 0
    columns: Mapping[str, ColumnValues] = dataclasses.field(default_factory=dict)  # those asked for
    texts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @property
    def faulty(self) -> frozenset[str]:
        """The columns with cells that are not numbers."""
        numbers = (fault for fault in self.faults if fault.rule == "types-numbers")
        return frozenset(fault.what.partition(":")[0] for fault in numbers)

    @property
    def whole(self) -> NDArray[np.bool_]:
        """A mask of the rows that were not truncated, (rows,)."""
        if not self.rows or all(fault.rule != "types-rows" for fault in self.faults):
            return np.ones(self.rows, bool)
        cut = [np.isnan(values) for values in self.columns.values()]
        return ~np.logical_and.reduce(np.array(cut, bool).reshape(-1, self.rows), axis=0)

    def column(self, name: str) -> ColumnValues:
        """Return a column; NaN in every row if the file has none of that name."""
        found = self.columns.get(name)
        return np.full(self.rows, np.nan) if found is None else found

    def text(self, name: str) -> tuple[str, ...]:
        """Return a column of text; empty in every row if the file has none of that name."""
        return self.texts.get(name, ("",) * self.rows)


def read_evaluations(
    content: bytes, wanted: Callable[[str], bool] = lambda name: True
) -> Evaluations:
    """Read the wanted columns; if a name is repeated, its first column.

    Reading takes about 25 ns per byte for all columns, a third of that for two.
    """
    text = content.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", errors="replace")
    faults: list[Fault] = []
    if text and not text.endswith(("\n", "\r")):
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
        what = "the last line has no newline: it was cut and does not count"
        faults.append(Fault("types-rows", what))
    # Only quotes and a bare \r need a CSV reader.
    try:
        if '"' in text or "\r" in text or "\0" in text:
            lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
        else:
            lines = [line.split(",") for line in text.split("\n") if line]
    except csv.Error as error:
        return Evaluations(faults=(Fault("types-csv", f"no CSV: {error}"),))
    if not lines:
        return Evaluations(faults=tuple(faults))
    header, rows = tuple(map(sys.intern, lines[0])), lines[1:]
    if len(header) > MAX_COLUMNS:
        what = f"{len(header):,} columns, not read: the limit is {MAX_COLUMNS:,}"
        return Evaluations(faults=(Fault("files-size", what),))
    if len(set(header)) < len(header):
        repeated = sorted({name for name in header if header.count(name) > 1})
        faults.append(Fault("columns-repeated", f"columns that come twice: {repeated}"))
    if rows and set(map(len, rows)) != {len(header)}:
        broken = [number for number, row in enumerate(rows) if len(row) != len(header)]
        what = f"not {len(header)} cells, which do not count: {len(broken)} rows, first row "
        faults.append(Fault("types-rows", f"{what}{broken[0] + 1}"))
        for number in broken:
            rows[number] = [""] * len(header)
    columns: dict[str, ColumnValues] = {}
    texts: dict[str, tuple[str, ...]] = {}
    is_plain = "_" not in text[text.find("\n") :]  # float() reads 1_0 as 10
    for index, name in enumerate(header):
        if name in columns or name in texts or not wanted(name):
            continue
        if name in TEXT_COLUMNS:
            texts[name] = tuple(row[index] for row in rows)
        else:
            columns[name] = _numbers(rows, index, name, is_plain, faults)
    return Evaluations(header, len(rows), columns, texts, tuple(faults))


def _numbers(
    rows: list[list[str]], index: int, name: str, is_plain: bool, faults: list[Fault]
) -> ColumnValues:
    if is_plain:
        with contextlib.suppress(ValueError):
            cells = map(operator.itemgetter(index), rows)
            return np.fromiter(map(float, cells), np.float64, len(rows))
    values, wrong = np.full(len(rows), np.nan), []
    for number, row in enumerate(rows):
        cell = row[index].strip()
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
    """Return a JSON object and ``""``, or ``None`` and the fault.

    The hundred keys of AlgoPerf's meta data about the machine's load are left out.
    """
    try:
        # Thousands of documents share keys and strings; each string is stored once.
        document = from_json(content.removeprefix(_BYTE_ORDER_MARK), cache_strings="all")
    except ValueError as error:
        return None, f"no JSON: {error}" if content else "empty"
    if not isinstance(document, dict):
        return None, f"no JSON object but {type(document).__name__}"
    return {key: value for key, value in document.items() if key[:4] not in _LOAD}, ""


def first_hit(values: ColumnValues, target: Target) -> int | None:
    """Return the first row that meets ``target``; NaN never does."""
    met = np.asarray(target.is_met(values))  # type: ignore[arg-type]  # compares an array as well
    return int(np.argmax(met)) if met.any() else None
