"""A miniature of AlgoPerf's imagenet_resnet: noisy digits under a residual network.

Layers have AlgoPerf's names, and ``model_fn`` has its rules for batch normalisation.
"""

import functools
from typing import Any

import flax.linen as nn
import jax

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.data.scikit_learn import load_noisy_digits
from metaopt.workloads.models.convolution import convolve_by_matrix
from metaopt.workloads.models.network import Network
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.supervised import SupervisedWorkload

CLASSES = 10


class ResNetBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to their input.

    The last scale starts at 0, so a block starts as the identity.
    """

    filters: int
    stride: int
    train: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (n, h, w, c) to (n, h / stride, w / stride, filters)."""
        convolution = functools.partial(
            nn.Conv, use_bias=False, conv_general_dilated=convolve_by_matrix
        )
        norm = functools.partial(nn.BatchNorm, use_running_average=not self.train, momentum=0.9)
        hidden = convolution(self.filters, (3, 3), self.stride)(images)
        hidden = convolution(self.filters, (3, 3))(nn.relu(norm()(hidden)))
        hidden = norm(scale_init=nn.initializers.zeros)(hidden)
        if images.shape != hidden.shape:
            images = convolution(self.filters, (1, 1), self.stride, name="Conv_proj")(images)
            images = norm(name="BatchNorm_proj")(images)
        return nn.relu(images + hidden)


class ResNet(nn.Module):
    """A convolution, one block per entry of ``filters``, the mean over pixels, a dense layer."""

    filters: tuple[int, ...]  # every block after the first halves the side

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, dropout_rate: Any = None
    ) -> jax.Array:
        """Map images (n, h, w, c) to logits (n, 10); there is no dropout."""
        del dropout_rate
        hidden = nn.Conv(
            self.filters[0], (3, 3), use_bias=False, conv_general_dilated=convolve_by_matrix,
            name="Conv_init",
        )(inputs)  # fmt: skip
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="BatchNorm_init")
        hidden = nn.relu(norm(hidden))
        for index, filters in enumerate(self.filters):
            hidden = ResNetBlock(filters, 2 if index else 1, train)(hidden)
        return nn.Dense(CLASSES, kernel_init=nn.initializers.normal())(hidden.mean((1, 2)))


class ResNetNetwork(Network):
    """AlgoPerf's rules for its ResNets in JAX: the mode is ignored.

    Unless ``use_running_average_bn`` decides it, running averages normalise where
    ``update_batch_norm`` is false. Averages that normalise do not move. With both false, the
    batch's statistics normalise and nothing moves; AlgoPerf's network raises an error there.
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
        """Return logits and model state."""
        averages = use_running_average_bn
        if averages is None:
            averages = not update_batch_norm
        mode = ForwardPassMode.EVAL if averages else ForwardPassMode.TRAIN
        moves = update_batch_norm and not averages
        return super().apply(params, batch, model_state, mode, rng, moves, dropout_rate, averages)


MINI_RESNET = SupervisedWorkload(
    name="mini_resnet",
    summary="noisy 8x8 digits, residual network with batch norm (19,810 parameters)",
    load=functools.partial(load_noisy_digits, noise=0.3, copies=8),
    whole={"train": 10_376, "validation": 250, "test": 250},
    model=ResNet(filters=(8, 16, 32)),
    has_modes=True,
    network_type=ResNetNetwork,
    parameter_types=algoperf_types,
    output_layer="Dense_0",
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    reference_batch_size=24,
    step_hint=300,
    eval_train_size=50,
    max_allowed_runtime_sec=30.0,
    eval_period_time_sec=2.0,
)
