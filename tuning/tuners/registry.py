"""The tuners by name: the shipped ones, and those of installed packages."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from metaopt.bench.contract import plugins
from metaopt.bench.contract.spaces import Point, SearchSpace
from metaopt.bench.contract.suggestions import did_you_mean
from metaopt.bench.contract.tuner import Tuner
from tuning.tuners import samplers
from tuning.tuners.bandits import AshaTuner, HyperbandTuner
from tuning.tuners.defaults import DefaultsTuner, LongTuner
from tuning.tuners.grid import GridTuner, StagewiseTuner
from tuning.tuners.median import MedianTuner
from tuning.tuners.quasirandom import HaltonTuner, SobolTuner

MakeTuner = Callable[[SearchSpace, int, Point], Tuner]


class TunerKind(NamedTuple):
    """A shipped tuner."""

    summary: str  # one line for `python -m tuning list`
    make: MakeTuner  # (space, seed, defaults) -> tuner
    module: str | None = None  # its library, which the extra of the tuner's name installs

    def line(self, name: str) -> str:
        """Return the line for `python -m tuning list`, with the missing library."""
        missing = self.missing(name)
        return f"{self.summary} ({missing})" if missing else self.summary

    def missing(self, name: str) -> str:
        """Return the command that installs its library; empty if nothing is missing."""
        if self.module is None or find_spec(self.module) is not None:
            return ""
        return f"needs {self.module}: pip install 'metaopt-bench[{name}]'"


def _of_space(tuner: Callable[[SearchSpace, int], Tuner]) -> MakeTuner:
    return lambda space, seed, defaults: tuner(space, seed)


TUNERS: dict[str, TunerKind] = {
    "asha": TunerKind(
        "asynchronous successive halving; the best third of a rung continues from checkpoints",
        _of_space(AshaTuner),
    ),
    "cmaes": TunerKind("CMA-ES with margin", _of_space(samplers.make_cmaes), "cmaes"),
    "gp": TunerKind(
        f"Gaussian process, expected improvement, {samplers.RANDOM_TRIALS} random trials first",
        _of_space(samplers.make_gp),
        "torch",
    ),
    "grid": TunerKind("every feasible point once, in a seeded order", _of_space(GridTuner)),
    "halton": TunerKind("AlgoPerf's quasi-random points", _of_space(HaltonTuner)),
    "hyperband": TunerKind(
        "brackets of successive halving, from many short trials to few long ones",
        _of_space(HyperbandTuner),
    ),
    "long": TunerKind(
        "no tuning: the submission's defaults in one trial of the whole budget",
        lambda space, seed, defaults: LongTuner(defaults),
    ),
    "median": TunerKind(
        "independent draws; a trial that is worse than the median of earlier ones is stopped",
        _of_space(MedianTuner),
    ),
    "none": TunerKind(
        "no tuning: the submission's defaults in every trial",
        lambda space, seed, defaults: DefaultsTuner(defaults),
    ),
    "qmc": TunerKind("Sobol's quasi-random points, scrambled by the seed", _of_space(SobolTuner)),
    "random": TunerKind("independent draws from the space", _of_space(samplers.make_random)),
    "stagewise": TunerKind(
        "the grid without its last parameter, then that parameter at the best point",
        _of_space(StagewiseTuner),
    ),
    "tpe": TunerKind(
        "Tree-structured Parzen Estimator, multivariate, "
        f"{samplers.RANDOM_TRIALS} random trials first",
        _of_space(samplers.make_tpe),
    ),
}


def get_tuner(name: str) -> MakeTuner:
    """Return ``(space, seed, defaults) -> tuner``.

    Raises:
        ValueError: There is no such tuner, its library is missing, or the package that adds it is
            broken.
    """
    if name in TUNERS:
        if missing := TUNERS[name].missing(name):
            raise ValueError(f"tuner {name!r} {missing}.")
        return TUNERS[name].make
    plugin = plugins.find_plugin(plugins.TUNERS, name, TUNERS)
    if plugin is not None:
        return _load_plugin(plugin)
    names = sorted([*TUNERS, *plugins.plugin_names(plugins.TUNERS, TUNERS)])
    raise ValueError(f"no tuner {name!r}{did_you_mean(name, names)}, only {names}.")


def list_plugin_tuners() -> tuple[dict[str, MakeTuner], dict[str, str]]:
    """Return the tuners of installed packages, and the reasons why others are unavailable."""
    return plugins.list_plugins(plugins.TUNERS, TUNERS, _load_plugin)


def _load_plugin(plugin: plugins.Plugin) -> MakeTuner:
    make: MakeTuner = plugin.load()
    if not callable(make):
        raise plugin.broken(f"a tuner is made by a function, got {make!r}")
    return make
