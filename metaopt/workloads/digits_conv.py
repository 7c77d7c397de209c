"""A small convolutional network on scikit-learn's digits, with noise.

Without noise all good optimizers end in a loss that differs more from seed to seed than among them.
"""

import functools

import flax.linen as nn
import jax

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.scikit_learn import load_noisy_digits
from metaopt.workloads.models.convolution import convolve_by_matrix
from metaopt.workloads.supervised import SupervisedWorkload

_HE = nn.initializers.he_normal()


class ConvNet(nn.Module):
    """3 x 3 convolutions of stride 2 with ReLU between them, then a dense layer."""

    widths: tuple[int, ...]  # channels of each convolution
    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map images (n, 8, 8, 1) to logits (n, outputs)."""
        hidden = inputs
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
    summary="noisy 8x8 digits, two convolutions and a dense layer (21,386 parameters)",
    load=functools.partial(load_noisy_digits, noise=0.2, copies=8),
    whole={"train": 10_376, "validation": 250, "test": 250},
    model=ConvNet(widths=(32, 64), outputs=10),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    reference_batch_size=64,
    step_hint=400,
    eval_train_size=250,
    max_allowed_runtime_sec=20.0,
    eval_period_time_sec=1.0,
)
