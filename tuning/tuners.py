"""The tuners. Optuna proposes and is told; loop, meter, seeds and storage are ours.

Installed packages add further tuners: see :mod:`metaopt.bench.plugins`.
"""

import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import optuna

from metaopt.bench import plugins
from metaopt.bench.spaces import Point, PointList, Space
from metaopt.bench.tuner import Tuner

optuna.logging.set_verbosity(optuna.logging.WARNING)


class GridTuner:
    """Every point of the grid once, in an order that the seed decides."""

    def __init__(self, space: Space | PointList, seed: int) -> None:
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

    def __init__(self, space: Space | PointList, seed: int) -> None:
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


class OptunaTuner:
    """Any Optuna sampler, asked and told one trial at a time."""

    def __init__(
        self,
        name: str,
        space: Space | PointList,
        sampler: type[optuna.samplers.BaseSampler],
        arguments: dict[str, Any],
    ) -> None:
        self._name = name
        self._space = space
        self._arguments = {"sampler": sampler.__name__, **arguments}
        with warnings.catch_warnings():  # some arguments are experimental in Optuna 4.9
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(sampler=sampler(**arguments), direction="minimize")
        self._trial: optuna.Trial | None = None

    def ask(self) -> Point:
        """Return the sampler's next proposal."""
        self._trial = self._study.ask()
        return self._space.suggest(self._trial)

    def tell(self, value: float) -> None:
        """Tell the sampler what its proposal was worth."""
        assert self._trial is not None, "tell() before ask()"
        self._study.tell(self._trial, value)

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        version = metadata.version("optuna")
        return {"name": self._name, "library": f"optuna {version}", **self._arguments}


class DefaultsTuner:
    """The submission's defaults again and again, from new seeds: no tuning at all."""

    def __init__(self, defaults: Point) -> None:
        self._defaults = defaults

    def ask(self) -> Point:
        """Return the defaults."""
        return dict(self._defaults)

    def tell(self, value: float) -> None:
        """Learn nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {"name": "none"}


def _random(space: Space | PointList, seed: int, defaults: Point) -> Tuner:
    del defaults
    return OptunaTuner("random", space, optuna.samplers.RandomSampler, {"seed": seed})


def _tpe(space: Space | PointList, seed: int, defaults: Point) -> Tuner:
    # Stated in full, because Optuna's defaults change between versions (multivariate did in 5.0).
    arguments = {
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
        "multivariate": True,
        "group": False,
        "constant_liar": False,
        "seed": seed,
    }
    del defaults
    return OptunaTuner("tpe", space, optuna.samplers.TPESampler, arguments)


def _grid(space: Space | PointList, seed: int, defaults: Point) -> Tuner:
    del defaults
    return GridTuner(space, seed)


def _stagewise(space: Space | PointList, seed: int, defaults: Point) -> Tuner:
    del defaults
    return StagewiseTuner(space, seed)


def _none(space: Space | PointList, seed: int, defaults: Point) -> Tuner:
    del space, seed
    return DefaultsTuner(defaults)


MakeTuner = Callable[[Space | PointList, int, Point], Tuner]

# By name: one line for `python -m tuning list`, and how to make one.
TUNERS: dict[str, tuple[str, MakeTuner]] = {
    "grid": ("every feasible point once, in a seeded order", _grid),
    "none": ("no tuning: the submission's defaults, again and again", _none),
    "random": ("independent draws from the space", _random),
    "stagewise": (
        "the grid without its last parameter, then that parameter at the best point",
        _stagewise,
    ),
    "tpe": ("Tree-structured Parzen Estimator, multivariate, 10 random trials first", _tpe),
}


def get_tuner(name: str) -> MakeTuner:
    """Return ``(space, seed, defaults) -> tuner``.

    Raises:
        ValueError: There is no such tuner, or the package that adds it is broken.
    """
    if name in TUNERS:
        return TUNERS[name][1]
    plugin = plugins.find_plugin(plugins.TUNERS, name, TUNERS)
    if plugin is not None:
        return _load_plugin(plugin)
    names = sorted([*TUNERS, *plugins.plugin_names(plugins.TUNERS, TUNERS)])
    raise ValueError(f"no tuner {name!r}, only {names}.")


def list_plugin_tuners() -> tuple[dict[str, MakeTuner], dict[str, str]]:
    """Return the tuners that installed packages add, and why others are unavailable."""
    return plugins.list_plugins(plugins.TUNERS, TUNERS, _load_plugin)


def _load_plugin(plugin: plugins.Plugin) -> MakeTuner:
    make = plugin.load()
    if not callable(make):
        raise plugin.broken(f"a tuner is made by a function, got {make!r}")
    return make
