"""Optuna's samplers as tuners, with every argument that they take on record.

Optuna's defaults change between versions (TPE became multivariate in 5.0), so all are stated, but
for those that it deprecates. A study keeps its sampler's state in memory; a resumed one tells a new
sampler everything again.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import optuna

from metaopt.bench.contract.spaces import Choices, Point, PointList, Space

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaTuner:
    """Any Optuna sampler, asked and told one trial at a time.

    Args:
        name: Of the tuner.
        space: Where it proposes.
        sampler: Class of the sampler.
        arguments: All that it is made with.
        ordered: Show it numeric feasible points as an ordered index, and not as categories.
    """

    def __init__(
        self,
        name: str,
        space: Space | PointList,
        sampler: type[optuna.samplers.BaseSampler],
        arguments: dict[str, Any],
        *,
        ordered: bool = False,
    ) -> None:
        self._name = name
        self._space = space
        self._ordered = ordered
        self._arguments = {"sampler": sampler.__name__, **arguments, "ordered": ordered}
        with warnings.catch_warnings():  # some arguments are experimental in Optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(sampler=sampler(**arguments), direction="minimize")
        self._trial: optuna.Trial | None = None

    def ask(self) -> Point:
        """Return the sampler's next proposal."""
        self._trial = self._study.ask()
        return self._space.suggest(self._trial, ordered=self._ordered)

    def tell(self, value: float) -> None:
        """Tell the sampler what its proposal was worth."""
        assert self._trial is not None, "tell() before ask()"
        self._study.tell(self._trial, value)

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        version = metadata.version("optuna")
        return {"name": self._name, "library": f"optuna {version}", **self._arguments}


class GaussianProcessTuner(OptunaTuner):
    """Optuna's Gaussian process. It computes on one thread, so cores do not change its proposals.

    Asking costs time cubic in the number of trials, and once the import of torch.
    """

    def __init__(self, space: Space | PointList, arguments: dict[str, Any]) -> None:
        super().__init__("gp", space, optuna.samplers.GPSampler, arguments, ordered=True)
        self._random_trials = arguments["n_startup_trials"]

    def ask(self) -> Point:
        """Return the sampler's next proposal."""
        if self._random_trials:  # does without torch
            self._random_trials -= 1
            return super().ask()
        with _one_thread():
            return super().ask()

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {**super().describe(), "torch": metadata.version("torch")}


def make_random(space: Space | PointList, seed: int, defaults: Point) -> OptunaTuner:
    """Draw points independently."""
    del defaults
    return OptunaTuner("random", space, optuna.samplers.RandomSampler, {"seed": seed})


def make_tpe(space: Space | PointList, seed: int, defaults: Point) -> OptunaTuner:
    """Model good and bad points by densities."""
    del defaults
    arguments = {
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
        "multivariate": True,
        "group": False,
        "constant_liar": False,  # there is one trial at a time
        "constraints_func": None,
        "seed": seed,
    }
    return OptunaTuner("tpe", space, optuna.samplers.TPESampler, arguments)


def make_gp(space: Space | PointList, seed: int, defaults: Point) -> OptunaTuner:
    """Model the value by a Gaussian process, and propose where it is expected to improve."""
    del defaults
    arguments = {
        "n_startup_trials": 10,
        "deterministic_objective": False,  # the seed of a trial changes its value
        "independent_sampler": None,  # random, for the first trials
        "warn_independent_sampling": False,
        "constraints_func": None,
        "seed": seed,
    }
    return GaussianProcessTuner(space, arguments)


def make_cmaes(space: Space | PointList, seed: int, defaults: Point) -> OptunaTuner:
    """Move a Gaussian distribution of points towards the better ones.

    Raises:
        ValueError: There are no two numeric parameters to move in.
    """
    del defaults
    parts = {} if isinstance(space, PointList) else space.parameters
    numeric = [name for name, part in parts.items() if _can_move(part)]
    if len(numeric) < 2:
        raise ValueError(
            f"`cmaes` needs two numeric parameters at least, with a range or several feasible "
            f"points; got {numeric}. `tpe` takes any space."
        )
    arguments = {
        "n_startup_trials": 1,
        "popsize": None,  # 4 + floor(3 log(parameters))
        "with_margin": True,  # no index of feasible points can die out
        "lr_adapt": False,
        "use_separable_cma": False,
        "consider_pruned_trials": False,
        "source_trials": None,
        "independent_sampler": None,  # random, for parameters without an order
        "warn_independent_sampling": False,
        "seed": seed,
    }
    return OptunaTuner("cmaes", space, optuna.samplers.CmaEsSampler, arguments, ordered=True)


def _can_move(part: Any) -> bool:
    return not isinstance(part, Choices) or (part.is_numeric and len(part.points) > 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch  # pyright: ignore[reportMissingImports] (an extra, and slow to import)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
