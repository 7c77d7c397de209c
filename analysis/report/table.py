"""The one table type: rows of raw values, and how each column shows, sorts and exports them.

Sort keys, CSV and JSON are the values; text, Markdown, LaTeX and HTML show them by the format of
their column. A cost that is infinite is a target that was not reached: ``missed``, in every format.
``None`` and NaN are values that are not defined or do not apply: an empty cell, null in JSON.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from analysis.text import plain

MISSED = "missed"
_DEVELOPED = "‡"
DEVELOPED_NOTE = f"{_DEVELOPED} The submission was designed with this workload."

Facets = Mapping[str, Sequence[str]]  # what rows can be filtered by: workload, hardware, ruleset


class Share(NamedTuple):
    """A count of a total."""

    count: int
    of: int


class Interval(NamedTuple):
    """An interval; an end that is infinite reaches a miss."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A value with its interval; the value is NaN where it is not defined."""

    value: float
    low: float
    high: float


class MedianCosts(NamedTuple):
    """A contender's median costs on a workload."""

    given_tuned: float
    including_tuning: float | None  # None: the rules know no such cost
    reached: int
    studies: int
    developed: bool = False
    time_factor: float | None = None


@dataclasses.dataclass(frozen=True)
class CellFormat:
    """How the values of a column are shown, exported and sorted.

    Attributes:
        show: Return the text of a value that is neither missed nor undefined.
        fields: Return the raw fields of a value by the ending of their names.
        sort: Return the number or text that rows are sorted by; ``None`` sorts last.
        is_text: Whether the column is text, which stands on the left.
    """

    show: Callable[[Any], str]
    fields: Callable[[Any], Mapping[str, Any]] = lambda value: {"": value}
    sort: Callable[[Any], float | str | None] = lambda value: value
    is_text: bool = False

    def text(self, value: Any) -> str:
        """Return a value as people read it."""
        if is_undefined(value):
            return ""
        return MISSED if is_missed(value) else self.show(value)

    def key(self, value: Any) -> float | str | None:
        """Return the sort key of a value; ``None`` for a missed or undefined one, which is last."""
        if is_undefined(value) or is_missed(value):
            return None
        key = self.sort(value)
        return None if is_undefined(key) or is_missed(key) else key


def is_undefined(value: Any) -> bool:
    """Return whether a value is not defined or does not apply."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_missed(value: Any) -> bool:
    """Return whether a value is the cost of a target that was not reached."""
    return isinstance(value, float) and math.isinf(value)


def number_format(spec: str) -> CellFormat:
    """Return the format of numbers with a format specification."""
    return CellFormat(lambda value: f"{value:{spec}}")


def format_cost(value: float) -> str:
    """Return a cost as people read it.

    Examples:
        >>> format_cost(12345.6), format_cost(0.12345), format_cost(float("inf"))
        ('12,346', '0.123', 'missed')
    """
    if math.isinf(value):
        return MISSED
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


TEXT = CellFormat(plain, is_text=True)
COUNT = number_format(",")
COST = CellFormat(format_cost)
SCORE = number_format(".3f")
YES = CellFormat(lambda value: "yes" if value else "no", is_text=True)
P_VALUE = CellFormat(lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}")
SHARE = CellFormat(
    lambda share: f"{share.count}/{share.of}",
    lambda share: {"": share.count, "of": share.of},
    lambda share: share.count / share.of if share.of else None,
)


def interval_format(ends: CellFormat) -> CellFormat:
    """Return the format of an :class:`Interval` whose ends have a format."""

    def show(value: Interval) -> str:
        if all(map(is_undefined, value)):
            return ""
        return f"{ends.text(value.low)} to {ends.text(value.high)}"

    return CellFormat(
        show,
        lambda value: {"low": value.low, "high": value.high},
        lambda value: value.low,
    )


def estimate_format(inner: CellFormat) -> CellFormat:
    """Return the format of an :class:`Estimate` whose numbers have a format."""

    def show(value: Estimate) -> str:
        if is_missed(value.low) or all(map(is_undefined, value)):
            return inner.text(value.low)
        ends = f"({inner.text(value.low)} to {inner.text(value.high)})"
        return ends if is_undefined(value.value) else f"{inner.text(value.value)} {ends}"

    return CellFormat(
        show,
        lambda value: {"": value.value, "low": value.low, "high": value.high},
        lambda value: value.value,
    )


def _show_costs(costs: MedianCosts) -> str:
    parts = [COST.text(costs.given_tuned)]
    if costs.including_tuning is not None:
        parts.append(COST.text(costs.including_tuning))
    text = MISSED if set(parts) == {MISSED} else " / ".join(parts)
    mark = f" {_DEVELOPED}" if costs.developed else ""
    return f"{text} ({costs.reached}/{costs.studies}){mark}"


MEDIAN_COSTS = CellFormat(
    _show_costs,
    lambda costs: {k: v for k, v in costs._asdict().items() if k != "developed" and v is not None},
    lambda costs: costs.given_tuned if costs.including_tuning is None else costs.including_tuning,
)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its header.
        format: How its values are shown.
        key: The name of its field in CSV and JSON; by default its header in snake case.
        workload: The workload that it is about; empty: none.
    """

    name: str
    format: CellFormat = TEXT
    key: str = ""
    workload: str = ""

    @property
    def field(self) -> str:
        """The name of its field."""
        return self.key or self.name.replace(",", "").replace(" ", "_")

    def fields(self, value: Any) -> Mapping[str, Any]:
        """Return the raw fields of a value by the ending of their names; none if undefined."""
        if is_undefined(value):
            return {}
        return {"": value} if is_missed(value) else self.format.fields(value)


