"""The table type: rows of raw values, and formats that show, sort and export each column.

Sort keys, CSV and JSON use the raw values; text, Markdown, LaTeX and HTML use the format of the
column. An infinite cost is a target that was not reached; every format shows ``missed``. ``None``
and NaN are undefined values: an empty cell, null in JSON.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from analysis.wording import MISSED, plain

_DEVELOPED = "‡"
DEVELOPED_NOTE = f"{_DEVELOPED} The submission was designed with this workload."

Facets = Mapping[str, Sequence[str]]  # filter values of a row: workload, hardware, ruleset


class Share(NamedTuple):
    """A count of a total."""

    count: int
    of: int


class Interval(NamedTuple):
    """An interval; an infinite end means that it includes misses."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A value with its interval; an undefined value is NaN."""

    value: float
    low: float
    high: float


class ScoreEstimate(NamedTuple):
    """A score with its interval, and its share from each workload, whose mean it is."""

    value: float
    low: float
    high: float
    shares: Mapping[str, float]


class OverviewCost(NamedTuple):
    """A contender's median cost on a workload, for a narrow column."""

    cost: float
    reached: int
    studies: int
    developed: bool


class Bounded(NamedTuple):
    """A value that may be a bound, with its interval; an undefined value is NaN."""

    bound: str  # ">=", "<=", "~", or empty
    value: float
    low: float
    high: float


class MedianCosts(NamedTuple):
    """A contender's median costs on a workload."""

    given_tuned: float
    including_tuning: float | None  # None: the rules have no such cost
    reached: int
    studies: int
    developed: bool = False
    time_factor: float | None = None


@dataclasses.dataclass(frozen=True)
class CellFormat:
    """The functions that show, export and sort the values of a column.

    Attributes:
        show: Returns the text of a value that is neither missed nor undefined.
        fields: Returns the raw fields of a value by the suffix of their names.
        sort: Returns the sort key, a number or a text; ``None`` sorts last.
        is_text: Whether the column is text, which is aligned to the left.
    """

    show: Callable[[Any], str]
    fields: Callable[[Any], Mapping[str, Any]] = lambda value: {"": value}
    sort: Callable[[Any], float | str | None] = lambda value: value
    is_text: bool = False

    def text(self, value: Any) -> str:
        """Return a value as readable text."""
        if is_undefined(value):
            return ""
        return MISSED if is_missed(value) else self.show(value)

    def key(self, value: Any) -> float | str | None:
        """Return the sort key of a value, or ``None``, which sorts last, if it has no number."""
        if is_undefined(value) or is_missed(value):
            return None
        key = self.sort(value)
        return None if is_undefined(key) or is_missed(key) else key


def is_undefined(value: Any) -> bool:
    """Return whether a value is undefined or does not apply."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_missed(value: Any) -> bool:
    """Return whether a value is the cost of a target that was not reached."""
    return isinstance(value, float) and math.isinf(value)


def number_format(spec: str) -> CellFormat:
    """Return a format for numbers from a format specification."""
    return CellFormat(lambda value: f"{value:{spec}}")


def format_cost(value: float) -> str:
    """Return a cost as readable text.

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
    """Return the format of an :class:`Interval` from the format of its ends."""

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
    """Return the format of an :class:`Estimate` from the format of its numbers."""

    def show(value: Estimate) -> str:
        if is_missed(value.low) or all(map(is_undefined, value[:3])):
            return inner.text(value.low)
        ends = f"({inner.text(value.low)} to {inner.text(value.high)})"
        return ends if is_undefined(value.value) else f"{inner.text(value.value)} {ends}"

    return CellFormat(
        show,
        lambda value: {"": value.value, "low": value.low, "high": value.high},
        lambda value: value.value,
    )


def _show_bounded(found: Bounded) -> str:
    if is_undefined(found.value):
        return ""
    interval = interval_text(found.low, found.high, ".2f")
    return _show_bound(found) + (f" ({interval})" if interval else "")


def _show_bound(found: Bounded) -> str:
    return "" if is_undefined(found.value) else f"{found.bound} {found.value:.2f}".lstrip()


