"""The Transformer from a sentence to its translation, and greedy decoding.

Letters: n sentences, t positions of a translation, s of a source, d width, h heads, v vocabulary.
Token 0 is padding; as the first input of the decoder it means "begin".

The paper trained Flax's example for WMT at the base size of the original, and so do we: with its
parameters and random tokens the logits of both agree to rounding wherever the target is no padding.
Unlike the original it normalises before it attends (pre-norm), its attention has no biases, and
dropout also falls on attention weights and between the dense layers.

References:
    Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017.
    The Flax authors, `Machine translation
    <https://github.com/google/flax/tree/main/examples/wmt>`_.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.workloads.data.subwords import END, PAD

Cache = list[dict[str, jax.Array]]  # by layer

_XAVIER = nn.initializers.xavier_uniform()
_SMALL = nn.initializers.normal(1e-6)  # of biases; Flax's example starts them there
_MASKED = -1e9


class Attention(nn.Module):
    """Scaled dot products in ``heads`` heads, without biases."""

    width: int
    heads: int

    def setup(self) -> None:
        """Name the four projections."""
        split = functools.partial(
            nn.DenseGeneral,
            (self.heads, self.width // self.heads),
            use_bias=False,
            kernel_init=_XAVIER,
        )
        self.query, self.key, self.value = split(), split(), split()
        self.out = nn.DenseGeneral(self.width, (-2, -1), use_bias=False, kernel_init=_XAVIER)

    def keys_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Project what is attended to, (n, s, d), to keys and values, (n, s, h, d / h)."""
        return self.key(memory), self.value(memory)

    def __call__(
        self, hidden: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, rate: Any
    ) -> jax.Array:
        """Attend from (n, t, d) where ``mask``, broadcast to (n, h, t, s), is true."""
        queries = self.query(hidden) * (self.width // self.heads) ** -0.5
        scores = jnp.einsum("nthd,nshd->nhts", queries, keys)
        weights = dropout(self, jax.nn.softmax(jnp.where(mask, scores, _MASKED)), rate)
        return self.out(jnp.einsum("nhts,nshd->nthd", weights, values))


class FeedForward(nn.Module):
    """Two dense layers with ReLU between them, the same at every position."""

    width: int
    inner: int
    names: tuple[str, str] = ("expand", "contract")

    @nn.compact
    def __call__(self, hidden: jax.Array, rate: Any) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        expand, contract = (
            nn.Dense(size, kernel_init=_XAVIER, bias_init=_SMALL, name=name)
            for size, name in zip((self.inner, self.width), self.names, strict=True)
        )
        return contract(dropout(self, nn.relu(expand(hidden)), rate))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added to its input."""

    width: int
    inner: int
    heads: int

    def setup(self) -> None:
        """Name the parts."""
        self.ln_attention, self.ln_forward = nn.LayerNorm(), nn.LayerNorm()
        self.self_attention = Attention(self.width, self.heads)
        self.forward = FeedForward(self.width, self.inner)

    def __call__(self, hidden: jax.Array, mask: jax.Array, rate: Any) -> jax.Array:
        """Map (n, s, d) to (n, s, d)."""
        normed = self.ln_attention(hidden)
        keys, values = self.self_attention.keys_values(normed)
        attended = self.self_attention(normed, keys, values, mask, rate)
        hidden = hidden + dropout(self, attended, rate)
        return hidden + dropout(self, self.forward(self.ln_forward(hidden), rate), rate)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source and feed-forward, each added to its input."""

    width: int
    inner: int
    heads: int

    def setup(self) -> None:
        """Name the parts."""
        self.ln_attention, self.ln_cross, self.ln_forward = (nn.LayerNorm() for _ in range(3))
        self.self_attention = Attention(self.width, self.heads)
        self.cross_attention = Attention(self.width, self.heads)
        self.forward = FeedForward(self.width, self.inner)

    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        memory: tuple[jax.Array, jax.Array],
        memory_mask: jax.Array,
        rate: Any,
    ) -> jax.Array:
        """Map (n, t, d) to (n, t, d); ``memory`` holds the source's keys and values."""
        normed = self.ln_attention(hidden)
        own = self.self_attention.keys_values(normed)
        attended = self.self_attention(normed, *own, mask, rate)
        return self._rest(hidden + dropout(self, attended, rate), memory, memory_mask, rate)

    def step(
        self, hidden: jax.Array, position: Any, cache: dict[str, jax.Array], memory_mask: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Do the same for the one position (n, 1, d); the ones before it lie in ``cache``."""
        normed = self.ln_attention(hidden)
        keys, values = self.self_attention.keys_values(normed)
        keys = cache["keys"].at[:, position].set(keys[:, 0])
        values = cache["values"].at[:, position].set(values[:, 0])
        past = (jnp.arange(keys.shape[1]) <= position).reshape(1, 1, 1, -1)
        hidden = hidden + self.self_attention(normed, keys, values, past, 0.0)
        memory = cache["memory_keys"], cache["memory_values"]
        return self._rest(hidden, memory, memory_mask, 0.0), {
            **cache,
            "keys": keys,
            "values": values,
        }

    def _rest(self, hidden: jax.Array, memory: Any, memory_mask: jax.Array, rate: Any) -> jax.Array:
        keys, values = memory
        attended = self.cross_attention(self.ln_cross(hidden), keys, values, memory_mask, rate)
        hidden = hidden + dropout(self, attended, rate)
        return hidden + dropout(self, self.forward(self.ln_forward(hidden), rate), rate)


class Transformer(nn.Module):
    """Encoder and decoder; source, target and output share one embedding.

    The defaults are the original's base model: 44,103,680 parameters and 512 for each entry of
    the vocabulary.
    """

    vocabulary: int
    width: int = 512
    inner: int = 2048
    heads: int = 8
    layers: int = 6

    def setup(self) -> None:
        """Name the parts."""
        sizes = self.width, self.inner, self.heads
        normal = nn.initializers.normal(1.0)
        self.embedding = nn.Embed(self.vocabulary, self.width, embedding_init=normal)
        self.encoder = [EncoderLayer(*sizes) for _ in range(self.layers)]
        self.decoder = [DecoderLayer(*sizes) for _ in range(self.layers)]
        self.ln_encoder, self.ln_decoder = nn.LayerNorm(), nn.LayerNorm()

    def __call__(
        self,
        inputs: jax.Array,
        targets: jax.Array,
        *,
        train: bool = False,
        dropout_rate: Any = 0.0,
    ) -> jax.Array:
        """Map tokens (n, s) and (n, t) to logits (n, t, v) of each target given those before it."""
        rate = dropout_rate if train else 0.0
        memory, memory_mask = self.encode(inputs, rate)
        before = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=PAD)
        length = before.shape[1]
        causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
        hidden = self._embed(before, positions(length, self.width), rate)
        for layer in self.decoder:
            source = layer.cross_attention.keys_values(memory)
            hidden = layer(hidden, causal, source, memory_mask, rate)
        return self._logits(hidden)

    def encode(self, inputs: jax.Array, rate: Any) -> tuple[jax.Array, jax.Array]:
        """Return the encoded source, (n, s, d), and which of its positions are no padding."""
        mask = (inputs != PAD)[:, None, None, :]
        hidden = self._embed(inputs, positions(inputs.shape[1], self.width), rate)
        for layer in self.encoder:
            hidden = layer(hidden, mask, rate)
        return self.ln_encoder(hidden), mask

    def start(self, inputs: jax.Array, steps: int) -> Cache:
        """Return the cache for ``steps`` tokens: keys and values of source and past tokens."""
        memory, _ = self.encode(inputs, 0.0)
        past = jnp.zeros((len(inputs), steps, self.heads, self.width // self.heads), memory.dtype)
        cache = []
        for layer in self.decoder:
            keys, values = layer.cross_attention.keys_values(memory)
            cache.append(
                {"keys": past, "values": past, "memory_keys": keys, "memory_values": values}
            )
        return cache

    def step(
        self, tokens: jax.Array, position: Any, inputs: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Return logits (n, v) of the token at ``position``; ``tokens`` (n,) are those before."""
        table = positions(cache[0]["keys"].shape[1], self.width)
        hidden = self._embed(tokens[:, None], table[position][None], 0.0)
        mask, after = (inputs != PAD)[:, None, None, :], []
        for layer, past in zip(self.decoder, cache, strict=True):
            hidden, new = layer.step(hidden, position, past, mask)
            after.append(new)
        return self._logits(hidden)[:, 0], after

    def _embed(self, tokens: jax.Array, table: jax.Array, rate: Any) -> jax.Array:
        return dropout(self, self.embedding(tokens) + table[None], rate)

    def _logits(self, hidden: jax.Array) -> jax.Array:
        # The embedding has unit variance, as an input should; an output layer's is 1 / d.
        return self.embedding.attend(self.ln_decoder(hidden)) * self.width**-0.5


def dropout(module: nn.Module, values: jax.Array, rate: Any) -> jax.Array:
    """Set a share ``rate`` to 0 and scale the rest up; unlike Flax's the rate may be traced."""
    if isinstance(rate, float) and rate == 0.0:
        return values
    kept = jax.random.bernoulli(module.make_rng("dropout"), 1.0 - rate, values.shape)
    return jnp.where(kept, values / (1.0 - rate), 0.0)


def positions(length: int, width: int) -> jax.Array:
    """Return the table (length, width) of sines, then cosines, of frequencies from 1 to 1 / 10,000.

    Both ends are reached, as in Flax's example and in the original's code; the original's formula
    stops one step short of the last.
    """
    frequencies = 10_000.0 ** (-np.arange(width // 2) / max(1, width // 2 - 1))
    angles = np.arange(length)[:, None] * frequencies[None]
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], 1), jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def greedy(
    model: Transformer, params: Any, inputs: jax.Array, steps: int, end: int = END
) -> jax.Array:
    """Translate (n, s) to (n, steps): at each position the likeliest token, PAD after ``end``."""
    variables = {"params": params}
    cache = model.apply(variables, inputs, steps, method=Transformer.start)

    def unfinished(carry: Any) -> jax.Array:
        position, _, _, done, _ = carry
        return (position < steps) & ~done.all()

    def extend(carry: Any) -> Any:
        position, tokens, last, done, cache = carry
        logits, cache = model.apply(
            variables, last, position, inputs, cache, method=Transformer.step
        )
        best = jnp.where(done, PAD, logits.argmax(-1).astype(jnp.int32))
        return position + 1, tokens.at[:, position].set(best), best, done | (best == end), cache

    count = len(inputs)
    tokens = jnp.full((count, steps), PAD, jnp.int32)
    begin = jnp.full(count, PAD, jnp.int32)
    carry = jnp.int32(0), tokens, begin, jnp.zeros(count, bool), cache
    return jax.lax.while_loop(unfinished, extend, carry)[1]
