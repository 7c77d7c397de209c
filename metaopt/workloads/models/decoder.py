"""A decoder-only Transformer over tokens, with rotary positions.

Letters: n texts, t tokens, d width, h heads, k width of a head, v vocabulary.

References:
    Su et al., `RoFormer: Enhanced Transformer with Rotary Position Embedding
    <https://arxiv.org/abs/2104.09864>`_, 2021.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

_XAVIER = nn.initializers.xavier_uniform()


class RotaryAttention(nn.Module):
    """Causal self-attention whose scores depend on the distance of two tokens; no biases."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        size = self.width // self.heads
        queries, keys, values = (
            nn.DenseGeneral((self.heads, size), use_bias=False, kernel_init=_XAVIER, name=name)(
                hidden
            )
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("nthk,nshk->nhts", rotate(queries) * size**-0.5, rotate(keys))
        length = hidden.shape[1]
        causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
        weights = jax.nn.softmax(jnp.where(causal, scores, -1e9))
        attended = jnp.einsum("nhts,nshk->nthk", weights, values)
        out = nn.DenseGeneral(
            self.width, (-2, -1), use_bias=False, kernel_init=_XAVIER, name="out"
        )  # fmt: skip
        return out(attended)


def rotate(vectors: jax.Array) -> jax.Array:
    """Turn each pair of entries of (n, t, h, k) by an angle that grows with the position.

    The product of two turned vectors depends on their positions by the difference alone.
    """
    length, size = vectors.shape[1], vectors.shape[-1]
    frequencies = 10_000.0 ** (-np.arange(size // 2) / (size // 2))
    angles = np.arange(length)[:, None] * frequencies[None]
    cos, sin = (
        jnp.asarray(f(angles), vectors.dtype)[None, :, None] for f in (np.cos, np.sin)
    )  # each (1, t, 1, k / 2)
    first, second = jnp.split(vectors, 2, -1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


class DecoderOnlyTransformer(nn.Module):
    """Layers of causal self-attention and feed-forward; input and output share one embedding."""

    vocabulary: int
    width: int
    inner: int
    heads: int
    layers: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map tokens (n, t) to logits (n, t, v) of each next token."""
        normal = nn.initializers.normal(1.0)
        embedding = nn.Embed(self.vocabulary, self.width, embedding_init=normal, name="embedding")
        hidden = embedding(inputs)
        for i in range(self.layers):
            normed = nn.RMSNorm(name=f"ln_attention_{i}")(hidden)
            hidden = hidden + RotaryAttention(self.width, self.heads, name=f"attention_{i}")(normed)
            normed = nn.RMSNorm(name=f"ln_forward_{i}")(hidden)
            inner = nn.silu(nn.Dense(self.inner, use_bias=False, name=f"expand_{i}")(normed))
            hidden = hidden + nn.Dense(self.width, use_bias=False, name=f"contract_{i}")(inner)
        return embedding.attend(nn.RMSNorm(name="ln_output")(hidden)) * self.width**-0.5
