"""Optuna's samplers as tuners, with all of their arguments on record.

Optuna's defaults change between versions (TPE became multivariate in 5.0), so every argument is
stated, except those that Optuna deprecates. A sampler's state is in memory only: a study that is
resumed tells a new sampler everything again.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from metaopt.bench.contract.spaces import Choices, Point, PointList, SearchSpace
from tuning.tuners.distributions import distribution_of, value_in

optuna.logging.set_verbosity(optuna.logging.WARNING)

# Random trials before a model proposes. A study of 16 step hints has 16 trials and a few more, so
# that Optuna's default of 10 would leave most of it to random search.
RANDOM_TRIALS = 4


class OptunaTuner:
    """Any Optuna sampler, asked and told one trial at a time.

    Args:
        name: The tuner's name.
        space: The search space.
        sampler: The sampler's class.
        arguments: The sampler's arguments, all of them.
        ordered: Present numeric feasible points as an ordered index, not as categories.
    """

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        sampler: type[optuna.samplers.BaseSampler],
        arguments: dict[str, Any],
        *,
        ordered: bool = False,
    ) -> None:
        self._name = name
        self._space = space
        self._ordered = ordered
        if isinstance(space, PointList):
            index = CategoricalDistribution(range(len(space.points)))
            self._distributions: dict[str, BaseDistribution] = {"point": index}
        else:
            self._distributions = {
                name: distribution_of(part, ordered=ordered)
                for name, part in space.parameters.items()
            }
        self._arguments = {"sampler": sampler.__name__, **arguments, "ordered": ordered}
        with warnings.catch_warnings():  # some arguments are experimental in Optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(sampler=sampler(**arguments), direction="minimize")
        self._trial: optuna.Trial | None = None

    def ask(self) -> Point:
        """Return the sampler's next proposal."""
        self._trial = trial = self._study.ask(self._distributions)
        if isinstance(self._space, PointList):
            return dict(self._space.points[trial.params["point"]])
        return {
            name: value_in(part, trial.params[name], ordered=self._ordered)
            for name, part in self._space.parameters.items()
        }

    def tell(self, value: float) -> None:
        """Tell the sampler the value of its last proposal."""
        assert self._trial is not None, "tell() before ask()"
        self._study.tell(self._trial, value)

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        version = metadata.version("optuna")
        return {"name": self._name, "library": f"optuna {version}", **self._arguments}


class GaussianProcessTuner(OptunaTuner):
    """Optuna's Gaussian process, on one thread: cores do not change its proposals.

    The time of a proposal is cubic in the number of trials; the first one imports torch.
    """

    def __init__(self, space: SearchSpace, arguments: dict[str, Any]) -> None:
        super().__init__("gp", space, optuna.samplers.GPSampler, arguments, ordered=True)
        self._random_trials = arguments["n_startup_trials"]

    def ask(self) -> Point:
        """Return the sampler's next proposal."""
        if self._random_trials:  # needs no torch
            self._random_trials -= 1
            return super().ask()
        with _one_thread():
            return super().ask()

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {**super().describe(), "torch": metadata.version("torch")}


def make_random(space: SearchSpace, seed: int) -> OptunaTuner:
    """Draw points independently."""
    return OptunaTuner("random", space, optuna.samplers.RandomSampler, {"seed": seed})


def make_tpe(space: SearchSpace, seed: int) -> OptunaTuner:
    """Model good and bad points by densities."""
    arguments = {
        "n_startup_trials": RANDOM_TRIALS,
        "n_ei_candidates": 24,
        "multivariate": True,
        "group": False,
        "constant_liar": False,  # there is one trial at a time
        "constraints_func": None,
        "seed": seed,
    }
    return OptunaTuner("tpe", space, optuna.samplers.TPESampler, arguments)


def make_gp(space: SearchSpace, seed: int) -> OptunaTuner:
    """Model the value by a Gaussian process, and propose where it is expected to improve."""
    arguments = {
        "n_startup_trials": RANDOM_TRIALS,
        "deterministic_objective": False,  # the seed of a trial changes its value
        "independent_sampler": None,  # random, for the first trials
        "warn_independent_sampling": False,
        "constraints_func": None,
        "seed": seed,
    }
    return GaussianProcessTuner(space, arguments)


def make_cmaes(space: SearchSpace, seed: int) -> OptunaTuner:
    """Move a Gaussian distribution of points towards the better ones.

    Raises:
        ValueError: The space has fewer than two numeric parameters.
    """
    parts = {} if isinstance(space, PointList) else space.parameters
    numeric = [name for name, part in parts.items() if _can_move(part)]
    if len(numeric) < 2:
        raise ValueError(
            f"`cmaes` needs at least two numeric parameters with a range or several feasible "
            f"points, got {numeric}. `tpe` takes any space."
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
