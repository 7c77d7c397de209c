"""The evaluation rows of a running trial, appended to their file as they come.

A run on a fixed batch is evaluated at every step. Writing all rows again at every checkpoint would
cost more and more as it goes on.
"""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.contract.return_values import ContractError


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return a workload's metrics as Python's numbers, whatever kind of number they are.

    Raises:
        ContractError: A metric is not a number; names it.
    """
    return {name: _as_number(name, value) for name, value in metrics.items()}


def _as_number(name: str, value: Any) -> float:
    if type(value) in (int, float):
        return value
    try:
        if isinstance(value, str | bytes):  # float() would read them
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ContractError(f"The metric {name!r} must be a number, got {value!r}.") from None


class EvaluationLog:
    """Rows in memory and on disk; rows that :meth:`flush` has written survive a kill at any byte.

    Args:
        path: The CSV file; an existing one is overwritten, unless :meth:`restore` reads it first.
    """

    def __init__(self, path: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self._path = path
        self._columns: set[str] = set()
        self._written = 0

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self.rows.append(row)

    def flush(self) -> None:
        """Write the rows that are not in the file yet."""
        new = self.rows[self._written :]
        if not self._written or any(row.keys() != self._columns for row in new):
            records.write_evaluations(self._path, self.rows)
            self._columns = {name for row in self.rows for name in row}
        elif new:
            buffer = io.StringIO()
            csv.DictWriter(buffer, sorted(self._columns), lineterminator="\n").writerows(new)
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(buffer.getvalue())
                file.flush()
                os.fsync(file.fileno())
        self._written = len(self.rows)

    def restore(self, count: int) -> None:
        """Read the first ``count`` rows back, and drop the rows after them.

        Raises:
            ValueError: The file is not there or has fewer.
        """
        rows = records.read_evaluations(self._path) if self._path.exists() else []
        if len(rows) < count:
            raise ValueError(f"{self._path} has {len(rows)} rows, a checkpoint counts {count}.")
        self.rows, self._written = rows[:count], 0
        if count:
            self.flush()
