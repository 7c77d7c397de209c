"""A small convolutional network on scikit-learn's digits.

Its convolutions are matrix products of the image's windows, one per row, and the kernel. On images
this small, this takes half the time of XLA's convolution on CPUs (whose gradient by the kernel is
slow), and it stays fast in loops.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.scikit_learn import load_digits
from metaopt.workloads.supervised import SupervisedWorkload

SIDE = 8  # pixels
_HE = nn.initializers.he_normal()


def convolve_by_matrix(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **unused: Any,
) -> jax.Array:
    """Convolve images (n, h, w, in) with kernels (kh, kw, in, out), as ``nn.Conv`` asks for it.

    Equals ``jax.lax.conv_general_dilated`` up to rounding. Costs ``kh * kw`` copies of the images.
    Dilation and groups, off by default in ``nn.Conv``, are not supported.

    Args:
        lhs: Images.
        rhs: Kernels.
        window_strides: Rows and columns from one window to the next.
        padding: ``"SAME"``, ``"VALID"``, or zeros before and after each of the two axes.
        unused: What else ``nn.Conv`` passes.
    """
    del unused
    height, width = rhs.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(lhs.shape[1:3], (height, width), window_strides, padding)
    padded = jnp.pad(lhs, [(0, 0), *padding, (0, 0)])
    rows, columns = (
        range(0, size - window + 1, stride)
        for size, window, stride in zip(
            padded.shape[1:3], (height, width), window_strides, strict=True
        )
    )
    windows = [
        padded[:, i : i + rows.stop : rows.step, j : j + columns.stop : columns.step]
        for i in range(height)
        for j in range(width)
    ]
    flat = jnp.concatenate(windows, axis=-1).reshape(-1, height * width * lhs.shape[-1])
    product = flat @ rhs.reshape(-1, rhs.shape[-1])
    return product.reshape(len(lhs), len(rows), len(columns), rhs.shape[-1])


class ConvNet(nn.Module):
    """3 x 3 convolutions of stride 2 with ReLU between them, then a dense layer."""

    widths: tuple[int, ...]  # channels of each convolution
    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map images (n, 64) to logits (n, outputs)."""
        hidden = inputs.reshape(-1, SIDE, SIDE, 1)
        for index, width in enumerate(self.widths):
            convolution = nn.Conv(
                width,
                (3, 3),
                strides=2,
                padding=1,
                kernel_init=_HE,
                conv_general_dilated=convolve_by_matrix,
                name=f"conv_{index}",
            )
            hidden = nn.relu(convolution(hidden))
        flat = hidden.reshape(len(inputs), -1)
        return nn.Dense(self.outputs, name="output", kernel_init=_HE)(flat)


DIGITS_CONV = SupervisedWorkload(
    name="digits_conv",
    summary="8x8 digits, two convolutions and a dense layer (21,386 parameters)",
    load=load_digits,
    whole={"train": 1_079, "validation": 359, "test": 359},
    model=ConvNet(widths=(32, 64), outputs=10),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    reference_batch_size=64,
    step_hint=400,
    max_allowed_runtime_sec=20.0,
    eval_period_time_sec=1.0,
)
