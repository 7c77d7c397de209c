"""An autoregressive Transformer over the pixels of scikit-learn's digits.

An image is a sequence of t = 64 pixels, row by row, each one of 17 levels of grey. The model gives
the probabilities of each pixel's level from the pixels before it; the loss is in nats per pixel.
A uniform prediction has loss log 17 = 2.83.

Letters: n images, t pixels, d width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.data.scikit_learn import split_at_random
from metaopt.workloads.models.transformer import EncoderLayer, dropout
from metaopt.workloads.supervised import Arrays, SupervisedWorkload

PIXELS, LEVELS = 64, 17
_BEGIN = LEVELS  # the token before the first pixel
_SMALL = nn.initializers.normal(0.02)


class PixelTransformer(nn.Module):
    """Layers of causal self-attention and feed-forward, with a learned embedding of positions."""

    width: int
    inner: int
    heads: int
    layers: int

    def setup(self) -> None:
        """Name the parts."""
        sizes = self.width, self.inner, self.heads
        self.embedding = nn.Embed(LEVELS + 1, self.width, embedding_init=_SMALL)
        self.position = nn.Embed(PIXELS, self.width, embedding_init=_SMALL)
        self.decoder = [EncoderLayer(*sizes) for _ in range(self.layers)]
        self.ln_output = nn.LayerNorm()
        self.output = nn.Dense(LEVELS, kernel_init=_SMALL)

    def __call__(
        self, inputs: jax.Array, *, train: bool = False, dropout_rate: float = 0.0
    ) -> jax.Array:
        """Map levels (n, t) to logits (n, t, 17) of each pixel given those before it."""
        rate = dropout_rate if train else 0.0
        before = jnp.pad(inputs[:, :-1], ((0, 0), (1, 0)), constant_values=_BEGIN)
        length = before.shape[1]
        causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
        embedded = self.embedding(before) + self.position(jnp.arange(length))[None]
        hidden = dropout(self, embedded, rate)
        for layer in self.decoder:
            hidden = layer(hidden, causal, rate)
        return self.output(self.ln_output(hidden))


def load_pixels() -> Arrays:
    """Load the levels, (n, 64) of 0 to 16, which are inputs and targets: 1,545 / 126 / 126.

    So few are enough for validation, because each image has 64 targets and evaluation is slow.
    """
    from sklearn import datasets

    inputs, _ = datasets.load_digits(return_X_y=True)
    levels = np.asarray(inputs, np.uint8)
    return split_at_random(levels, levels, share=0.07)


def as_levels(batch: Batch) -> Batch:
    """Return the batch as int32, with the weight of each image for every one of its pixels."""
    targets = batch["targets"].astype(jnp.int32)
    weights = batch.get("weights", jnp.ones(len(targets), jnp.float32))
    return {
        "inputs": batch["inputs"].astype(jnp.int32),
        "targets": targets,
        "weights": jnp.broadcast_to(weights[:, None], targets.shape),
    }


DIGITS_TRANSFORMER = SupervisedWorkload(
    name="digits_transformer",
    summary="the 64 pixels of 8x8 digits, Transformer of 2 layers (20,081 parameters)",
    load=load_pixels,
    whole={"train": 1_545, "validation": 126, "test": 126},
    model=PixelTransformer(width=32, inner=64, heads=2, layers=2),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    complete=as_levels,
    has_modes=True,
    reference_batch_size=8,
    step_hint=300,
    eval_period=50,
    eval_train_size=30,
    max_allowed_runtime_sec=60.0,
    eval_period_time_sec=3.0,
)
