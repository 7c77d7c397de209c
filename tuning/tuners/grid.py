"""The grid, and the grid in two stages."""

from typing import Any

import numpy as np

from metaopt.bench.contract.spaces import Point, PointList, SearchSpace


class GridTuner:
    """Every point of the grid once, in an order that the seed decides."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        points = list(space.grid())
        order = np.random.default_rng(seed).permutation(len(points))
        self._points = [points[index] for index in order]
        self._asked = 0

    def ask(self) -> Point | None:
        """Return the next point; ``None`` when all have been proposed."""
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

    The last parameter's first value is the one that leaves it out, so that the first stage tunes
    the method underneath. The paper's hypergradient descent is tuned so, on top of tuned SGD: 24
    points with a rate of 0, which is SGD, then the 4 rates at the best of them.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        points = list(space.grid())
        *_, last = points[0]
        self._last, self._values = last, list(dict.fromkeys(point[last] for point in points))
        if len(self._values) < 2 or isinstance(space, PointList):
            raise ValueError(
                f"`stagewise` needs a dictionary of feasible points, the last with two at least; "
                f"{last!r} has {self._values}."
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
        """Take the value of the point that was asked for last."""
        self._values_of.append((value, self._queue[self._asked - 1]))

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {
            "name": "stagewise",
            "points": self._first_stage + len(self._values) - 1,
            "last_stage": self._last,
        }
