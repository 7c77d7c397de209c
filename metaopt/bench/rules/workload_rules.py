"""The contract of a workload, as rules: what runners and submissions rely on.

Every rule takes the workload itself. The data is loaded, and the model is compiled where a rule
needs its gradient; nothing is trained.
"""

import functools
import importlib
import numbers
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.bench.records import ALGOPERF_PREFIX
from metaopt.bench.records.failures import describe
from metaopt.bench.records.findings import Finding, Problem, Rule
from metaopt.workloads.data.queues import count
from metaopt.workloads.losses import Loss

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
_EXAMPLES = 4
_TOLERANCE = 1e-4
# Exceptions, by AlgoPerf's name: what declares one loss and computes another, and what stops at a
# mask with a weight for each example.
_ALGOPERFS_LOSSES = {"ogbg": LossType.SIGMOID_CROSS_ENTROPY}
_ALGOPERFS_WITHOUT_MASK = ("librispeech_conformer", "librispeech_deepspeech")


def load_workload(name: str) -> Any:
    """Return a workload by its name in the registry, or an object as ``package.module:object``.

    Raises:
        ValueError: There is no such workload, module or object.
    """
    module, colon, path = name.partition(":")
    if not colon:
        from metaopt.workloads.registry import get_workload

        return get_workload(name)
    try:
        return functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"No workload {name!r}: {describe(error)}") from None


def check_workload(workload: Any) -> list[Finding]:
    """Return what the rules find in a workload."""
    return [finding for rule in WORKLOAD_RULES for finding in rule.check(workload)]


def find_missing_parts(workload: Any) -> Iterator[Problem]:
    """Everything that runners read or call is there, and numbers are positive."""
    missing = [name for name in (*ATTRIBUTES, *FUNCTIONS) if not hasattr(workload, name)]
    wrong = [name for name in FUNCTIONS if not callable(getattr(workload, name, print))]
    if missing or wrong:
        yield _problem(workload, f"it lacks {', '.join(missing + wrong)}", "Add them.")
        return
    for names, kind, rule in (
        (COUNTS, numbers.Integral, "an integer of at least 1"),
        (SECONDS, numbers.Real, "a positive number"),
    ):
        for name in names:
            value = getattr(workload, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not value > 0:
                yield _problem(workload, f"`{name}` is {value!r}", f"Make it {rule}.")


def find_unstable_hash(workload: Any) -> Iterator[Problem]:
    """A workload can be a static argument of a jitted function."""
    try:
        same = workload == workload and hash(workload) == hash(workload)
    except TypeError as error:
        same, why = False, str(error)
    else:
        why = "it is not equal to itself"
    if not same:
        fix = "Make it hashable and equal to itself, by its name for example."
        yield _problem(workload, f"it cannot be a static argument of jax.jit: {why}", fix)


def find_wrong_start(workload: Any) -> Iterator[Problem]:
    """``init_model_fn`` returns parameters and model state, the same for the same key."""
    started = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    if not isinstance(started, tuple) or len(started) != 2 or not jax.tree.leaves(started[0]):
        fix = "Return (params, model_state); None for a model without a state."
        yield _problem(workload, "init_model_fn returns no pair with parameters in it", fix)
        return
    again = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    if not _equal(started, again):
        fix = "Draw from the key alone: runs are repeated and compared by their seeds."
        yield _problem(workload, "the same key gives another start", fix)


def find_wrong_types(workload: Any) -> Iterator[Problem]:
    """``model_params_types`` has the structure of the parameters."""
    params, _ = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    types, expected = jax.tree.structure(workload.model_params_types), jax.tree.structure(params)
    if types != expected:
        fix = "Give every array of the parameters one type, in the parameters' structure."
        yield _problem(workload, f"model_params_types is {types}, params are {expected}", fix)


def find_wrong_shapes(workload: Any) -> Iterator[Problem]:
    """``param_shapes`` has the parameters' shapes, as AlgoPerf's submissions read them."""
    params, _ = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    # A shape has no leaves that JAX would look into.
    said = [getattr(leaf, "shape_tuple", None) for leaf in jax.tree.leaves(workload.param_shapes)]
    if said != [leaf.shape for leaf in jax.tree.leaves(params)]:
        fix = "Return a tree like the parameters, of spec.ShapeTuple(array.shape)."
        yield _problem(workload, f"the shape_tuples of param_shapes are {said[:3]}", fix)


def find_wrong_queue(workload: Any) -> Iterator[Problem]:
    """Training batches are of the size asked for, follow from the key, and can be returned to."""
    size = workload.reference_batch_size
    first, second = (_training_queue(workload) for _ in range(2))
    batches = [next(first) for _ in range(_BATCHES)]
    fix = "Return dictionaries with `targets`, whose first axis is the batch."
    if not all(isinstance(batch, dict) and "targets" in batch for batch in batches):
        yield _problem(workload, "training batches are no dictionaries with `targets`", fix)
        return
    sizes = {int(leaf.shape[0]) for batch in batches for leaf in jax.tree.leaves(batch["targets"])}
    if sizes != {size} and not workload.is_fixed_batch:
        yield _problem(workload, f"batches of {size} are of {sorted(sizes)}", fix)
    if not _equal(batches, [next(second) for _ in range(_BATCHES)]):
        fix = "Let the order depend on the key alone."
        yield _problem(workload, "the same key gives other batches", fix)
    if not hasattr(first, "seek") or getattr(first, "position", None) != _BATCHES:
        fix = "Give the queue a `position`, the batches taken so far, and `seek(position)`."
        yield _problem(workload, "a run cannot go on where it was: no position, no seek", fix)
        return
    first.seek(1)
    if not _equal(batches[1:], [next(first) for _ in range(_BATCHES - 1)]):
        fix = "After seek(n) the next batch is the one that follows n batches from the start."
        yield _problem(workload, "after seek(1) other batches follow", fix)


def find_wrong_loss(workload: Any) -> Iterator[Problem]:
    """The loss is the sum over examples, is finite, and its gradient is so too."""
    batch, params, state = _start(workload)

    def loss_of(params: Any) -> tuple[Any, Any]:
        logits, _ = workload.model_fn(
            params, batch, state, mode=ForwardPassMode.TRAIN, rng=jax.random.PRNGKey(_KEY),
            update_batch_norm=True,
        )  # fmt: skip
        loss = workload.loss_fn(batch["targets"], logits, mask_batch=batch.get("weights"))
        return loss["summed"] / loss["n_valid_examples"], loss

    (mean, loss), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    if not np.isclose(loss["per_example"].sum(), loss["summed"], rtol=_TOLERANCE):
        fix = "Let `summed` be the sum of `per_example`, where masked examples count 0."
        yield _problem(workload, "`summed` is not the sum of `per_example`", fix)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((mean, gradient))):
        fix = "Check the start and the scale of the inputs."
        yield _problem(workload, "loss or gradient are not finite at the start", fix)


