"""AlgoPerf's ``wmt`` in miniature: from numbers as digits to English words, a Transformer.

As there, training rows hold several pairs and say which, evaluated rows hold one pair, every batch
has weights, and one embedding serves both languages and the output.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.number_words import END, LENGTH, PAD, VOCABULARY, load_numbers
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.models.packed_transformer import (
    PackedNetwork,
    PackedTransformer,
)
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.models.transformer import greedy
from metaopt.workloads.supervised import SupervisedWorkload

_ORDERS = 4
_KEYS = "inputs", "targets"
MODEL = PackedTransformer(vocabulary=len(VOCABULARY), width=32, inner=64, heads=2, layers=1)


def weigh(batch: Batch) -> Batch:
    """Return a training batch with weights: 1 where a target is, as int32."""
    return {**batch, "weights": (batch["targets"] != PAD).astype(jnp.int32)}


def unpack(batch: Batch) -> Batch:
    """Return a batch to evaluate: the first pair of each row, and weights.

    The weights are int32, but bool in a padded batch.
    """
    rows = {key: batch[key] for key in _KEYS}
    for key in _KEYS:
        if f"{key}_segmentation" in batch:
            rows[key] = jnp.where(batch[f"{key}_segmentation"] == 1, batch[key], PAD)
    there = rows["targets"] != PAD
    if "weights" in batch:
        return {**rows, "weights": there & (batch["weights"] > 0)[:, None]}
    return {**rows, "weights": there.astype(jnp.int32)}


def token_bleu(translations: jax.Array, references: jax.Array) -> jax.Array:
    r"""Return sacrebleu's corpus score, from 0 to 100, of tokens.

    With :math:`p_k` the share of the translations' k-grams that are in their reference, each as
    often as there at most, and lengths h and r of translations and references, it is

    .. math:: 100 \min(1, e^{1 - r / h}) (p_1 p_2 p_3 p_4)^{1/4}

    The i-th of the orders without a match counts :math:`2^{-i}` matches.

    Args:
        translations: Sentences, (n, t); tokens from END or PAD on do not count.
        references: Sentences, (n, t).
    """
    lengths = [_lengths(tokens) for tokens in (translations, references)]
    logs, smooth = jnp.float32(0.0), jnp.float32(1.0)
    for order in range(1, _ORDERS + 1):
        (ours, is_ours), (theirs, is_theirs) = (
            _ngrams(tokens, length, order)
            for tokens, length in zip((translations, references), lengths, strict=True)
        )
        same = (ours[:, :, None] == ours[:, None]) & is_ours[:, None]
        earlier = jnp.tril(same, -1).sum(-1)
        there = ((ours[:, :, None] == theirs[:, None]) & is_theirs[:, None]).sum(-1)
        matches = ((earlier < there) & is_ours).sum().astype(jnp.float32)
        smooth = jnp.where(matches == 0, smooth / 2, smooth)
        total = jnp.maximum(is_ours.sum().astype(jnp.float32), 1.0)
        logs += jnp.log(jnp.where(matches == 0, smooth, matches) / total)
    ours, theirs = (length.sum().astype(jnp.float32) for length in lengths)
    brevity = jnp.minimum(0.0, 1.0 - theirs / jnp.maximum(ours, 1.0))
    return jnp.where(ours > 0, 100.0 * jnp.exp(brevity + logs / _ORDERS), 0.0)


def _lengths(tokens: jax.Array) -> jax.Array:
    is_word = (tokens != END) & (tokens != PAD)
    return jnp.cumprod(is_word.astype(jnp.int32), axis=1).sum(1)


def _ngrams(tokens: jax.Array, lengths: jax.Array, order: int) -> tuple[jax.Array, jax.Array]:
    """Return a number for the n-gram at each place, and whether one is there, both (n, t)."""
    size = tokens.shape[1]
    padded = jnp.pad(tokens, ((0, 0), (0, order)))
    numbers = sum(padded[:, i : i + size] * len(VOCABULARY) ** i for i in range(order))
    return jnp.asarray(numbers), jnp.arange(size)[None] + order <= lengths[:, None]


@dataclasses.dataclass(frozen=True)
class TokenBleu:
    """BLEU of greedy translations of the first ``sentences`` of each split."""

    sentences: int

    names = ("train/bleu", "validation/bleu", "test/bleu")

    def __call__(
        self, workload: SupervisedWorkload, params: Any, model_state: Any
    ) -> dict[str, float]:
        """Return the score of each split."""
        del model_state
        rows = [
            {key: array[: self.sentences] for key, array in workload.arrays[split].items()}
            for split in ("train", "validation", "test")
        ]
        scores = jax.device_get(_scores(workload.model, params, rows))
        return dict(zip(self.names, map(float, scores), strict=True))


@functools.partial(jax.jit, static_argnums=0)
def _scores(model: PackedTransformer, params: Any, splits: list[Batch]) -> list[jax.Array]:
    """Return the score of each of several splits of one size; they are decoded together."""
    rows = [unpack(batch) for batch in splits]
    inputs = jnp.concatenate([row["inputs"] for row in rows])
    parts = jnp.split(greedy(model, params, inputs, LENGTH, END), len(rows))
    return [token_bleu(part, row["targets"]) for part, row in zip(parts, rows, strict=True)]


MINI_WMT = SupervisedWorkload(
    name="mini_wmt",
    summary="numbers as digits to English words, Transformer (22,528 parameters)",
    load=load_numbers,
    whole={"train": 4_789, "validation": 200, "test": 200},
    model=MODEL,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    complete=weigh,
    complete_eval=unpack,
    model_inputs=(
        *_KEYS,
        *(f"{key}_{what}" for what in ("position", "segmentation") for key in _KEYS),
    ),
    network_type=PackedNetwork,
    has_modes=True,
    dropout_rate=0.1,
    more_metrics=TokenBleu(sentences=128),
    target_metric="bleu",
    parameter_types=algoperf_types,
    output_layer="shared_embedding",
    reference_batch_size=12,
    step_hint=400,
    eval_period=50,
    eval_train_size=60,
    max_allowed_runtime_sec=60.0,
    eval_period_time_sec=3.0,
)
