"""Cross-entropies and accuracies of logits; letters as in :mod:`metaopt.workloads.supervised`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from metaopt.bench.spec import LossType


def cross_entropy(
    loss_type: LossType,
    labels: jax.Array,
    logits: jax.Array,
    mask: jax.Array | None = None,
    label_smoothing: float = 0.0,
) -> dict[str, jax.Array]:
    """Return the loss ``summed`` over valid targets, their number, and ``per_example``.

    Smoothing mixes in the uniform distribution over all classes, the right one included, as
    AlgoPerf's losses do.

    Args:
        loss_type: Softmax or sigmoid cross-entropy.
        labels: Integers, the shape of the logits without classes.
        logits: (n, c) or (n, t, c); (n,) for the sigmoid.
        mask: 0 where a target does not count, the shape of the labels.
        label_smoothing: Share of the uniform distribution.
    """
    if loss_type is LossType.SOFTMAX_CROSS_ENTROPY:
        one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        smooth = optax.smooth_labels(one_hot, label_smoothing)
        per_example = optax.softmax_cross_entropy(logits, smooth)
    else:
        smooth = (1.0 - label_smoothing) * labels.astype(logits.dtype) + 0.5 * label_smoothing
        per_example = optax.sigmoid_binary_cross_entropy(logits, smooth)
    if mask is None:
        valid = jnp.asarray(float(per_example.size), per_example.dtype)
    else:
        per_example = per_example * mask
        valid = mask.sum()
    return {
        "summed": per_example.sum(),
        "n_valid_examples": valid,
        "per_example": per_example,
    }


def accuracy(
    loss_type: LossType, labels: jax.Array, logits: jax.Array, weights: jax.Array | None
) -> jax.Array:
    """Return the share of targets, weighted if there are weights, whose class is the likeliest."""
    if loss_type is LossType.SOFTMAX_CROSS_ENTROPY:
        predictions = logits.argmax(-1)
    else:
        predictions = jnp.int32(logits > 0.0)
    right = jnp.asarray(predictions == labels, jnp.float32)
    return right.mean() if weights is None else jnp.average(right, weights=weights)


def probabilities(loss_type: LossType, logits: Any) -> jax.Array:
    """Return what the logits say: probabilities of classes, or of class 1."""
    if loss_type is LossType.SOFTMAX_CROSS_ENTROPY:
        return jax.nn.softmax(logits)
    return jax.nn.sigmoid(logits)
