"""The losses and metrics of AlgoPerf's loss types.

Letters: n examples, c classes, t positions or frames, k tokens. Labels and logits by type:

* softmax cross-entropy: labels (n,) or (n, t) of class numbers, or distributions over the classes
  with the shape of the logits; logits (n, c) or (n, t, c);
* sigmoid cross-entropy, squared and absolute error: labels and logits of one shape; logits may have
  a last axis of length 1 besides;
* CTC: labels ``(tokens, paddings)``, both (n, k); logits ``(logits, paddings)``, (n, t, c) and
  (n, t). A padding is 1 at empty positions. Class 0 is the blank.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metaopt.bench.contract.spec import LossType

BLANK = 0  # AlgoPerf's

# (label_batch, logits_batch, mask_batch, label_smoothing) -> summed, n_valid_examples, per_example
LossFn = Callable[..., dict[str, Any]]
# (label_batch, logits_batch, mask_batch) -> the mean over the valid targets of a batch
Metric = Callable[[Any, Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Loss:
    """AlgoPerf's ``loss_fn`` for a loss type.

    Label smoothing mixes in the uniform distribution over all classes, the right one included, as
    AlgoPerf does; over the two classes 0 and 1 for the sigmoid. The other types ignore it, as
    AlgoPerf's workloads do.

    Args:
        loss_type: One of AlgoPerf's types; ``None``, the type of workloads with a custom loss, is
            not allowed.

    Raises:
        ValueError: ``loss_type`` is not one of AlgoPerf's types.
    """

    loss_type: LossType | None

    def __post_init__(self) -> None:
        """Check the type."""
        _kind(self.loss_type)

    def __call__(
        self,
        label_batch: Any,
        logits_batch: Any,
        mask_batch: Any = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, jax.Array]:
        """Return the loss ``summed`` over valid targets, their number, and ``per_example``.

        Args:
            label_batch: The targets of a batch.
            logits_batch: The model's output for it.
            mask_batch: Weights, 0 for masked targets, with the shape of ``per_example`` or of its
                first axes; one weight per example always works.
            label_smoothing: The share of the uniform distribution, in [0, 1].

        Raises:
            ValueError: The shapes of labels, logits and mask do not match.
        """
        kind = _kind(self.loss_type)
        per_example = kind.per_example(label_batch, logits_batch, label_smoothing)
        weights = None
        if mask_batch is not None:
            weights = _like(mask_batch, per_example)
            per_example = per_example * weights
        return {
            "summed": per_example.sum(),
            "n_valid_examples": kind.count(label_batch, per_example, weights),
            "per_example": per_example,
        }

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of the type beside the loss, by name."""
        return _kind(self.loss_type).metrics

    def activation(self, logits: Any) -> Any:
        """Return the probabilities that logits stand for; predictions of numbers stay as is."""
        return _kind(self.loss_type).activation(logits)


def _kind(loss_type: Any) -> "_Kind":
    # A look-up alone would fail with a TypeError for values that are not hashable.
    if not isinstance(loss_type, LossType):
        known = [member.name for member in LossType]
        raise ValueError(f"`loss_type` must be a LossType, one of {known}, got {loss_type!r}.")
    return _KINDS[loss_type]


# The loss of each example.


