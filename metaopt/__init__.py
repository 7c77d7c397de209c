"""Meta-optimization for deep learning, and the referee that compares it with tuned optimizers.

The optimizer's names are imported when they are first used, so that reading records or targets
needs no JAX.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaopt.controller_files import load_controller, save_controller
    from metaopt.controllers import Controller, DiagonalLags, FullLags, ScalarLags
    from metaopt.episodes import start_episode
    from metaopt.hypergradient import HypergradientState, hypergradient_descent
    from metaopt.optimizer import MetaOptimizerState, meta_optimizer

__all__ = [
    "Controller",
    "DiagonalLags",
    "FullLags",
    "HypergradientState",
    "MetaOptimizerState",
    "ScalarLags",
    "hypergradient_descent",
    "load_controller",
    "meta_optimizer",
    "save_controller",
    "start_episode",
]

_HOMES = {
    "Controller": "controllers",
    "DiagonalLags": "controllers",
    "FullLags": "controllers",
    "HypergradientState": "hypergradient",
    "MetaOptimizerState": "optimizer",
    "ScalarLags": "controllers",
    "hypergradient_descent": "hypergradient",
    "load_controller": "controller_files",
    "meta_optimizer": "optimizer",
    "save_controller": "controller_files",
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
