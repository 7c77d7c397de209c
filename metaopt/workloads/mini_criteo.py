"""A miniature of AlgoPerf's criteo1tb: generated clicks under a small DLRM.

Layers have AlgoPerf's names. The loss of the true probabilities is known:
:func:`metaopt.workloads.data.clicks.generate_clicks`.

References:
    Naumov et al., `Deep Learning Recommendation Model for Personalization and Recommendation
    Systems <https://arxiv.org/abs/1906.00091>`_, 2019.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.clicks import COUNTS, ROWS, load_clicks
from metaopt.workloads.losses import Loss
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.models.transformer import dropout
from metaopt.workloads.supervised import SupervisedWorkload


class Dlrm(nn.Module):
    """Counts through dense layers, ids through one table, their dot products through the rest."""

    rows: int  # of the table
    bottom: tuple[int, ...]  # widths of the layers for the counts; the last is the table's
    top: tuple[int, ...]  # widths of the layers for the dot products, before the output

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, dropout_rate: Any = 0.0
    ) -> jax.Array:
        """Map (n, 13 + columns), counts and then ids, to logits (n, 1)."""
        rate = dropout_rate if train else 0.0
        hidden, ids = inputs[:, :COUNTS], inputs[:, COUNTS:].astype(jnp.int32)
        for width in self.bottom:
            hidden = nn.relu(nn.Dense(width)(hidden))
        width = self.bottom[-1]
        table = self.param(
            "embedding_table", nn.initializers.normal(width**-0.5), (self.rows, width)
        )
        vectors = jnp.concatenate([hidden[:, None], table[ids % self.rows]], axis=1)
        products = jnp.einsum("nid,njd->nij", vectors, vectors)
        first, second = np.triu_indices(vectors.shape[1])
        hidden = jnp.concatenate([hidden, products[:, first, second]], axis=1)
        for width in self.top:
            hidden = nn.relu(nn.Dense(width)(hidden))
        return nn.Dense(1)(dropout(self, hidden, rate))


def click_loss(
    label_batch: Any, logits_batch: Any, mask_batch: Any = None, label_smoothing: float = 0.0
) -> dict[str, jax.Array]:
    """Return the sigmoid cross-entropy; label smoothing is ignored, as AlgoPerf's does."""
    del label_smoothing
    return Loss(LossType.SIGMOID_CROSS_ENTROPY)(label_batch, logits_batch, mask_batch)


MINI_CRITEO = SupervisedWorkload(
    name="mini_criteo",
    summary="generated clicks, DLRM with one table of embeddings (20,489 parameters)",
    load=functools.partial(load_clicks, train=81_920, held_out=2_048),
    whole={"train": 81_920, "validation": 2_048, "test": 2_048},
    model=Dlrm(rows=ROWS, bottom=(32, 16, 8), top=(32, 32, 16, 16)),
    has_modes=True,
    parameter_types=algoperf_types,
    output_layer="Dense_7",
    loss_type=LossType.SIGMOID_CROSS_ENTROPY,
    loss_fn=click_loss,
    metrics={},
    reference_batch_size=256,
    step_hint=300,
    eval_train_size=1_024,
    max_allowed_runtime_sec=30.0,
    eval_period_time_sec=2.0,
)
