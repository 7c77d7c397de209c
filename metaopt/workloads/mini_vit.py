"""A miniature of AlgoPerf's imagenet_vit: noisy digits under a vision Transformer.

Training batches are mixed up: each image with the one before it in the batch, by one weight for the
whole batch. Their targets are distributions over the classes; those of evaluation batches are
class numbers. Layers have AlgoPerf's names. The model state is ``{}`` at the start and ``None``
after the first step, as AlgoPerf's, so a step is compiled twice.

References:
    Zhang et al., `mixup: Beyond Empirical Risk Minimization <https://arxiv.org/abs/1710.09412>`_,
    2018.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.data.scikit_learn import load_noisy_digits
from metaopt.workloads.models.convolution import convolve_by_matrix
from metaopt.workloads.models.network import Network
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.models.transformer import dropout
from metaopt.workloads.supervised import SupervisedWorkload

CLASSES = 10
MIXUP_ALPHA = 0.2  # AlgoPerf's
_XAVIER = nn.initializers.xavier_uniform()
_SMALL = nn.initializers.normal(1e-6)


class MlpBlock(nn.Module):
    """Two dense layers with GELU between them."""

    inner: int

    @nn.compact
    def __call__(self, tokens: jax.Array, rate: Any) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        hidden = nn.gelu(nn.Dense(self.inner, kernel_init=_XAVIER, bias_init=_SMALL)(tokens))
        contract = nn.Dense(tokens.shape[-1], kernel_init=_XAVIER, bias_init=_SMALL)
        return contract(dropout(self, hidden, rate))


class ViTBlock(nn.Module):
    """Self-attention and two dense layers, each on normalised tokens and added to its input."""

    inner: int
    heads: int

    @nn.compact
    def __call__(self, tokens: jax.Array, rate: Any) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        attention = nn.MultiHeadDotProductAttention(
            self.heads, kernel_init=_XAVIER, name="MultiHeadDotProductAttention_1"
        )
        attended = attention(nn.LayerNorm(name="LayerNorm_0")(tokens))
        tokens = tokens + dropout(self, attended, rate)
        normed = nn.LayerNorm(name="LayerNorm_2")(tokens)
        return tokens + dropout(self, MlpBlock(self.inner, name="MlpBlock_3")(normed, rate), rate)


class Encoder(nn.Module):
    """Blocks and a last normalisation."""

    inner: int
    heads: int
    layers: int

    @nn.compact
    def __call__(self, tokens: jax.Array, rate: Any) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        for layer in range(self.layers):
            block = ViTBlock(self.inner, self.heads, name=f"encoderblock_{layer}")
            tokens = block(tokens, rate)
        return nn.LayerNorm(name="encoder_layernorm")(tokens)


class ViT(nn.Module):
    """Patches of 2 x 2 pixels as tokens, an encoder, the mean over tokens, two dense layers."""

    width: int
    inner: int
    heads: int
    layers: int

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, dropout_rate: Any = 0.0
    ) -> jax.Array:
        """Map images (n, h, w, c) to logits (n, 10)."""
        rate = dropout_rate if train else 0.0
        patches = nn.Conv(
            self.width, (2, 2), 2, "VALID", conv_general_dilated=convolve_by_matrix,
            name="conv_patch_extract",
        )(inputs)  # fmt: skip
        tokens = patches.reshape(len(inputs), -1, self.width)
        tokens = tokens + fixed_positions(tokens.shape[1], self.width)[None]
        tokens = dropout(self, tokens, rate)
        tokens = Encoder(self.inner, self.heads, self.layers, name="Transformer")(tokens, rate)
        hidden = nn.tanh(nn.Dense(self.width, name="pre_logits")(tokens.mean(1)))
        return nn.Dense(CLASSES, kernel_init=nn.initializers.zeros, name="head")(hidden)


def fixed_positions(tokens: int, width: int) -> jax.Array:
    """Return a table (tokens, width) of standard normal numbers, the same for every network.

    AlgoPerf's sines of 14 x 14 positions are too much alike on a grid of 4 x 4: after one step hint
    the accuracy is 0.6 instead of 0.9.
    """
    return jax.random.normal(jax.random.PRNGKey(0), (tokens, width))


class ViTNetwork(Network):
    """A network whose model state is ``{}`` at the start, and ``None`` from then on."""

    def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
        """Return fresh parameters and ``{}``."""
        return super().init(rng, batch)[0], {}

    def apply(self, *arguments: Any, **named: Any) -> tuple[Any, Any]:
        """Return logits and ``None``; the arguments are those of :meth:`Network.apply`."""
        return super().apply(*arguments, **named)[0], None


def load_mixed_digits() -> Arrays:
    """Load noisy digits; every training image has a weight to mix the batch that it leads."""
    arrays = load_noisy_digits(noise=0.1, copies=8)
    weights = np.random.default_rng(0).beta(MIXUP_ALPHA, MIXUP_ALPHA, len(arrays.train["inputs"]))
    train = {**arrays.train, "mixup": weights.astype(np.float32)}
    return Arrays(train, arrays.validation, arrays.test)


def mix_up(batch: Batch) -> Batch:
    """Return mixed images, and targets as distributions (n, 10).

    The batch's weight is the one stored with its first image: random, because the order is.
    """
    weight = batch["mixup"][0]
    targets = jax.nn.one_hot(batch["targets"], CLASSES)

    def mixed(values: jax.Array) -> jax.Array:
        return weight * values + (1.0 - weight) * jnp.roll(values, 1, axis=0)

    return {"inputs": mixed(batch["inputs"]), "targets": mixed(targets)}


def without_mixing(batch: Batch) -> Batch:
    """Return an evaluation batch: images, class numbers and, if padded, weights."""
    return {key: value for key, value in batch.items() if key != "mixup"}


MINI_VIT = SupervisedWorkload(
    name="mini_vit",
    summary="noisy 8x8 digits with mixup, vision Transformer of 2 layers (18,698 parameters)",
    load=load_mixed_digits,
    whole={"train": 10_376, "validation": 250, "test": 250},
    complete=mix_up,
    complete_eval=without_mixing,
    model=ViT(width=32, inner=64, heads=2, layers=2),
    has_modes=True,
    network_type=ViTNetwork,
    parameter_types=algoperf_types,
    output_layer="head",
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    reference_batch_size=16,
    step_hint=300,
    eval_train_size=50,
    max_allowed_runtime_sec=30.0,
    eval_period_time_sec=2.0,
)