def find_undeclared_loss(workload: Any) -> Iterator[Problem]:
    """``loss_fn`` computes the loss that ``loss_type`` declares, with and without a mask."""
    declared = workload.loss_type
    if declared is None:
        fix = "Nothing is wrong: submissions are told no type."
        what = "loss_type is None, so loss_fn is compared with nothing"
        yield _problem(workload, what, fix)._replace(severity="note")
        return
    if not isinstance(declared, LossType):
        fix = "Use a member of metaopt.bench.contract.spec.LossType, or None for a loss of no type."
        yield _problem(workload, f"loss_type is {declared!r}, which is no LossType", fix)
        return
    computed = _ALGOPERFS_LOSSES.get(_name_in_algoperf(workload), declared)
    if computed is not declared:
        what = f"it declares {declared.name} and computes {computed.name}, which is known"
        yield _problem(workload, what, "Nothing to do.")._replace(severity="note")
    targets, logits, weights = _a_few(workload)
    masks = {"": weights}
    if _name_in_algoperf(workload) not in _ALGOPERFS_WITHOUT_MASK:
        masks[" with a mask of ones"] = _whole_mask(workload, targets, logits, weights)
    for how, mask in masks.items():
        found, expected = (
            float(loss["summed"] / loss["n_valid_examples"])
            for loss_fn in (workload.loss_fn, Loss(computed))
            for loss in [jax.jit(loss_fn)(targets, logits, mask)]
        )
        if not np.isclose(found, expected, rtol=_TOLERANCE, atol=1e-6):
            yield _problem(
                workload,
                f"{computed.name}, which loss_type says, is {expected:.6g} on a few numbers{how}; "
                f"loss_fn gives {found:.6g}",
                "Compute the declared loss, as metaopt.workloads.losses.Loss does, or declare the "
                "type that is computed; None if it is of no type.",
            )
            return


def find_ignored_mask(workload: Any) -> Iterator[Problem]:
    """Examples with weight 0 do not count."""
    if _name_in_algoperf(workload) in _ALGOPERFS_WITHOUT_MASK:
        return
    targets, logits, weights = _a_few(workload)
    if count(targets) < 2:
        return
    kept = _whole_mask(workload, targets, logits, weights).at[-1].set(0)
    loss_fn = jax.jit(workload.loss_fn)
    masked = loss_fn(targets, logits, kept)
    fewer = loss_fn(*jax.tree.map(lambda leaf: leaf[:-1], (targets, logits, kept)))
    if not np.isclose(masked["n_valid_examples"], fewer["n_valid_examples"]):
        fix = "Let `n_valid_examples` be the sum of `mask_batch`, where there is one."
        yield _problem(workload, "`n_valid_examples` counts masked examples", fix)
    if not np.isclose(masked["summed"], fewer["summed"], rtol=_TOLERANCE):
        fix = "Multiply the losses by `mask_batch` before they are summed."
        yield _problem(workload, "`summed` counts masked examples", fix)


