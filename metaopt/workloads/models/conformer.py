"""The Conformer: attention and convolution in turns.

Letters: n lines, s samples, t frames, d width, h heads, v tokens.

References:
    Gulati et al., `Conformer: Convolution-augmented Transformer for Speech Recognition
    <https://arxiv.org/abs/2005.08100>`_, 2020.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.workloads.models.speech import XAVIER, BatchNorm, LayerNorm, Subsample
from metaopt.workloads.models.transformer import dropout, positions

_KERNEL = 5  # frames
_POSITIONS = 0.1  # the scale of their sines; with 1.0 learning starts later


class FeedForwardModule(nn.Module):
    """Two dense layers with Swish between them."""

    inner: int

    @nn.compact
    def __call__(self, hidden: jax.Array, there: jax.Array, rate: Any) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        inner = nn.Dense(self.inner, kernel_init=XAVIER)(LayerNorm()(hidden))
        inner = dropout(self, nn.swish(inner), rate)
        outer = nn.Dense(hidden.shape[-1], kernel_init=XAVIER)(inner) * there
        return dropout(self, outer, rate)


class QueryScaler(nn.Module):
    """A learned scale for each entry of a query, 1 at the start."""

    @nn.compact
    def __call__(self, queries: jax.Array) -> jax.Array:
        """Map (n, t, h, k) to (n, t, h, k)."""
        scale = self.param("scale", nn.initializers.zeros, queries.shape[-1:])
        return queries * (nn.softplus(scale) / jnp.log(2.0))[None, None, None]


class MultiHeadDotProductAttention(nn.Module):
    """Scaled dot products in ``heads`` heads, with scaled queries."""

    heads: int

    @nn.compact
    def __call__(self, normed: jax.Array, there: jax.Array) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        width = normed.shape[-1]
        queries, keys, values = (
            nn.DenseGeneral((self.heads, width // self.heads), kernel_init=XAVIER, name=name)(
                normed
            )
            for name in ("query", "key", "value")
        )
        queries = QueryScaler()(queries) * (width // self.heads) ** -0.5
        scores = jnp.einsum("nthk,nshk->nhts", queries, keys)
        mask = there[:, None, None, :, 0] > 0
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e9))
        attended = jnp.einsum("nhts,nshk->nthk", weights, values)
        return nn.DenseGeneral(width, (-2, -1), kernel_init=XAVIER, name="out")(attended)


class MultiHeadedSelfAttention(nn.Module):
    """Self-attention over the frames that are there."""

    heads: int

    @nn.compact
    def __call__(self, hidden: jax.Array, there: jax.Array, rate: Any) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        attention = MultiHeadDotProductAttention(self.heads)
        return dropout(self, attention(LayerNorm()(hidden), there), rate)


class ConvolutionBlock(nn.Module):
    """A gate, a convolution of each feature over time, batch normalisation and a dense layer."""

    @nn.compact
    def __call__(
        self, hidden: jax.Array, paddings: jax.Array, use_running_average: bool, rate: Any
    ) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        width = hidden.shape[-1]
        normed = LayerNorm()(hidden)
        value, gate = (nn.Dense(width, kernel_init=XAVIER)(normed) for _ in range(2))
        gated = value * nn.sigmoid(gate) * (1.0 - paddings[..., None])
        mixed = BatchNorm()(DepthwiseConv(name="Conv_0")(gated), paddings, use_running_average)
        return dropout(self, nn.Dense(width, kernel_init=XAVIER)(nn.swish(mixed)), rate)


class DepthwiseConv(nn.Module):
    """A convolution of each feature over time, as a sum of shifted products.

    At this size, on a CPU, it takes a tenth of the time of XLA's.
    """

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        kernel = self.param("kernel", XAVIER, (_KERNEL, 1, hidden.shape[-1]))
        padded = jnp.pad(hidden, ((0, 0), (_KERNEL // 2, _KERNEL // 2), (0, 0)))
        shifted = [padded[:, i : i + hidden.shape[1]] * kernel[i][None] for i in range(_KERNEL)]
        return sum(shifted[1:], shifted[0])


class ConformerBlock(nn.Module):
    """Half a feed-forward step, attention, convolution, half a feed-forward step."""

    inner: int
    heads: int

    @nn.compact
    def __call__(
        self, hidden: jax.Array, paddings: jax.Array, use_running_average: bool, rate: Any
    ) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        there = 1.0 - paddings[..., None]
        hidden = hidden + 0.5 * FeedForwardModule(self.inner)(hidden, there, rate)
        hidden = hidden + MultiHeadedSelfAttention(self.heads)(hidden, there, rate)
        hidden = hidden + ConvolutionBlock()(hidden, paddings, use_running_average, rate)
        hidden = hidden + 0.5 * FeedForwardModule(self.inner)(hidden, there, rate)
        return LayerNorm()(hidden)


class Conformer(nn.Module):
    """Front end, blocks, and the logits of each frame's token."""

    tokens: int
    width: int
    inner: int
    heads: int
    blocks: int

    @nn.compact
    def __call__(
        self,
        inputs: tuple[jax.Array, jax.Array],
        *,
        train: bool = False,
        dropout_rate: Any = 0.0,
    ) -> tuple[jax.Array, jax.Array]:
        """Map samples and paddings, (n, s), to logits (n, t, v) and paddings (n, t).

        ``train`` says that batch normalisation uses the statistics of the batch.
        """
        hidden, paddings = Subsample(self.width)(*inputs, dropout_rate)
        hidden = hidden + _POSITIONS * positions(hidden.shape[1], self.width)[None]
        for _ in range(self.blocks):
            block = ConformerBlock(self.inner, self.heads)
            hidden = block(hidden, paddings, not train, dropout_rate)
        return nn.Dense(self.tokens, kernel_init=XAVIER)(LayerNorm()(hidden)), paddings