@dataclasses.dataclass(frozen=True)
class Table:
    """A caption, columns, and rows of raw values.

    Attributes:
        name: Of its CSV file and its place in a page; empty: it has none of its own.
        workload: The workload that it is about; empty: all of them.
        facets: Of each row; or empty.
        keys: The number of leading columns that identify a row.
        notes: The paragraphs below it.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    name: str = ""
    workload: str = ""
    facets: tuple[Facets, ...] = ()
    keys: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that rows have a value for each column."""
        assert all(len(row) == len(self.columns) for row in self.rows), self.caption

    @property
    def header(self) -> tuple[str, ...]:
        """The columns' names, as text."""
        return tuple(plain(column.name) for column in self.columns)

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The rows as people read them."""
        formats = [column.format for column in self.columns]
        return [
            tuple(f.text(value) for f, value in zip(formats, row, strict=True)) for row in self.rows
        ]

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields of CSV and JSON, in their order."""
        return tuple(name for names in self._names() for name in names.values())

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as raw values by field."""
        names = self._names()
        empty = dict.fromkeys(name for group in names for name in group.values())
        return [
            empty
            | {
                group[end]: part
                for column, group, value in zip(self.columns, names, row, strict=True)
                for end, part in column.fields(value).items()
            }
            for row in self.rows
        ]

    def _names(self) -> list[dict[str, str]]:
        """Return each column's fields by their ending; equal names get a number."""
        taken: set[str] = set()
        found = []
        for index, column in enumerate(self.columns):
            endings = [end for row in self.rows for end in column.fields(row[index])]
            group = {}
            for end in dict.fromkeys(endings or [""]):
                name = "_".join(filter(None, (column.field, end)))
                numbered = (f"{name}_{n}" if n > 1 else name for n in itertools.count(1))
                group[end] = next(one for one in numbered if one not in taken)
                taken.add(group[end])
            found.append(group)
        return found

    def with_notes(self, *notes: str) -> "Table":
        """Return the table with further notes in front."""
        return dataclasses.replace(self, notes=(*notes, *self.notes))

    def with_columns(self, places: Sequence[int]) -> "Table":
        """Return the table with some of its columns."""
        columns = tuple(self.columns[place] for place in places)
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return dataclasses.replace(self, columns=columns, rows=rows)
