"""The rules for the arguments of a supervised workload, checked before its data is loaded."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, get_args

from metaopt.bench.measure.targets import BETTER, Direction
from metaopt.workloads.losses import Loss
from metaopt.workloads.models.network import as_linen

_SPLITS = ("train", "validation", "test")
_TAKEN = ("loss", "count", "num_examples")  # names of metrics with a meaning of their own

# A rule in words, and as a function of the value.
_Rule = tuple[str, Callable[[Any], bool]]


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_mapping(value: Any, is_key: Callable[[Any], bool], is_value: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(is_key(k) and is_value(v) for k, v in value.items())


_TEXT: _Rule = "a non-empty text", lambda value: isinstance(value, str) and value != ""
_FUNCTION: _Rule = "a function", callable
_FUNCTION_OR_NONE: _Rule = "None or a function", lambda value: value is None or callable(value)
_KEYS: _Rule = (
    "a tuple of keys of a batch",
    lambda value: (
        isinstance(value, tuple) and len(value) > 0 and all(isinstance(key, str) for key in value)
    ),
)
_COUNT: _Rule = "an integer of at least 1", _is_count
_SECONDS: _Rule = "a positive number", lambda value: _is_number(value) and value > 0

_RULES: dict[str, _Rule] = {
    "name": _TEXT,
    "summary": _TEXT,
    "load": _FUNCTION,
    "reference_batch_size": _COUNT,
    "step_hint": _COUNT,
    "target_metric": _TEXT,
    "max_allowed_runtime_sec": _SECONDS,
    "eval_period_time_sec": _SECONDS,
    "eval_train_size": _COUNT,
    "eval_period": _COUNT,
    "files": (
        "a tuple of sources, with `locate` and `paths`",
        lambda value: isinstance(value, tuple)
        and all(hasattr(file, "locate") and hasattr(file, "paths") for file in value),
    ),
    "whole": (
        f"a mapping from some of {_SPLITS} to numbers of examples",
        lambda value: _is_mapping(value, _SPLITS.__contains__, _is_count),
    ),
    "model_inputs": _KEYS,
    "metric_inputs": _KEYS,
    "has_modes": ("True or False", lambda value: isinstance(value, bool)),
    "dropout_rate": ("in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1),
    "complete": _FUNCTION,
    "complete_eval": _FUNCTION_OR_NONE,
    "pad": _FUNCTION,
    "network_type": _FUNCTION,
    "parameter_types": _FUNCTION,
    "output_layer": _TEXT,
    "max_eval_batch_size": (
        "None or an integer of at least 1", lambda value: value is None or _is_count(value)
    ),
    "more_metrics": _FUNCTION_OR_NONE,
    "loss_fn": _FUNCTION_OR_NONE,
    "metrics": (
        f"None or a mapping from names to functions, without '/' and not one of {_TAKEN}",
        lambda value: value is None or _is_mapping(value, _is_name_of_metric, callable),
    ),
    "target_better": (
        f"None or one of {get_args(Direction)}",
        lambda value: value is None or value in get_args(Direction),
    ),
    "target_values": (
        "None or a pair of finite numbers, for validation and test",
        lambda value: value is None
        or (isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value))),
    ),
}  # fmt: skip


def _is_name_of_metric(name: Any) -> bool:
    return isinstance(name, str) and name != "" and "/" not in name and name not in _TAKEN


def check_arguments(workload: Any) -> None:
    """Check the arguments that a supervised workload was made with.

    Args:
        workload: A :class:`~metaopt.workloads.supervised.SupervisedWorkload`.

    Raises:
        ValueError: An argument breaks its rule; the message names argument, rule and value.
    """
    for name, (rule, is_met) in _RULES.items():
        value = getattr(workload, name)
        if not is_met(value):
            raise ValueError(f"`{name}` must be {rule}, got {value!r}.")
    for name in ("loss_fn", "metrics"):
        if getattr(type(workload), name) is not None:  # the argument would hide it
            kind = type(workload).__name__
            raise ValueError(f"`{name}` must be an argument, not a method of {kind}.")
    as_linen(workload.model)
    if workload.loss_type is not None or workload.loss_fn is None:
        Loss(workload.loss_type)  # refuses an unknown type
    if workload.dropout_rate and not workload.has_modes:
        raise ValueError(
            "`dropout_rate` must be 0 unless `has_modes=True`, with which the model is told it; "
            f"got {workload.dropout_rate}."
        )
    reported = workload.metric_names
    if reported is not None and f"validation/{workload.target_metric}" not in reported:
        known = sorted(
            name.removeprefix("validation/") for name in reported if name.startswith("validation/")
        )
        raise ValueError(
            f"`target_metric` must be a metric of the workload, one of {known}, got "
            f"{workload.target_metric!r}. Give others with `metrics` or `more_metrics`."
        )
    if workload.target_better is None and workload.target_metric not in BETTER:
        raise ValueError(
            f"`target_better` must be 'lower' or 'higher' for {workload.target_metric!r}, whose "
            "direction is not known; got None."
        )
