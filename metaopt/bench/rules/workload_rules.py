"""Rules on a workload: its attributes, start, types, batches and evaluation.

The rules load the workload's data but train nothing.
"""

import numbers
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from metaopt.bench.records.findings import Problem, Rule, Severity
from metaopt.bench.rules.rule_lists import rule

ATTRIBUTES = (
    "name", "step_hint", "loss_type", "reference_batch_size", "eval_batch_size",
    "eval_period_time_sec", "max_allowed_runtime_sec", "model_params_types", "param_shapes",
    "is_fixed_batch", "metrics_logger",
)  # fmt: skip
COUNTS = ("step_hint", "reference_batch_size", "eval_batch_size")
SECONDS = ("eval_period_time_sec", "max_allowed_runtime_sec")
FUNCTIONS = ("_build_input_queue", "init_model_fn", "model_fn", "loss_fn", "eval_model")
SPLITS = ("train", "validation", "test")
_KEY = 0
_BATCHES = 3

INTERFACE_RULES: list[Rule] = []


def problem(workload: Any, what: str, fix: str, severity: Severity = "error") -> Problem:
    """Return a problem of a workload."""
    return Problem(what, str(getattr(workload, "name", workload)), fix, severity)


def training_queue(workload: Any) -> Any:
    """Return a queue of training batches of the reference size."""
    return workload._build_input_queue(
        np.array([0, 1], np.uint32), "train", data_dir="",
        global_batch_size=workload.reference_batch_size,
    )  # fmt: skip


@rule(
    INTERFACE_RULES,
    "workload-interface",
    "the workload has all attributes and functions of the interface",
)
def find_missing_parts(workload: Any) -> Iterator[Problem]:
    """Yield a problem for missing attributes and functions, and for numbers below their minimum."""
    missing = [name for name in (*ATTRIBUTES, *FUNCTIONS) if not hasattr(workload, name)]
    wrong = [name for name in FUNCTIONS if not callable(getattr(workload, name, print))]
    if missing or wrong:
        yield problem(workload, f"it lacks {', '.join(missing + wrong)}", "Add them.")
        return
    for names, kind, demand in (
        (COUNTS, numbers.Integral, "an integer of at least 1"),
        (SECONDS, numbers.Real, "a positive number"),
    ):
        for name in names:
            value: Any = getattr(workload, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not float(value) > 0:
                yield problem(workload, f"`{name}` is {value!r}", f"Make it {demand}.")


@rule(INTERFACE_RULES, "workload-hash", "a workload can be a static argument")
def _unstable_hash(workload: Any) -> Iterator[Problem]:
    try:
        same = workload == workload and hash(workload) == hash(workload)
    except TypeError as error:
        same, why = False, str(error)
    else:
        why = "it is not equal to itself"
    if not same:
        fix = "Make it hashable and equal to itself, by its name for example."
        yield problem(workload, f"it cannot be a static argument of jax.jit: {why}", fix)


@rule(INTERFACE_RULES, "workload-start", "the key determines parameters and model state")
def _wrong_start(workload: Any) -> Iterator[Problem]:
    started = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    if not isinstance(started, tuple) or len(started) != 2 or not jax.tree.leaves(started[0]):
        fix = "Return (params, model_state), with None for a model without state."
        yield problem(workload, "init_model_fn does not return (params, model_state)", fix)
        return
    again = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    if not _equal(started, again):
        fix = "Use only the key for random numbers: runs are repeated and compared by seeds."
        yield problem(workload, "the same key gives different initial parameters", fix)


@rule(INTERFACE_RULES, "workload-types", "every parameter array has a type")
def _wrong_types(workload: Any) -> Iterator[Problem]:
    params, _ = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    types, expected, algoperfs = map(
        jax.tree.structure, (workload.model_params_types, params, _in_lower_case(params))
    )
    if types not in (expected, algoperfs):
        fix = (
            "Give every array of the parameters one type, in the parameters' structure; keys may "
            "be in lower case."
        )
        yield problem(workload, f"model_params_types is {types}, params are {expected}", fix)


@rule(INTERFACE_RULES, "workload-shapes", "every parameter array has a shape_tuple")
def _wrong_shapes(workload: Any) -> Iterator[Problem]:
    params, _ = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    # JAX treats a ShapeTuple as a leaf.
    said = [getattr(leaf, "shape_tuple", None) for leaf in jax.tree.leaves(workload.param_shapes)]
    if said != [leaf.shape for leaf in jax.tree.leaves(params)]:
        fix = "Return a tree like the parameters, of spec.ShapeTuple(array.shape)."
        yield problem(workload, f"the shape_tuples of param_shapes are {said[:3]}", fix)


@rule(INTERFACE_RULES, "workload-queue", "the key determines batches, and a queue can resume")
def _wrong_queue(workload: Any) -> Iterator[Problem]:
    size = workload.reference_batch_size
    first, second = (training_queue(workload) for _ in range(2))
    batches = [next(first) for _ in range(_BATCHES)]
    fix = "Return dictionaries with `targets`, whose first axis is the batch."
    if not all(isinstance(batch, dict) and "targets" in batch for batch in batches):
        yield problem(workload, "training batches are not dictionaries with `targets`", fix)
        return
    sizes = {int(leaf.shape[0]) for batch in batches for leaf in jax.tree.leaves(batch["targets"])}
    # Batches of graphs end with graphs of padding.
    has_graphs = hasattr(batches[0].get("inputs"), "n_node")
    if sizes != {size} and not workload.is_fixed_batch and not has_graphs:
        yield problem(workload, f"`targets` have {sorted(sizes)} rows for batches of {size}", fix)
    if not _equal(batches, [next(second) for _ in range(_BATCHES)]):
        fix = "Let the order depend only on the key."
        yield problem(workload, "the same key gives different batches", fix)
    if not hasattr(first, "seek") or getattr(first, "position", None) != _BATCHES:
        fix = "Give the queue `position`, the number of batches taken, and `seek(position)`."
        yield problem(
            workload, "a run cannot resume: the queue lacks seek or the right position", fix
        )
        return
    first.seek(1)
    if not _equal(batches[1:], [next(first) for _ in range(_BATCHES - 1)]):
        fix = "Make seek(n) skip exactly the first n batches."
        yield problem(workload, "seek(1) does not give the second batch", fix)


@rule(INTERFACE_RULES, "workload-evaluation", "evaluation returns the metric of the targets")
def _wrong_evaluation(workload: Any) -> Iterator[Problem]:
    params, state = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    metrics = workload.eval_model(
        workload.eval_batch_size, params, state, jax.random.PRNGKey(_KEY), "", None, 0
    )
    target = getattr(workload, "target_metric_name", None) or workload.target_metric
    missing = [name for split in SPLITS if (name := f"{split}/{target}") not in metrics]
    if missing:
        fix = "Return the metric of the targets for the splits train, validation and test."
        yield problem(workload, f"eval_model returns no {', '.join(missing)}", fix)
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
    if bad:
        fix = "Check for a division by zero examples."
        yield problem(workload, f"{', '.join(bad)} are not finite at the start", fix)


def _in_lower_case(tree: Any) -> Any:
    """Return nested dictionaries with their keys in lower case."""
    if not isinstance(tree, dict):
        return tree
    return {
        key.lower() if isinstance(key, str) else key: _in_lower_case(value)
        for key, value in tree.items()
    }


def _equal(one: Any, other: Any) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)
