"""The grid, and the grid in two stages."""

from typing import Any

import numpy as np

from metaopt.bench.contract.spaces import Point, PointList, SearchSpace


class GridTuner:
    """Every point of the grid once, in a seeded order."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        points = list(space.grid())
        order = np.random.default_rng(seed).permutation(len(points))
        self._points = [points[index] for index in order]
        self._asked = 0

    def ask(self) -> Point | None:
        """Return the next point; ``None`` after the last one."""
        if self._asked == len(self._points):
            return None
        self._asked += 1
        return self._points[self._asked - 1]

    def tell(self, value: float) -> None:
        """Learn nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {"name": "grid", "points": len(self._points)}


class StagewiseTuner:
    """The grid of all parameters but the last, then the last one on top of the best point.

    The first value of the last parameter must switch it off, so that the first stage tunes the
    underlying method. The paper tunes hypergradient descent this way, on top of tuned SGD: 24
    points with a rate of 0, which is SGD, then 4 rates at the best of them.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        points = list(space.grid())
        *_, last = points[0]
        self._last, self._values = last, list(dict.fromkeys(point[last] for point in points))
        if len(self._values) < 2 or isinstance(space, PointList):
            raise ValueError(
                "`stagewise` needs a dictionary of feasible points with at least two for the last "
                f"parameter, but {last!r} has {self._values}."
            )
        first = [point for point in points if point[last] == self._values[0]]
        order = np.random.default_rng(seed).permutation(len(first))
        self._queue = [first[index] for index in order]
        self._first_stage = len(first)
        self._values_of: list[tuple[float, Point]] = []
        self._asked = 0

    def ask(self) -> Point | None:
        """Return the next point; ``None`` after the last stage."""
        if self._asked == self._first_stage:
            _, best = min(self._values_of, key=lambda pair: pair[0])
            self._queue += [{**best, self._last: value} for value in self._values[1:]]
        if self._asked == len(self._queue):
            return None
        self._asked += 1
        return dict(self._queue[self._asked - 1])

    def tell(self, value: float) -> None:
        """Take the value of the last point."""
        self._values_of.append((value, self._queue[self._asked - 1]))

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {
            "name": "stagewise",
            "points": self._first_stage + len(self._values) - 1,
            "last_stage": self._last,
        }
