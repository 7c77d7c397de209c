"""Meta-optimization for deep learning, and the referee that compares it with tuned optimizers.

The optimizer's names are imported when they are first used, so that reading records or targets
needs no JAX.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the one list of public names: __getattr__ reads it
    from .averaging import AverageState, average_params, evaluation_params
    from .controllers.averages import Averages
    from .controllers.base import Controller
    from .controllers.controller_files import load_controller, save_controller
    from .controllers.diagonal_lags import DiagonalLags
    from .controllers.full_lags import FullLags
    from .controllers.lags import ScalarLags
    from .controllers.step_size import StepSize
    from .episodes import (
        carry_over,
        end_learning,
        restart_learning,
        scale_controls,
        start_episode,
    )
    from .frozen import FrozenControlState, frozen_control
    from .guards import GuardState, guard
    from .hypergradient import HypergradientState, hypergradient_descent
    from .long_memory import anytime_optimizer, long_memory_optimizer
    from .online import OnlineControlState, online_control
    from .optimizer import MetaOptimizerState, meta_optimizer
    from .recipes import fixed_batch_optimizer, minibatch_optimizer
    from .scales import by_log_loss, scale_by_level, scale_by_polyak, scale_by_rms
    from .self_tuning import self_tuning_optimizer
    from .sums import sum_updates

try:
    __version__ = metadata.version("metaopt-bench")
except metadata.PackageNotFoundError:  # a checkout or a copy that was never installed
    __version__ = "0+unknown"


def _modules() -> dict[str, str]:
    """Return the module of every public name, from the imports at the top of this file."""
    import ast
    import inspect
    import sys

    tree = ast.parse(inspect.getsource(sys.modules[__name__]))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name: f".{node.module}" for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        globals()[name] = sorted(_modules())
        return globals()[name]
    modules = {} if name.startswith("__") else _modules()
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}, only {[*modules]}")
    globals()[name] = getattr(importlib.import_module(modules[name], __name__), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *_modules()])