def interval_text(low: float, high: float, spec: str) -> str:
    """Return an interval as text; an end that is NaN has no limit.

    Examples:
        >>> interval_text(2, 3, ".1f"), interval_text(2, math.nan, ".1f")
        ('2.0 to 3.0', '2.0 or more')
    """
    if is_undefined(low):
        return "" if is_undefined(high) else f"{high:{spec}} or less"
    return f"{low:{spec}} or more" if is_undefined(high) else f"{low:{spec}} to {high:{spec}}"


BOUNDED = CellFormat(
    _show_bounded,
    lambda found: {"": found.value, "bound": found.bound, "low": found.low, "high": found.high},
    lambda found: found.value,
)
BARE_BOUND = dataclasses.replace(BOUNDED, show=_show_bound)  # without the interval


def _show_costs(costs: MedianCosts) -> str:
    parts = [COST.text(costs.given_tuned)]
    if costs.including_tuning is not None:
        parts.append(COST.text(costs.including_tuning))
    text = MISSED if set(parts) == {MISSED} else " / ".join(parts)
    factor = "" if costs.time_factor is None else f" x{costs.time_factor:.2f}"
    mark = f" {_DEVELOPED}" if costs.developed else ""
    return f"{text}{factor} ({costs.reached}/{costs.studies}){mark}"


def _show_overview(found: OverviewCost) -> str:
    mark = _DEVELOPED if found.developed else ""
    if is_missed(found.cost):
        return f"{found.reached}/{found.studies}{mark}"
    cost = found.cost
    return (format_cost(cost) if cost < 99_950 else f"{cost / 1000:,.0f}k") + mark


OVERVIEW_COST = CellFormat(
    _show_overview,
    lambda found: {"": found.cost, "reached": found.reached, "studies": found.studies},
    lambda found: found.cost,
)
MEDIAN_COSTS = CellFormat(
    _show_costs,
    lambda costs: {k: v for k, v in costs._asdict().items() if k != "developed" and v is not None},
    lambda costs: costs.given_tuned if costs.including_tuning is None else costs.including_tuning,
)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: The header.
        format: The format of the values.
        key: The name of the field in CSV and JSON; by default the header in snake case.
        workload: The workload that the column is about; empty if none.
        turned: Whether a page turns the header, because the column is narrower than it.
    """

    name: str
    format: CellFormat = TEXT
    key: str = ""
    workload: str = ""
    turned: bool = False

    @property
    def field(self) -> str:
        """The name of its field."""
        return self.key or self.name.replace(",", "").replace(" ", "_")

    def fields(self, value: Any) -> Mapping[str, Any]:
        """Return the raw fields of a value by the suffix of their names; none if undefined."""
        if is_undefined(value):
            return {}
        return {"": value} if is_missed(value) else self.format.fields(value)


@dataclasses.dataclass(frozen=True)
class Table:
    """A caption, columns, and rows of raw values.

    Attributes:
        name: The name of the CSV file and of the anchor in a page; empty for neither.
        workload: The workload that the table is about; empty for all of them.
        facets: The filter values of each row; empty if rows cannot be filtered.
        keys: The number of leading columns that identify a row.
        notes: The paragraphs below the table.
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
    def contenders(self) -> tuple[str, ...]:
        """The contender that each row is about; nothing if rows are not about contenders."""
        names = [column.name for column in self.columns]
        if "contender" not in names:
            return ()
        place = names.index("contender")
        return tuple(row[place] for row in self.rows)

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The rows as readable text."""
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
        """Return each column's field names by suffix; repeated names get a number."""
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
        """Return the table with further notes before its own."""
        return dataclasses.replace(self, notes=(*notes, *self.notes))

    def without_empty_columns(self) -> "Table":
        """Return the table without columns of text in which no row has any."""
        kept = [
            place
            for place, column in enumerate(self.columns)
            if not column.format.is_text or any(row[place] not in ("", None) for row in self.rows)
        ]
        return self.with_columns(kept) if self.rows else self

    def with_columns(self, places: Sequence[int]) -> "Table":
        """Return the table with some of its columns."""
        columns = tuple(self.columns[place] for place in places)
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return dataclasses.replace(self, columns=columns, rows=rows)
