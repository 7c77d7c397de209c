"""DeepSpeech: recurrent layers in both directions, and dense ones.

Letters: n lines, s samples, t frames, d width, k = d / 2 width of a direction, v tokens.

References:
    Amodei et al., `Deep Speech 2 <https://arxiv.org/abs/1512.02595>`_, 2015.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.workloads.models.speech import XAVIER, BatchNorm, LayerNorm, Subsample

_GATES = "ifgo"  # input, forget, candidate, output
_UNROLLED = 4  # frames


class LSTMCell(nn.Module):
    """The parameters of a cell, with the names of ``flax.linen.OptimizedLSTMCell``."""

    inputs: int
    width: int

    def setup(self) -> None:
        """Name the parts."""
        self.kernels = [Kernel(self.inputs, self.width, False, name=f"i{g}") for g in _GATES]
        self.recurrent = [Kernel(self.width, self.width, True, name=f"h{g}") for g in _GATES]

    def __call__(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the kernels of inputs (d, 4 k) and states (k, 4 k), and the biases (4 k,)."""
        inputs = [kernel() for kernel in self.kernels]
        states = [kernel() for kernel in self.recurrent]
        kernels, recurrent = (
            jnp.concatenate([kernel for kernel, _ in each], -1) for each in (inputs, states)
        )
        return kernels, recurrent, jnp.concatenate([bias for _, bias in states])


class Kernel(nn.Module):
    """The parameters of a dense layer."""

    inputs: int
    outputs: int
    is_recurrent: bool  # whether it has a bias

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Return kernel and bias, which is zero and no parameter for inputs."""
        initial = nn.initializers.orthogonal() if self.is_recurrent else XAVIER
        kernel = self.param("kernel", initial, (self.inputs, self.outputs))
        if not self.is_recurrent:
            return kernel, jnp.zeros(self.outputs)
        return kernel, self.param("bias", nn.initializers.zeros, (self.outputs,))


class LSTMSequenceEncoder(nn.Module):
    """A direction's cell."""

    inputs: int
    width: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return what :class:`LSTMCell` returns."""
        return LSTMCell(self.inputs, self.width, name="cell")()


class LSTM(nn.Module):
    """An LSTM in both directions, which run as one scan."""

    @nn.compact
    def __call__(self, hidden: jax.Array, there: jax.Array) -> jax.Array:
        """Map (n, t, d) to (n, t, d), where the frames are ``there`` (n, t, 1)."""
        count, length, width = hidden.shape
        size = width // 2
        cells = [
            LSTMSequenceEncoder(width, size, name=f"LSTMSequenceEncoder_{i}")() for i in range(2)
        ]
        kernels, recurrent, biases = zip(*cells, strict=True)
        forward, backward = (
            (hidden @ kernel + bias[None, None]).reshape(count, length, 4, size)
            for kernel, bias in zip(kernels, biases, strict=True)
        )
        given = jnp.concatenate([forward, backward[:, ::-1]], -1)  # the second starts at the end
        exists = jnp.concatenate(
            [jnp.broadcast_to(x, (count, length, size)) for x in (there, there[:, ::-1])], -1
        )
        # One matrix with a block for each direction: XLA's products of batches are slow on CPUs.
        blocks = jnp.stack(recurrent).reshape(2, size, 4, 1, size)
        blocks = blocks * jnp.eye(2).reshape(2, 1, 1, 2, 1)
        blocks = blocks.reshape(width, 4 * width)

        def step(carry: tuple[jax.Array, jax.Array], frame: tuple[jax.Array, jax.Array]) -> Any:
            memory, state = carry
            given, exists = frame
            gates = given.reshape(count, 4 * width) + state @ blocks
            into, forget, candidate, out = jnp.split(gates, 4, -1)
            memory = nn.sigmoid(forget) * memory + nn.sigmoid(into) * jnp.tanh(candidate)
            memory = memory * exists  # before the first frame that is there, all stays at zero
            state = nn.sigmoid(out) * jnp.tanh(memory) * exists
            return (memory, state), state

        start = jnp.zeros((count, width), hidden.dtype)
        frames = jnp.moveaxis(given, 1, 0), jnp.moveaxis(exists, 1, 0)
        _, states = jax.lax.scan(step, (start, start), frames, unroll=_UNROLLED)
        forward, backward = jnp.split(jnp.moveaxis(states, 0, 1), 2, -1)
        return jnp.concatenate([forward, backward[:, ::-1]], -1)


class BatchRNN(nn.Module):
    """Batch normalisation, then an LSTM."""

    @nn.compact
    def __call__(
        self, hidden: jax.Array, paddings: jax.Array, use_running_average: bool
    ) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        normed = BatchNorm()(hidden, paddings, use_running_average)
        return _Outer(name="LSTM_0")(normed, 1.0 - paddings[..., None])


class _Outer(nn.Module):
    """A layer of names that AlgoPerf's parameters have."""

    @nn.compact
    def __call__(self, hidden: jax.Array, there: jax.Array) -> jax.Array:
        return LSTM(name="LSTM")(hidden, there)


class NormedDense(nn.Module):
    """Batch normalisation, then a dense layer with ReLU."""

    @nn.compact
    def __call__(
        self, hidden: jax.Array, paddings: jax.Array, use_running_average: bool
    ) -> jax.Array:
        """Map (n, t, d) to (n, t, d)."""
        normed = BatchNorm()(hidden, paddings, use_running_average)
        inner = nn.relu(nn.Dense(hidden.shape[-1], kernel_init=XAVIER)(normed))
        return inner * (1.0 - paddings[..., None])


class DeepSpeech(nn.Module):
    """Front end, recurrent and dense layers added to their inputs, the logits of each frame."""

    tokens: int
    width: int
    recurrent: int  # layers
    dense: int  # layers

    @nn.compact
    def __call__(
        self,
        inputs: tuple[jax.Array, jax.Array],
        *,
        train: bool = False,
        dropout_rate: Any = 0.0,
    ) -> tuple[jax.Array, jax.Array]:
        """Map samples and paddings, (n, s), to logits (n, t, v) and paddings (n, t).

        ``train`` says that batch normalisation uses the statistics of the batch. Dropout falls on
        the front end's output alone.
        """
        hidden, paddings = Subsample(self.width)(*inputs, dropout_rate)
        for _ in range(self.recurrent):
            hidden = hidden + BatchRNN()(hidden, paddings, not train)
        for i in range(self.dense):
            layer = NormedDense(name=f"FeedForwardModule_{i}")
            hidden = hidden + layer(hidden, paddings, not train)
        return nn.Dense(self.tokens, kernel_init=XAVIER)(LayerNorm()(hidden)), paddings
