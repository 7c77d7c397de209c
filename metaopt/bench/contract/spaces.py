"""Search spaces from AlgoPerf's JSON, in both forms.

    dictionary   {"lr": {"min": 1e-4, "max": 1e-1, "scaling": "log"},
                  "b": {"feasible_points": [0.9, 0.99]}}
    list         whole points with equal keys: [{"lr": 0.1, "b": 0.9}, {"lr": 0.2, "b": 0.99}]

:func:`find_problems` finds everything that is wrong with a space: tuners refuse a space for its
first problem, and the rules report all problems.
"""

import dataclasses
import json
import keyword
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

Value = float | int | str | bool
Point = dict[str, Value]  # hyperparameters by name

LARGEST = 3.4028235e38  # the largest 32-bit float: JAX turns larger numbers into infinity


@dataclasses.dataclass(frozen=True)
class Range:
    """A real parameter in ``[low, high]``."""

    low: float
    high: float
    log: bool

    def at(self, share: float) -> float:
        """Return the value at ``share`` of the way, in [0, 1), on the scale of the parameter."""
        if self.log:
            return self.low * math.exp(share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)


@dataclasses.dataclass(frozen=True)
class Choices:
    """A parameter with finitely many values."""

    points: tuple[Value, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether the values have an order."""
        return all(map(_is_number, self.points))

    def at(self, share: float) -> Value:
        """Return the value at ``share`` of the list, in [0, 1)."""
        return self.points[int(share * len(self.points))]


@dataclasses.dataclass(frozen=True)
class Space:
    """A product of parameters."""

    parameters: dict[str, Range | Choices]

    def at(self, shares: Sequence[float]) -> Point:
        """Return the point at a position in the unit cube, one share in [0, 1) per parameter."""
        return {
            name: part.at(share)
            for (name, part), share in zip(self.parameters.items(), shares, strict=True)
        }

    def middle(self) -> Point:
        """Return the point in the middle of every parameter."""
        return self.at([0.5] * len(self.parameters))

    def grid(self) -> Iterator[Point]:
        """Yield every point, the last parameter varying fastest.

        Raises:
            ValueError: A parameter is a range.
        """
        ranges = [name for name, part in self.parameters.items() if isinstance(part, Range)]
        if ranges:
            raise ValueError(
                f"A grid needs `feasible_points` for every parameter, but {ranges} are ranges. "
                "Try a space of points, as in `adamw@paper+grid`."
            )
        values = (part.points for part in self.parameters.values() if isinstance(part, Choices))
        for combination in product(*values):
            yield dict(zip(self.parameters, combination, strict=True))


@dataclasses.dataclass(frozen=True)
class PointList:
    """A list of whole points."""

    points: tuple[Point, ...]

    def middle(self) -> Point:
        """Return the point in the middle of the list."""
        return dict(self.points[len(self.points) // 2])

    def grid(self) -> Iterator[Point]:
        """Yield the points in their order."""
        yield from map(dict, self.points)


SearchSpace = Space | PointList


class DuplicateNameError(ValueError):
    """A JSON object names an entry twice. A parser would silently keep the last one."""


class SpaceProblem(NamedTuple):
    """One mistake in a search space."""

    kind: Literal["form", "names", "points", "range", "scalar"]
    message: str  # names the entry, the rule and the value


def read_space(text: str) -> Any:
    """Return a search space as JSON data.

    Raises:
        ValueError: The text is not JSON, or an object names an entry twice
            (:class:`DuplicateNameError`).
    """
    return json.loads(text, object_pairs_hook=_without_duplicates)


def parse_space(document: Any, source: str) -> SearchSpace:
    """Check a search space and return it with a type.

    Args:
        document: The content of the JSON file.
        source: Its origin, for messages.

    Raises:
        ValueError: Names the entry, the rule and the value.
    """
    for problem in find_problems(document):
        raise ValueError(f"{source}: {problem.message}")
    if isinstance(document, list):
        return PointList(tuple(document))
    return Space({name: _parse_entry(entry) for name, entry in document.items()})


def find_problems(document: Any) -> Iterator[SpaceProblem]:
    """Yield everything that is wrong with a search space."""
    if isinstance(document, list):
        yield from _problems_of_list(document)
    elif not isinstance(document, dict) or not document:
        yield SpaceProblem(
            "form", f"a search space is a dictionary or a list, with an entry; got {document!r}."
        )
    else:
        for name, entry in document.items():
            yield from _problems_of_name(name)
            yield from _problems_of_entry(name, entry)


def _problems_of_list(points: list[Any]) -> Iterator[SpaceProblem]:
    if not points or not all(isinstance(point, dict) and point for point in points):
        yield SpaceProblem("form", "a list of points needs dictionaries, at least one.")
        return
    for index, point in enumerate(points):
        if point.keys() != points[0].keys():
            yield SpaceProblem(
                "points",
                f"point {index} has the keys {sorted(point)}, the first has {sorted(points[0])}.",
            )
    for name in points[0]:
        yield from _problems_of_name(name)
        yield from _problems_of_values(name, [point[name] for point in points if name in point])


def _problems_of_entry(name: str, entry: Any) -> Iterator[SpaceProblem]:
    if not isinstance(entry, dict):
        yield SpaceProblem("form", f"{name!r} must be a dictionary, got {entry!r}.")
    elif "feasible_points" in entry:
        points = entry["feasible_points"]
        if not isinstance(points, list):
            yield SpaceProblem("scalar", f"{name!r} needs a list of `feasible_points`: {entry}")
        elif not points or set(entry) != {"feasible_points"}:
            kind = "range" if not points else "form"
            yield SpaceProblem(
                kind,
                f"{name!r} needs a list of `feasible_points`, not empty, and nothing else: {entry}",
            )
        else:
            yield from _problems_of_values(name, points)
    elif set(entry) != {"min", "max", "scaling"} or entry["scaling"] not in ("log", "linear"):
        yield SpaceProblem(
            "form",
            f"{name!r} needs `min`, `max` and `scaling` ('log' or 'linear'), or "
            f"`feasible_points`; got {entry}.",
        )
    else:
        yield from _problems_of_range(name, entry["min"], entry["max"], entry["scaling"] == "log")


def _problems_of_range(name: str, low: Any, high: Any, log: bool) -> Iterator[SpaceProblem]:
    if not (_is_number(low) and _is_number(high) and low < high):
        yield SpaceProblem(
            "range", f"{name!r} needs numbers with `min` below `max`, got {low!r} and {high!r}."
        )
    elif log and low <= 0:
        yield SpaceProblem(
            "range", f"{name!r} has a log scale, so `min` must be above 0, got {low!r}."
        )


def _problems_of_name(name: Any) -> Iterator[SpaceProblem]:
    usable = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    if not usable or keyword.iskeyword(name):
        yield SpaceProblem("names", f"hyperparameter names are Python identifiers, got {name!r}.")


def _problems_of_values(name: str, values: list[Any]) -> Iterator[SpaceProblem]:
    for value in values:
        if not _is_value(value):
            yield SpaceProblem("form", f"{name!r}: {_VALUES}, got {value!r}.")


def _parse_entry(entry: dict[str, Any]) -> Range | Choices:
    if "feasible_points" in entry:
        return Choices(tuple(entry["feasible_points"]))
    return Range(float(entry["min"]), float(entry["max"]), entry["scaling"] == "log")


_VALUES = "values are finite 32-bit numbers, strings or booleans"


def check_point(point: Point, source: str) -> Point:
    """Return a point unchanged if its values can be a trial's hyperparameters.

    Args:
        point: The values by name.
        source: Their origin, for messages.

    Raises:
        ValueError: A value is not a finite 32-bit number, a string or a boolean; names it.
    """
    for name, value in point.items():
        if not _is_value(value):
            raise ValueError(f"{source}: {name!r}: {_VALUES}, got {value!r}.")
    return point


def _is_value(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_number(value)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST  # NaN is not


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DuplicateNameError(f"{twice} appear twice in one object.")
    return dict(pairs)