def find_wrong_evaluation(workload: Any) -> Iterator[Problem]:
    """``eval_model`` returns finite numbers named by split, and the metric of the targets."""
    params, state = workload.init_model_fn(jax.random.PRNGKey(_KEY))
    metrics = workload.eval_model(
        workload.eval_batch_size, params, state, jax.random.PRNGKey(_KEY), "", None, 0
    )
    target = getattr(workload, "target_metric_name", None) or workload.target_metric
    missing = [name for split in SPLITS if (name := f"{split}/{target}") not in metrics]
    if missing:
        fix = "Return the metric of the targets for the splits train, validation and test."
        yield _problem(workload, f"eval_model returns no {', '.join(missing)}", fix)
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
    if bad:
        fix = "Look for examples that are counted as none."
        yield _problem(workload, f"{', '.join(bad)} are not finite at the start", fix)


def _guarded(find: Callable[[Any], Iterator[Problem]]) -> Callable[[Any], Iterator[Problem]]:
    """Return a rule for which an exception is a problem too, if nothing is missing."""

    def find_or_blame(workload: Any) -> Iterator[Problem]:
        if any(find_missing_parts(workload)):
            return
        try:
            with pinned_randomness():
                yield from find(workload)
        except Exception as error:  # whatever a workload raises
            place = traceback.extract_tb(error.__traceback__)[-1]
            fix = f"See {Path(place.filename).name}:{place.lineno}, in {place.name}."
            yield _problem(workload, f"it raises {describe(error)}", fix)

    return find_or_blame


WORKLOAD_RULES = (
    Rule("workload-interface", "runners find what they read and call", find_missing_parts),
    *(
        Rule(id, title, _guarded(find))
        for id, title, find in (
            ("workload-hash", "a workload can be a static argument", find_unstable_hash),
            ("workload-start", "parameters and state follow from the key", find_wrong_start),
            ("workload-types", "every array of parameters has a type", find_wrong_types),
            ("workload-shapes", "every array of parameters has a shape_tuple", find_wrong_shapes),
            ("workload-queue", "batches follow from the key, and again", find_wrong_queue),
            ("workload-loss", "the loss is a finite sum over examples", find_wrong_loss),
            ("workload-loss-type", "the loss is of the declared type", find_undeclared_loss),
            ("workload-mask", "masked examples do not count", find_ignored_mask),
            ("workload-evaluation", "evaluation has the targets' metric", find_wrong_evaluation),
        )
    ),
)


def _training_queue(workload: Any) -> Any:
    return workload._build_input_queue(
        np.array([0, 1], np.uint32), "train", data_dir="",
        global_batch_size=workload.reference_batch_size,
    )  # fmt: skip


def _start(workload: Any) -> tuple[Any, Any, Any]:
    """Return a training batch, parameters and model state."""
    return next(_training_queue(workload)), *workload.init_model_fn(jax.random.PRNGKey(_KEY))


def _a_few(workload: Any) -> tuple[Any, Any, Any]:
    """Return the targets of a few examples, random logits for them, and weights or ``None``."""
    batch, params, state = _start(workload)
    shapes, _ = jax.eval_shape(
        lambda params, state: workload.model_fn(
            params, batch, state, mode=ForwardPassMode.TRAIN, rng=jax.random.PRNGKey(_KEY),
            update_batch_norm=True,
        ),
        params, state,
    )  # fmt: skip
    random = np.random.default_rng(_KEY)
    logits = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    if workload.loss_type is LossType.CTC_LOSS and isinstance(logits, tuple):
        logits = logits[0], np.zeros_like(logits[1])  # paddings: every frame is there
    whole = batch["targets"], logits, batch.get("weights")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[:_EXAMPLES]), whole)


def _whole_mask(workload: Any, targets: Any, logits: Any, weights: Any) -> jax.Array:
    """Return the weights, or ones in the shape of the workload's own losses."""
    if weights is not None:
        return weights
    loss = jax.eval_shape(workload.loss_fn, targets, logits)
    return jnp.ones(loss["per_example"].shape, jnp.float32)


def _name_in_algoperf(workload: Any) -> str:
    """Return the base name of a workload of AlgoPerf's own; of others, nothing."""
    return workload.base_name if workload.name.startswith(ALGOPERF_PREFIX) else ""


def _equal(one: Any, other: Any) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def _problem(workload: Any, what: str, fix: str) -> Problem:
    return Problem(what, str(getattr(workload, "name", workload)), fix)
