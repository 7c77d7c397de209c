"""A miniature of AlgoPerf's fastmri: patches of photographs, of which columns of k-space are lost.

The mask is the same for all patches: 6 central columns of 32, and 4 others. The zero-filled image,
the magnitude of the inverse transform, is the input; the patch is the target. Each split has its
own part of both photographs, which stands for a volume. Layers have AlgoPerf's names.

Letters: n images, h rows, w columns, c channels.

References:
    Zbontar et al., `fastMRI: An Open Dataset and Benchmarks for Accelerated MRI
    <https://arxiv.org/abs/1811.08839>`_, 2018.
    Wang et al., `Image Quality Assessment: From Error Visibility to Structural Similarity
    <https://doi.org/10.1109/TIP.2003.819861>`_, 2004.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.data.photographs import load_photographs
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.supervised import SupervisedWorkload

SIDE = 32  # of a patch, in pixels
WINDOW = 7  # of the structural similarity, in pixels
_CENTRAL, _OTHERS = 6, 4  # columns of k-space that are kept
_REGIONS = (0, 192), (192, 256), (256, 320)  # columns of the photographs, by split
# The mean of each window of a row of pixels, as a matrix.
_AVERAGE = np.mean([np.eye(SIDE - WINDOW + 1, SIDE, k, np.float32) for k in range(WINDOW)], axis=0)
_CLIP = 6.0
_EPSILON = 1e-5


def space_to_depth(images: jax.Array) -> jax.Array:
    """Map (n, h, w, c) to (n, h / 2, w / 2, 4 c): each square of 2 x 2 pixels becomes one."""
    n, h, w, c = images.shape
    squares = images.reshape(n, h // 2, 2, w // 2, 2, c)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def depth_to_space(images: jax.Array) -> jax.Array:
    """Undo :func:`space_to_depth`."""
    n, h, w, c = images.shape
    squares = images.reshape(n, h, w, 2, 2, c // 4)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def halve(images: jax.Array) -> jax.Array:
    """Return the mean of each square of 2 x 2 pixels, (n, h / 2, w / 2, c)."""
    n, h, w, c = images.shape
    return images.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def normalise_instance(images: jax.Array) -> jax.Array:
    """Scale each channel of each image to mean 0 and variance 1."""
    centred = images - images.mean((1, 2), keepdims=True)
    variance = jnp.square(centred).mean((1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(variance + _EPSILON)


def activate(images: jax.Array) -> jax.Array:
    """Normalise, then apply a leaky ReLU."""
    return nn.leaky_relu(normalise_instance(images), 0.2)


class ConvBlock(nn.Module):
    """A 3 x 3 convolution without bias, instance normalisation and a leaky ReLU."""

    channels: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (n, h, w, c) to (n, h, w, channels)."""
        return activate(nn.Conv(self.channels, (3, 3), use_bias=False)(images))


class ConvTranspose(nn.Module):
    """A transposed convolution whose 2 x 2 windows do not overlap: one matrix product."""

    channels: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (n, h, w, c) to (n, 2 h, 2 w, channels)."""
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (2, 2, images.shape[-1], self.channels)
        )
        squares = jnp.einsum("nhwc,ijcd->nhwijd", images, kernel)
        return depth_to_space(squares.reshape(*images.shape[:3], -1))


class TransposeConvBlock(nn.Module):
    """A transposed convolution, instance normalisation and a leaky ReLU."""

    channels: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (n, h, w, c) to (n, 2 h, 2 w, channels)."""
        return activate(ConvTranspose(self.channels, name="ConvTranspose_0")(images))


