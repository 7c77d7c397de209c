"""Search spaces from AlgoPerf's JSON, both forms.

A dictionary of parameters, ``{"lr": {"min": 1e-4, "max": 1e-1, "scaling": "log"}, "b": {
"feasible_points": [0.9, 0.99]}}``, or a list of whole points with equal keys.
"""

import dataclasses
import keyword
import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import optuna

Point = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Range:
    """A real parameter in ``[low, high]``."""

    low: float
    high: float
    log: bool

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """Let Optuna choose."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclasses.dataclass(frozen=True)
class Choices:
    """A parameter with finitely many values."""

    points: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Let Optuna choose."""
        return trial.suggest_categorical(name, self.points)


@dataclasses.dataclass(frozen=True)
class Space:
    """A product of parameters."""

    parameters: dict[str, Range | Choices]

    def suggest(self, trial: optuna.Trial) -> Point:
        """Return a point of Optuna's choice."""
        return {name: part.suggest(trial, name) for name, part in self.parameters.items()}

    def grid(self) -> Iterator[Point]:
        """Yield every point, the last parameter varying fastest.

        Raises:
            ValueError: A parameter is a range.
        """
        ranges = [name for name, part in self.parameters.items() if isinstance(part, Range)]
        if ranges:
            raise ValueError(
                f"A grid needs `feasible_points` for every parameter, {ranges} are ranges. "
                "Try a space of points, as in `adamw@paper+grid`."
            )
        names = list(self.parameters)
        values = (part.points for part in self.parameters.values())  # type: ignore[union-attr]
        for combination in product(*values):
            yield dict(zip(names, combination, strict=True))


@dataclasses.dataclass(frozen=True)
class PointList:
    """A list of whole points."""

    points: tuple[Point, ...]

    def suggest(self, trial: optuna.Trial) -> Point:
        """Return one of the points, of Optuna's choice."""
        return dict(self.points[trial.suggest_categorical("point", range(len(self.points)))])

    def grid(self) -> Iterator[Point]:
        """Yield the points in their order."""
        yield from map(dict, self.points)


def parse_space(document: Any, source: str) -> Space | PointList:
    """Check a search space and give it a type.

    Args:
        document: What the JSON file holds.
        source: Where it comes from, for messages.

    Raises:
        ValueError: Names the entry, the rule and the value.
    """
    if isinstance(document, list):
        return _parse_list(document, source)
    if not isinstance(document, dict) or not document:
        raise ValueError(f"{source}: a search space is a dictionary or a list, got {document!r}.")
    return Space({name: _parse_entry(name, entry, source) for name, entry in document.items()})


def _parse_list(points: list[Any], source: str) -> PointList:
    if not points or not all(isinstance(point, dict) and point for point in points):
        raise ValueError(f"{source}: a list of points needs dictionaries, at least one.")
    for index, point in enumerate(points):
        if point.keys() != points[0].keys():
            raise ValueError(
                f"{source}: point {index} has the keys {sorted(point)}, "
                f"the first has {sorted(points[0])}."
            )
    for name in points[0]:
        _check_name(name, source)
        _check_values([point[name] for point in points], f"{source}: {name!r}")
    return PointList(tuple(points))


def _parse_entry(name: str, entry: Any, source: str) -> Range | Choices:
    _check_name(name, source)
    where = f"{source}: {name!r}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be a dictionary, got {entry!r}.")
    if "feasible_points" in entry:
        points = entry["feasible_points"]
        if set(entry) != {"feasible_points"} or not isinstance(points, list) or not points:
            raise ValueError(f"{where} needs a list of `feasible_points` and nothing else: {entry}")
        _check_values(points, where)
        return Choices(tuple(points))
    if set(entry) != {"min", "max", "scaling"} or entry["scaling"] not in ("log", "linear"):
        raise ValueError(
            f"{where} needs `min`, `max` and `scaling` ('log' or 'linear'), or `feasible_points`; "
            f"got {entry}."
        )
    low, high, log = entry["min"], entry["max"], entry["scaling"] == "log"
    numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in (low, high))
    if not numbers or not low < high:
        raise ValueError(f"{where} needs numbers with `min` below `max`, got {low!r} and {high!r}.")
    if log and low <= 0:
        raise ValueError(f"{where} has a log scale, so `min` must be above 0, got {low!r}.")
    return Range(float(low), float(high), log)


def _check_name(name: Any, source: str) -> None:
    usable = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    if not usable or keyword.iskeyword(name):
        raise ValueError(f"{source}: hyperparameter names are Python identifiers, got {name!r}.")


def _check_values(values: list[Any], where: str) -> None:
    for value in values:
        number = isinstance(value, int | float) and math.isfinite(value)
        if not number and not isinstance(value, str):
            raise ValueError(f"{where}: values are numbers, strings or booleans, got {value!r}.")
