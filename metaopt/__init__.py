"""Meta-optimization for deep learning, and the referee that compares it with tuned optimizers.

The optimizer's names are imported when they are first used, so that reading records or targets
needs no JAX.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaopt.controllers.averages import Averages
    from metaopt.controllers.controller_files import load_controller, save_controller
    from metaopt.controllers.lags import Controller, DiagonalLags, FullLags, ScalarLags
    from metaopt.episodes import carry_over, start_episode
    from metaopt.guards import GuardState, guard
    from metaopt.hypergradient import HypergradientState, hypergradient_descent
    from metaopt.mixtures import mixture, restart_learning
    from metaopt.optimizer import MetaOptimizerState, meta_optimizer
    from metaopt.recipes import fixed_batch_optimizer, minibatch_optimizer
    from metaopt.scales import by_log_loss, scale_by_level, scale_by_polyak, scale_by_rms

__all__ = [
    "Averages",
    "Controller",
    "DiagonalLags",
    "FullLags",
    "GuardState",
    "HypergradientState",
    "MetaOptimizerState",
    "ScalarLags",
    "by_log_loss",
    "carry_over",
    "fixed_batch_optimizer",
    "guard",
    "hypergradient_descent",
    "load_controller",
    "meta_optimizer",
    "minibatch_optimizer",
    "mixture",
    "restart_learning",
    "save_controller",
    "scale_by_level",
    "scale_by_polyak",
    "scale_by_rms",
    "start_episode",
]

_HOMES = {
    "Averages": "controllers.averages",
    "Controller": "controllers.lags",
    "DiagonalLags": "controllers.lags",
    "FullLags": "controllers.lags",
    "GuardState": "guards",
    "HypergradientState": "hypergradient",
    "MetaOptimizerState": "optimizer",
    "ScalarLags": "controllers.lags",
    "by_log_loss": "scales",
    "carry_over": "episodes",
    "fixed_batch_optimizer": "recipes",
    "guard": "guards",
    "hypergradient_descent": "hypergradient",
    "load_controller": "controllers.controller_files",
    "meta_optimizer": "optimizer",
    "minibatch_optimizer": "recipes",
    "mixture": "mixtures",
    "restart_learning": "mixtures",
    "save_controller": "controllers.controller_files",
    "scale_by_level": "scales",
    "scale_by_polyak": "scales",
    "scale_by_rms": "scales",
    "start_episode": "episodes",
}

try:
    __version__ = metadata.version("metaopt-bench")
except metadata.PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"metaopt.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'metaopt' has no attribute {name!r}, only {__all__}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
