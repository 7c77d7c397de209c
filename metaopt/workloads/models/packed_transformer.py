"""A Transformer whose rows may hold several sentence pairs.

Letters: n rows, t places, d width, v vocabulary.

Layers have the names of AlgoPerf's ``wmt``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.number_words import PAD
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.models.network import Network
from metaopt.workloads.models.transformer import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    Transformer,
    dropout,
    positions,
)


class EncoderBlock(EncoderLayer):
    """An encoder layer with AlgoPerf's names."""

    def setup(self) -> None:
        """Name the parts."""
        self.ln_attention, self.ln_forward = _norms(2)
        (self.self_attention,) = _attentions(1, self.width, self.heads)
        self.forward = _mlp(self.width, self.inner)


class DecoderBlock(DecoderLayer):
    """A decoder layer with AlgoPerf's names."""

    def setup(self) -> None:
        """Name the parts."""
        self.ln_attention, self.ln_cross, self.ln_forward = _norms(3)
        self.self_attention, self.cross_attention = _attentions(2, self.width, self.heads)
        self.forward = _mlp(self.width, self.inner)


def _norms(count: int) -> list[nn.LayerNorm]:
    return [nn.LayerNorm(name=f"LayerNorm_{i}") for i in range(count)]


def _attentions(count: int, width: int, heads: int) -> list[Attention]:
    names = (f"MultiHeadDotProductAttention_{i}" for i in range(count))
    return [Attention(width, heads, name=name) for name in names]


def _mlp(width: int, inner: int) -> FeedForward:
    return FeedForward(width, inner, ("Dense_0", "Dense_1"), name="MlpBlock_0")


class Stack(nn.Module):
    """Blocks, over which it iterates, and the normalisation after them."""

    block: Callable[..., nn.Module]
    sizes: tuple[int, int, int]  # width, inner, heads
    count: int
    name_of_block: str
    name_of_norm: str

    def setup(self) -> None:
        """Name the parts."""
        names = (f"{self.name_of_block}_{i}" for i in range(self.count))
        self.blocks = [self.block(*self.sizes, name=name) for name in names]
        self.norm = nn.LayerNorm(name=self.name_of_norm)

    def __iter__(self) -> Iterator[nn.Module]:
        """Return an iterator over the blocks."""
        return iter(self.blocks)


class PackedTransformer(Transformer):
    """The Transformer with masks and positions of packed rows.

    A row without positions and segments holds one pair from its start.
    """

    def setup(self) -> None:
        """Name the parts."""
        sizes = self.width, self.inner, self.heads
        self.embedding = nn.Embed(
            self.vocabulary, self.width, embedding_init=nn.initializers.normal(1.0),
            name="shared_embedding",
        )  # fmt: skip
        self.encoder = Stack(EncoderBlock, sizes, self.layers, "encoderblock", "encoder_layernorm")
        self.decoder = Stack(
            DecoderBlock, sizes, self.layers, "encoderdecoderblock", "encoderdecoder_layernorm"
        )

    @property
    def ln_encoder(self) -> nn.LayerNorm:
        """The normalisation after the encoder."""
        return self.encoder.norm

    @property
    def ln_decoder(self) -> nn.LayerNorm:
        """The normalisation after the decoder."""
        return self.decoder.norm

    def __call__(
        self,
        inputs: jax.Array,
        targets: jax.Array,
        inputs_position: jax.Array | None = None,
        targets_position: jax.Array | None = None,
        inputs_segmentation: jax.Array | None = None,
        targets_segmentation: jax.Array | None = None,
        *,
        train: bool = False,
        dropout_rate: Any = 0.0,
    ) -> jax.Array:
        """Map tokens (n, t) to logits (n, t, v) of each target given those before it."""
        rate = dropout_rate if train else 0.0
        source = (inputs != PAD).astype(jnp.int32) if inputs_segmentation is None else (
            inputs_segmentation
        )  # fmt: skip
        target = jnp.ones_like(targets) if targets_segmentation is None else targets_segmentation

        def same(queries: jax.Array, keys: jax.Array) -> jax.Array:
            return (queries[:, None, :, None] == keys[:, None, None]) & (keys > 0)[:, None, None]

        hidden = self._placed(inputs, inputs_position, rate)
        for layer in self.encoder:
            hidden = layer(hidden, same(source, source), rate)
        memory = self.ln_encoder(hidden)
        before, segment_before = (
            jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=PAD) for x in (targets, target)
        )
        before = jnp.where(segment_before == target, before, PAD)  # each sentence begins anew
        length = targets.shape[1]
        causal = same(target, target) & jnp.tril(jnp.ones((1, 1, length, length), bool))
        hidden = self._placed(before, targets_position, rate)
        for layer in self.decoder:
            keys_values = layer.cross_attention.keys_values(memory)
            hidden = layer(hidden, causal, keys_values, same(target, source), rate)
        return self._logits(hidden)

    def _placed(self, tokens: jax.Array, places: jax.Array | None, rate: Any) -> jax.Array:
        table = positions(tokens.shape[1], self.width)
        at = table[None] if places is None else table[places]
        return dropout(self, self.embedding(tokens) + at, rate)


class PackedNetwork(Network):
    """A network some of whose inputs, those that describe packed rows, may be missing."""

    def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
        """Return fresh parameters and ``None``."""
        return super().init(rng, self._filled(batch))

    def apply(
        self,
        params: Any,
        batch: Batch,
        model_state: Any,
        mode: ForwardPassMode,
        rng: jax.Array,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
        use_running_average_bn: bool | None = None,
    ) -> tuple[jax.Array, Any]:
        """Return logits and model state; the arguments are those of the base."""
        return super().apply(
            params, self._filled(batch), model_state, mode, rng, update_batch_norm, dropout_rate,
            use_running_average_bn,
        )  # fmt: skip

    def _filled(self, batch: Batch) -> Batch:
        return {key: batch.get(key) for key in self.inputs}
