"""CIFAR-10 and VGG-16 on it, at the paper's size and at one for two cores."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.cifar_files import CLASSES, CifarFiles, Examples
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.supervised import Arrays, SupervisedWorkload

FILES = CifarFiles()

# Of the training images, by channel, with pixels in [0, 1]; AlgoPerf's.
TRAIN_MEAN = np.array([0.49139968, 0.48215827, 0.44653124], np.float32)
TRAIN_STDDEV = np.array([0.24703233, 0.24348505, 0.26158768], np.float32)

# Configuration D of Simonyan and Zisserman: convolutions in each block, a pooling after each.
_CONVOLUTIONS = (2, 2, 3, 3, 3)
_HE = nn.initializers.he_normal()


class VGG16(nn.Module):
    """VGG-16 for 32 x 32 pixels: 13 convolutions with batch normalisation, one dense layer.

    Five poolings leave one pixel, so the two wide dense layers of the original are omitted. The
    convolutions have no biases, because batch normalisation would subtract them.

    References:
        Simonyan and Zisserman, `Very Deep Convolutional Networks for Large-Scale Image Recognition
        <https://arxiv.org/abs/1409.1556>`_, 2015.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)  # channels, by block
    outputs: int = CLASSES

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, dropout_rate: float = 0.0
    ) -> jax.Array:
        """Map images (n, 32, 32, 3) to logits (n, outputs)."""
        del dropout_rate  # batch normalisation replaces it
        hidden, number = inputs, 0
        for width, convolutions in zip(self.widths, _CONVOLUTIONS, strict=True):
            for _ in range(convolutions):
                conv = nn.Conv(
                    width, (3, 3), use_bias=False, kernel_init=_HE, name=f"conv_{number}"
                )
                bn = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"bn_{number}")
                hidden = nn.relu(bn(conv(hidden)))
                number += 1
            hidden = nn.max_pool(hidden, (2, 2), strides=(2, 2))
        flat = hidden.reshape(len(hidden), -1)
        return nn.Dense(self.outputs, name="output", kernel_init=_HE)(flat)


def standardise(batch: Batch) -> Batch:
    """Return the batch with its bytes as standardised pixels."""
    pixels = batch["inputs"].astype(jnp.float32) / 255.0
    mean, stddev = (x.reshape(1, 1, 1, 3) for x in (TRAIN_MEAN, TRAIN_STDDEV))
    return {**batch, "inputs": (pixels - mean) / stddev}


def load_cifar10() -> Arrays:
    """Load all images: 45,000 / 5,000 / 10,000 of the original files."""
    return _split(*FILES.read())


def load_cifar10_small() -> Arrays:
    """Load the first images of each class: 9,000 / 1,000 / 2,000, the same from every format."""
    train, test = FILES.read()
    return _split(_first_of_each_class(train, 1_000), _first_of_each_class(test, 200))


def _split(train: Examples, test: Examples) -> Arrays:
    """Use the last tenth of the training images for validation; images stay bytes."""
    images, labels = train
    cut = len(images) - max(1, len(images) // 10)
    return Arrays(
        train={"inputs": images[:cut], "targets": labels[:cut]},
        validation={"inputs": images[cut:], "targets": labels[cut:]},
        test={"inputs": test[0], "targets": test[1]},
    )


def _first_of_each_class(examples: Examples, count: int) -> Examples:
    """Keep ``count`` examples of each class, in their order."""
    images, labels = examples
    kept = [np.flatnonzero(labels == label)[:count] for label in range(CLASSES)]
    rows = np.sort(np.concatenate(kept))
    return images[rows], labels[rows]


_cifar10 = functools.partial(
    SupervisedWorkload,
    files=(FILES,),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    complete=standardise,
    has_modes=True,
)

CIFAR10_VGG16 = _cifar10(
    name="cifar10_vgg16",
    summary="CIFAR-10, VGG-16 with batch norm (14,724,042 parameters), the paper's",
    load=load_cifar10,
    whole={"train": 45_000, "validation": 5_000, "test": 10_000},
    model=VGG16(),
    reference_batch_size=512,
    step_hint=9_000,
    eval_period=450,
    max_eval_batch_size=1_000,
    max_allowed_runtime_sec=3_600.0,
    eval_period_time_sec=60.0,
)

CIFAR10_VGG16_SMALL = _cifar10(
    name="cifar10_vgg16_small",
    summary="a fifth of CIFAR-10, VGG-16 an eighth as wide (231,746 parameters)",
    load=load_cifar10_small,
    whole={"train": 9_000, "validation": 1_000, "test": 2_000},
    model=VGG16(widths=(8, 16, 32, 64, 64)),
    reference_batch_size=128,
    step_hint=700,
    eval_period=50,
    max_eval_batch_size=500,
    eval_train_size=1_000,
    max_allowed_runtime_sec=300.0,
    eval_period_time_sec=15.0,
)
