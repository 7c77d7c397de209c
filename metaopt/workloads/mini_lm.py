"""AlgoPerf's ``finewebedu_lm`` in miniature: text from a Markov chain, a decoder-only Transformer.

Batches are those of the workload on AlgoPerf's branch ``dev`` (at commit 4c37f2aa; before, tokens
were one-hot): ``inputs`` and ``targets`` are numbers of tokens, (n, t), and a target is the token
after its input. ``weights`` are ``None`` in training and (n, t) in evaluation, where padded rows
hold the token -1 and weigh nothing. The model has no dropout. Logits are float32 here and bfloat16
there.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.data.markov_chain import MarkovChain
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.losses import Loss
from metaopt.workloads.models.decoder import DecoderOnlyTransformer
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.supervised import SupervisedWorkload

LENGTH = 24
PAD = -1
CHAIN = MarkovChain(tokens=8, successors=3, seed=7)
_COUNTS = {"train": 4_000, "validation": 200, "test": 200}
_LOSS = Loss(LossType.SOFTMAX_CROSS_ENTROPY)


def load_text() -> Arrays:
    """Draw the texts of each split, always the same: 4,000 / 200 / 200 of 24 tokens."""
    splits = {}
    for seed, (split, count) in enumerate(_COUNTS.items()):
        text = CHAIN.sample(count, LENGTH + 1, np.random.default_rng(seed))
        splits[split] = {"inputs": text[:, :-1], "targets": text[:, 1:]}
    return Arrays(**splits)


def without_weights(batch: Batch) -> Batch:
    """Return a training batch, whose ``weights`` are ``None``."""
    return {**batch, "weights": None}


def with_weights(batch: Batch) -> Batch:
    """Return a batch to evaluate with the weight of each token; padded rows hold ``PAD``."""
    tokens = {key: batch[key] for key in ("inputs", "targets")}
    if "weights" in batch:  # of each row
        is_text = batch["weights"][:, None] > 0
        tokens = {key: jnp.where(is_text, values, PAD) for key, values in tokens.items()}
    return {**tokens, "weights": (tokens["inputs"] != PAD).astype(jnp.float32)}


def perplexity(labels: jax.Array, logits: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the exponential of the mean loss of a token."""
    loss = _LOSS(labels, logits, mask)
    return jnp.exp(loss["summed"] / loss["n_valid_examples"])


MINI_LM = SupervisedWorkload(
    name="mini_lm",
    summary="text from a Markov chain, decoder-only Transformer (16,800 parameters)",
    load=load_text,
    whole=_COUNTS,
    complete=without_weights,
    complete_eval=with_weights,
    model=DecoderOnlyTransformer(vocabulary=CHAIN.tokens, width=32, inner=64, heads=2, layers=2),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metrics={"ppl": perplexity},
    parameter_types=algoperf_types,
    target_metric="ppl",
    reference_batch_size=16,
    step_hint=300,
    eval_train_size=60,
    max_allowed_runtime_sec=60.0,
    eval_period_time_sec=3.0,
)