class UNet(nn.Module):
    """Blocks at falling and rising resolution; the output is added to the input.

    It begins at half the resolution, with four pixels as channels, and its last layer starts at 0:
    a fresh network returns its input.
    """

    channels: tuple[int, ...]  # by resolution, the highest first

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map images (n, h, w) to (n, h, w)."""
        hidden = space_to_depth(inputs[..., None])
        *upper, lowest = self.channels
        skipped = []
        for channels in upper:
            skipped.append(ConvBlock(channels)(hidden))
            hidden = halve(skipped[-1])
        hidden = ConvBlock(lowest)(hidden)
        for channels in reversed(upper):
            hidden = TransposeConvBlock(channels)(hidden)
            hidden = ConvBlock(channels)(jnp.concatenate([hidden, skipped.pop()], axis=-1))
        output = nn.Conv(4, (1, 1), kernel_init=nn.initializers.zeros)
        return inputs + depth_to_space(output(hidden))[..., 0]


def structural_similarity(one: jax.Array, other: jax.Array, data_range: jax.Array) -> jax.Array:
    """Return the mean structural similarity (SSIM) of pairs of images, (n,).

    Args:
        one: Images (n, h, w).
        other: Images (n, h, w).
        data_range: The largest value of each pair, (n,).
    """

    def mean(images: jax.Array) -> jax.Array:
        """Return the mean of every window that lies inside the image."""
        return jnp.matmul(jnp.matmul(_AVERAGE, images), _AVERAGE.T)

    sample = WINDOW**2 / (WINDOW**2 - 1)  # from the mean of squares to the sample variance
    mean_one, mean_other = mean(one), mean(other)
    variances = sample * (mean(one**2 + other**2) - mean_one**2 - mean_other**2)
    covariance = sample * (mean(one * other) - mean_one * mean_other)
    c1, c2 = (jnp.square(k * data_range)[:, None, None] for k in (0.01, 0.03))
    similarity = (2 * mean_one * mean_other + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_one**2 + mean_other**2 + c1) * (variances + c2))
    return similarity.mean((1, 2))


def mean_similarity(label_batch: Any, logits_batch: jax.Array, mask_batch: Any) -> jax.Array:
    """Return the mean SSIM after the standardisation is undone; labels are ``metric_inputs``."""
    targets, mean, deviation, volume_max = label_batch
    deviation, mean = deviation[:, None, None], mean[:, None, None]
    data_range = jnp.where(volume_max == 0, 1.0, volume_max)  # 0 in padded rows
    similarity = structural_similarity(
        logits_batch * deviation + mean, targets * deviation + mean, data_range
    )
    return jnp.average(similarity, weights=mask_batch)


def zero_filled(patches: np.ndarray) -> np.ndarray:
    """Return the magnitude of patches (n, 32, 32) of which most columns of k-space are lost."""
    mask = np.zeros(SIDE, bool)
    first = (SIDE - _CENTRAL) // 2
    mask[first : first + _CENTRAL] = True
    lost = np.flatnonzero(~mask)
    mask[np.random.default_rng(0).choice(lost, _OTHERS, replace=False)] = True
    spectrum = np.fft.fftshift(np.fft.fft2(patches), axes=(1, 2)) * mask
    return np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(1, 2))))


def load_patches() -> Arrays:
    """Cut 2,048 patches for training, 200 for validation and 100 for tests, without flat ones.

    Inputs and targets are (n, 32, 32), standardised by the input's mean and deviation, and clipped;
    ``mean``, ``std`` and ``volume_max``, the largest value in the split's part of the photograph,
    are (n,).
    """
    photographs = load_photographs() / 255.0
    parts = [
        _cut(photographs[:, :, first:last], size, seed)
        for seed, (size, (first, last)) in enumerate(zip((2_048, 200, 100), _REGIONS, strict=True))
    ]
    return Arrays(*parts)


def _cut(photographs: np.ndarray, size: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng([2, seed])
    patches, volume_max = [], []
    while len(patches) < size:
        photograph = photographs[random.integers(len(photographs))]
        row, column = (random.integers(length - SIDE + 1) for length in photograph.shape)
        patch = photograph[row : row + SIDE, column : column + SIDE]
        if patch.std() > 0.05:
            patches.append(patch)
            volume_max.append(photograph.max())
    targets = np.stack(patches)
    inputs = zero_filled(targets)
    mean, deviation = inputs.mean((1, 2)), inputs.std((1, 2))
    inputs, targets = (
        np.clip((images - mean[:, None, None]) / deviation[:, None, None], -_CLIP, _CLIP)
        for images in (inputs, targets)
    )
    part = {
        "inputs": inputs, "targets": targets, "mean": mean, "std": deviation,
        "volume_max": np.array(volume_max),
    }  # fmt: skip
    return {key: value.astype(np.float32) for key, value in part.items()}


MINI_FASTMRI = SupervisedWorkload(
    name="mini_fastmri",
    summary="patches of photographs from a third of k-space, U-Net (16,068 parameters)",
    load=load_patches,
    whole={"train": 2_048, "validation": 200, "test": 100},
    model=UNet(channels=(8, 16, 40)),
    parameter_types=algoperf_types,
    output_layer="Conv_0",
    loss_type=LossType.MEAN_ABSOLUTE_ERROR,
    metrics={"ssim": mean_similarity},
    metric_inputs=("targets", "mean", "std", "volume_max"),
    target_metric="ssim",
    reference_batch_size=8,
    step_hint=300,
    eval_period=50,
    eval_train_size=8,
    max_allowed_runtime_sec=30.0,
    eval_period_time_sec=2.0,
)
