"""Rules on a workload's loss: a finite sum, of the declared type, with a mask.

The model is compiled if a rule needs its gradient.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.bench.records import ALGOPERF_PREFIX
from metaopt.bench.records.findings import Problem, Rule
from metaopt.bench.rules.rule_lists import rule
from metaopt.bench.rules.workload_rules import problem, training_queue
from metaopt.workloads.data.queues import count
from metaopt.workloads.losses import Loss

_KEY = 0
_EXAMPLES = 4
_TOLERANCE = 1e-4
_MINI, _FIXED = "mini_", "_fixed"  # parts of names
# Exceptions, by AlgoPerf's name: a workload that computes a loss other than the declared one, and
# workloads that fail with a mask of one weight per example.
_ALGOPERFS_LOSSES = {"ogbg": LossType.SIGMOID_CROSS_ENTROPY}
_ALGOPERFS_WITHOUT_MASK = ("librispeech_conformer", "librispeech_deepspeech")

LOSS_RULES: list[Rule] = []


@rule(LOSS_RULES, "workload-loss", "the loss is a finite sum over examples")
def _wrong_loss(workload: Any) -> Iterator[Problem]:
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
        fix = "Return the sum of `per_example`, with 0 for masked examples, as `summed`."
        yield problem(workload, "`summed` is not the sum of `per_example`", fix)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((mean, gradient))):
        fix = "Check the initial parameters and the scale of the inputs."
        yield problem(workload, "loss or gradient are not finite at the start", fix)


@rule(LOSS_RULES, "workload-loss-type", "the loss is of the declared type")
def _undeclared_loss(workload: Any) -> Iterator[Problem]:
    declared = workload.loss_type
    if declared is None:
        fix = "This is allowed: submissions then see no type."
        what = "loss_type is None, so loss_fn cannot be compared with a type"
        yield problem(workload, what, fix, "note")
        return
    if not isinstance(declared, LossType):
        fix = "Use a member of metaopt.bench.contract.spec.LossType, or None for a loss of no type."
        yield problem(workload, f"loss_type is {declared!r}, which is not a LossType", fix)
        return
    computed = _ALGOPERFS_LOSSES.get(_name_in_algoperf(workload), declared)
    if computed is not declared:
        what = f"it declares {declared.name} and computes {computed.name}, a known exception"
        yield problem(workload, what, "Nothing to do.", "note")
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
            yield problem(
                workload,
                f"{computed.name}, by loss_type, is {expected:.6g} on a few numbers{how}; "
                f"loss_fn gives {found:.6g}",
                "Compute the declared loss, as metaopt.workloads.losses.Loss does, or declare the "
                "computed type, None for a loss of no type.",
            )
            return


@rule(LOSS_RULES, "workload-mask", "masked examples do not count")
def _ignored_mask(workload: Any) -> Iterator[Problem]:
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
        fix = "Return the sum of `mask_batch`, if there is one, as `n_valid_examples`."
        yield problem(workload, "`n_valid_examples` counts masked examples", fix)
    if not np.isclose(masked["summed"], fewer["summed"], rtol=_TOLERANCE):
        fix = "Multiply the losses by `mask_batch` before they are summed."
        yield problem(workload, "`summed` counts masked examples", fix)


def _start(workload: Any) -> tuple[Any, Any, Any]:
    """Return a training batch, parameters and model state."""
    return next(training_queue(workload)), *workload.init_model_fn(jax.random.PRNGKey(_KEY))


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
        logits = logits[0], np.zeros_like(logits[1])  # paddings: all frames are valid
    whole = batch["targets"], logits, batch.get("weights")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[:_EXAMPLES]), whole)


def _whole_mask(workload: Any, targets: Any, logits: Any, weights: Any) -> jax.Array:
    """Return the weights, or ones in the shape of the workload's own losses."""
    if weights is not None:
        return weights
    loss = jax.eval_shape(workload.loss_fn, targets, logits)
    return jnp.ones(loss["per_example"].shape, jnp.float32)


def _name_in_algoperf(workload: Any) -> str:
    """Return AlgoPerf's base name of a workload or of a miniature; empty for others."""
    if workload.name.startswith(_MINI):
        return workload.name.removeprefix(_MINI).removesuffix(_FIXED)
    return workload.base_name if workload.name.startswith(ALGOPERF_PREFIX) else ""
