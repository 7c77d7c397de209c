"""What networks for speech share: the front end, normalisation that knows paddings, and modes.

Letters: n lines, s samples, c columns of 8 samples, t = c / 2 frames, d width. A padding is 1 where
nothing is.

Layers have AlgoPerf's names, so that parameters are typed alike. As there, scales start at 0 and
are used plus 1, and the running averages start with shape (d,) and have (1, 1, d) after a step.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.digit_lines import DEVIATION, MEAN, ROWS
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.models.convolution import convolve_by_matrix
from metaopt.workloads.models.network import Network
from metaopt.workloads.models.transformer import dropout

XAVIER = nn.initializers.xavier_uniform()
_ZEROS = nn.initializers.zeros
_MOMENTUM = 0.9  # AlgoPerf's 0.999 would need more steps than a trial has
_CHANNELS = 8  # of the front end's convolution


class LayerNorm(nn.Module):
    """Layer normalisation whose scale is 1 + ``scale``."""

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        scale, bias = (self.param(k, _ZEROS, hidden.shape[-1:]) for k in ("scale", "bias"))
        centred = hidden - hidden.mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
        return normed * (1.0 + scale)[None, None] + bias[None, None]


class BatchNorm(nn.Module):
    """Batch normalisation over the frames that are there, with a scale of 1 + ``scale``."""

    @nn.compact
    def __call__(
        self, hidden: jax.Array, paddings: jax.Array, use_running_average: bool
    ) -> jax.Array:
        """Map (n, t, d) to (n, t, d), 0 where ``paddings`` (n, t) are 1.

        Running averages move if they are not used and ``batch_stats`` is mutable.
        """
        shape, there = hidden.shape[-1:], 1.0 - paddings[..., None]
        scale, bias = (self.param(k, _ZEROS, shape) for k in ("scale", "bias"))
        averages = (
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", jnp.ones, shape),
        )
        if use_running_average:
            mean, variance = (average.value.reshape(1, 1, -1) for average in averages)
        else:
            count = jnp.maximum(there.sum(), 1.0)
            mean = (hidden * there).sum((0, 1), keepdims=True) / count
            variance = (jnp.square(hidden - mean) * there).sum((0, 1), keepdims=True) / count
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                for average, new in zip(averages, (mean, variance), strict=True):
                    old = average.value.reshape(1, 1, -1)
                    average.value = _MOMENTUM * old + (1.0 - _MOMENTUM) * new
        normed = (hidden - mean) * jax.lax.rsqrt(variance + 1e-3)
        return (normed * (1.0 + scale)[None, None] + bias[None, None]) * there


class Conv2dSubsampling(nn.Module):
    """A 3 x 3 convolution of stride 2 with ReLU."""

    channels: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (n, c, r, i) to (n, c / 2, r / 2, channels)."""
        kernel = self.param("kernel", XAVIER, (3, 3, images.shape[-1], self.channels))
        bias = self.param("bias", _ZEROS, (self.channels,))
        return nn.relu(convolve_by_matrix(images, kernel, (2, 2), "SAME") + bias[None, None, None])


class Subsample(nn.Module):
    """The front end: from samples to frames of two columns each."""

    width: int

    @nn.compact
    def __call__(
        self, samples: jax.Array, paddings: jax.Array, rate: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Map samples and paddings, (n, s), to (n, t, d) and the frames' paddings (n, t)."""
        standard = (samples - MEAN) / DEVIATION * (1.0 - paddings)
        images = standard.reshape(len(samples), -1, ROWS, 1)
        frames = Conv2dSubsampling(_CHANNELS)(images)
        paddings = paddings[:, :: 2 * ROWS]  # a frame is there if its first sample is
        frames = frames.reshape(*paddings.shape, -1)
        hidden = nn.Dense(self.width, kernel_init=XAVIER)(frames)
        return dropout(self, hidden, rate), paddings


class ConformerNetwork(Network):
    """AlgoPerf's rules for ``librispeech_conformer``: when running averages move and are used.

    Training moves them, whatever ``update_batch_norm`` says, unless they are used. Evaluation with
    ``update_batch_norm`` is training.
    """

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
    ) -> tuple[Any, Any]:
        """Return ``((logits, paddings), model_state)``; the arguments are those of the base."""
        train = mode == ForwardPassMode.TRAIN or update_batch_norm
        rate = self.dropout_rate if dropout_rate is None else dropout_rate
        stored = not train if use_running_average_bn is None else use_running_average_bn
        outputs = self.module.apply(
            {"params": params, **model_state},
            *(batch[key] for key in self.inputs),
            train=not stored,
            dropout_rate=rate if train else 0.0,
            rngs={"dropout": rng} if train else None,
            mutable=["batch_stats"] if train else False,
        )
        return outputs if train else (outputs, model_state)


class DeepSpeechNetwork(ConformerNetwork):
    """AlgoPerf's rules for ``librispeech_deepspeech``: ``use_running_average_bn`` is ignored."""

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
    ) -> tuple[Any, Any]:
        """Return ``((logits, paddings), model_state)``; the arguments are those of the base."""
        del use_running_average_bn
        return super().apply(params, batch, model_state, mode, rng, update_batch_norm, dropout_rate)