def _softmax_cross_entropy(labels: Any, logits: Any, smoothing: float) -> jax.Array:
    if labels.ndim == logits.ndim - 1:
        labels = jax.nn.one_hot(labels.astype(jnp.int32), logits.shape[-1], dtype=logits.dtype)
    _demand_shape(labels, logits.shape, "class numbers, or distributions, for logits of shape")
    smooth = optax.smooth_labels(labels.astype(logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, smooth)


def _sigmoid_cross_entropy(labels: Any, logits: Any, smoothing: float) -> jax.Array:
    labels, logits = _of_one_shape(labels, logits)
    smooth = (1.0 - smoothing) * labels + 0.5 * smoothing
    return optax.sigmoid_binary_cross_entropy(logits, smooth)


def _squared_error(labels: Any, logits: Any, smoothing: float) -> jax.Array:
    del smoothing
    labels, logits = _of_one_shape(labels, logits)
    return _mean_of_example(jnp.square(logits - labels))


def _absolute_error(labels: Any, logits: Any, smoothing: float) -> jax.Array:
    del smoothing
    labels, logits = _of_one_shape(labels, logits)
    return _mean_of_example(jnp.abs(logits - labels))


def _ctc(labels: Any, logits: Any, smoothing: float) -> jax.Array:
    del smoothing
    (tokens, token_paddings), (logits, paddings) = _pair(labels, "labels"), _pair(logits, "logits")
    return optax.ctc_loss(
        logits, paddings.astype(logits.dtype), tokens.astype(jnp.int32),
        token_paddings.astype(logits.dtype), blank_id=BLANK,
    )  # fmt: skip


# How many targets count.


def _count_losses(labels: Any, per_example: jax.Array, weights: jax.Array | None) -> jax.Array:
    del labels
    if weights is None:
        return jnp.asarray(float(per_example.size), per_example.dtype)
    return weights.sum()


def _count_tokens(labels: Any, per_example: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Return the number of tokens, at least 1, as AlgoPerf divides the CTC loss."""
    there = 1.0 - labels[1].astype(per_example.dtype)
    if weights is not None:
        there = there * weights[:, None]
    return jnp.maximum(there.sum(), 1.0)


# Metrics.


def _accuracy_of_softmax(labels: Any, logits: Any, mask: Any) -> jax.Array:
    classes = labels.argmax(-1) if labels.ndim == logits.ndim else labels.astype(jnp.int32)
    return _mean(logits.argmax(-1) == classes, mask)


def _accuracy_of_sigmoid(labels: Any, logits: Any, mask: Any) -> jax.Array:
    labels, logits = _of_one_shape(labels, logits)
    return _mean((logits > 0.0) == (labels > 0.5), mask)


def _mean_loss(loss_type: LossType) -> Metric:
    def metric(labels: Any, logits: Any, mask: Any) -> jax.Array:
        loss = Loss(loss_type)(labels, logits, mask)
        return loss["summed"] / loss["n_valid_examples"]

    return metric


def _error_rate(labels: Any, logits: Any, mask: Any) -> jax.Array:
    """Return the edits from the decoded to the true tokens, over the number of true tokens."""
    edits = edit_distances(labels, logits)
    weights = None if mask is None else _like(mask, edits)
    wrong = edits.sum() if weights is None else (edits * weights).sum()
    return wrong / _count_tokens(labels, edits, weights)


def edit_distances(labels: Any, logits: Any) -> jax.Array:
    """Return each example's edit distance from the greedily decoded tokens to the true ones, (n,).

    Greedy decoding takes the likeliest class of each frame, merges repeats, and drops blanks.
    """
    (tokens, token_paddings), (logits, paddings) = labels, logits
    tokens, best = tokens.astype(jnp.int32), logits.argmax(-1)
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=BLANK)
    is_token = (best != BLANK) & (best != before) & (paddings == 0)
    places = jnp.arange(tokens.shape[1] + 1)[None]

    # Entry j of the row: the edit distance from the decoded tokens to the first j true tokens.
    def read(row: jax.Array, frame: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        token, counts = frame
        wrong = jnp.asarray(tokens != token[:, None], row.dtype)
        longer = (row + 1).at[:, 1:].min(row[:, :-1] + wrong)
        # A true token that is left out costs 1 more than the shorter row: a running minimum.
        longer = places + jax.lax.cummin(longer - places, axis=1)
        return jnp.where(counts[:, None], longer, row), None

    empty = jnp.broadcast_to(places, (len(tokens), places.shape[1]))
    row, _ = jax.lax.scan(read, empty, (best.T, is_token.T))
    lengths = (token_paddings == 0).sum(1)
    return jnp.take_along_axis(row, lengths[:, None], axis=1)[:, 0].astype(jnp.float32)


# Shapes.


def _of_one_shape(labels: Any, logits: Any) -> tuple[jax.Array, jax.Array]:
    """Return both in the shape of the labels and the dtype of the logits."""
    if logits.shape == (*labels.shape, 1):
        logits = logits[..., 0]
    _demand_shape(labels, logits.shape, "the shape of the logits")
    return labels.astype(logits.dtype), logits


def _demand_shape(labels: Any, shape: tuple[int, ...], rule: str) -> None:
    # Never broadcast: (n,) against (n, 1) would be n * n differences.
    if labels.shape != shape:
        raise ValueError(f"`label_batch` must have {rule} {shape}, got shape {labels.shape}.")


def _pair(value: Any, name: str) -> Any:
    if not isinstance(value, tuple | list) or len(value) != 2:
        shape = getattr(value, "shape", None)
        got = type(value).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"The {name} of CTC must be a pair ({name}, paddings), got {got}.")
    return value


def _mean_of_example(errors: jax.Array) -> jax.Array:
    return errors.mean(axis=tuple(range(1, errors.ndim)))


def _like(mask: Any, per_example: jax.Array) -> jax.Array:
    """Return the mask in the shape of the losses: an example's weight holds for all of them."""
    mask = jnp.asarray(mask).astype(per_example.dtype)
    if mask.shape != per_example.shape[: mask.ndim]:
        raise ValueError(
            f"`mask_batch` must have the shape of the losses, {per_example.shape}, or of their "
            f"first axes, got {mask.shape}."
        )
    ones = (1,) * (per_example.ndim - mask.ndim)
    return jnp.broadcast_to(mask.reshape(mask.shape + ones), per_example.shape)


def _mean(values: jax.Array, mask: Any) -> jax.Array:
    values = values.astype(jnp.float32)
    return values.mean() if mask is None else jnp.average(values, weights=_like(mask, values))


def _unchanged(logits: Any) -> Any:
    return logits


@dataclasses.dataclass(frozen=True)
class _Kind:
    """The functions of a loss type."""

    per_example: Callable[[Any, Any, float], jax.Array]
    activation: Callable[[Any], Any]
    metrics: Mapping[str, Metric]
    count: Callable[[Any, jax.Array, jax.Array | None], jax.Array] = _count_losses


_ABSOLUTE = {"mean_absolute_error": _mean_loss(LossType.MEAN_ABSOLUTE_ERROR)}
_SQUARED = {"mean_squared_error": _mean_loss(LossType.MEAN_SQUARED_ERROR)}
_KINDS = {
    LossType.SOFTMAX_CROSS_ENTROPY: _Kind(
        _softmax_cross_entropy, jax.nn.softmax, {"accuracy": _accuracy_of_softmax}
    ),
    LossType.SIGMOID_CROSS_ENTROPY: _Kind(
        _sigmoid_cross_entropy, jax.nn.sigmoid, {"accuracy": _accuracy_of_sigmoid}
    ),
    LossType.MEAN_SQUARED_ERROR: _Kind(_squared_error, _unchanged, _ABSOLUTE),
    LossType.MEAN_ABSOLUTE_ERROR: _Kind(_absolute_error, _unchanged, _SQUARED),
    LossType.CTC_LOSS: _Kind(_ctc, jax.nn.softmax, {"error_rate": _error_rate}, _count_tokens),
}
