"""MNIST in its original IDX files, and the paper's network on it."""

import math
import struct

import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.datasets import DataFile
from metaopt.workloads.models.mlp import MLP
from metaopt.workloads.supervised import Arrays, SupervisedWorkload

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/{}.gz"
_SHA256 = {
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
MNIST_FILES = {
    stem: DataFile("mnist", stem, {f"{stem}.gz": gzipped, stem: plain}, _URL.format(stem))
    for stem, (gzipped, plain) in _SHA256.items()
}

TRAIN_MEAN, TRAIN_STDDEV = np.float32(0.1307), np.float32(0.3081)

# The third byte of an IDX file's magic number says what its elements are; big-endian.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def parse_idx(content: bytes, name: str = "IDX data") -> np.ndarray:
    """Read the IDX format: magic number, sizes, elements.

    Raises:
        ValueError: ``content`` has another format, is cut short or too long.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES or content[3] == 0:
        raise ValueError(f"{name}: not an IDX file: starts with {content[:4]!r}.")
    dtype, dimensions = np.dtype(_DTYPES[content[2]]), content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise ValueError(f"{name}: cut short: {len(content)} bytes, its header alone has {header}.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        what = "cut short" if len(content) < expected else "too long"
        raise ValueError(
            f"{name}: {what}: {len(content)} bytes, but shape {shape} needs {expected}."
        )
    return np.frombuffer(content, dtype, offset=header).reshape(shape)


def load_mnist() -> Arrays:
    """Load 50,000 / 10,000 / 10,000 images of 784 pixels, split and standardised as AlgoPerf does.

    The last sixth of the training file is for validation, so small files of this format work too.
    """
    images, labels = _read_pair("train")
    test_images, test_labels = _read_pair("t10k")
    train = len(images) - max(1, len(images) // 6)
    return Arrays(
        train={"inputs": images[:train], "targets": labels[:train]},
        validation={"inputs": images[train:], "targets": labels[train:]},
        test={"inputs": test_images, "targets": test_labels},
    )


def _read_pair(part: str) -> tuple[np.ndarray, np.ndarray]:
    names = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    images, labels = (parse_idx(MNIST_FILES[name].read(), name) for name in names)
    if images.shape[1:] != (28, 28) or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(
            f"{names[0]}: images must be (n, 28, 28) of uint8 with n > 0, "
            f"got {images.shape} {images.dtype}."
        )
    if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
        raise ValueError(
            f"{names[1]}: labels must be ({len(images)},) of uint8 like the images, "
            f"got {labels.shape} {labels.dtype}."
        )
    if labels.max(initial=0) > 9:
        raise ValueError(f"{names[1]}: labels must be 0 to 9, got {labels.max()}.")
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255.0
    return (pixels - TRAIN_MEAN) / TRAIN_STDDEV, labels.astype(np.int32)


MNIST_MLP = SupervisedWorkload(
    name="mnist_mlp",
    summary="MNIST, MLP 784-100-100-10 (89,610 parameters), the paper's",
    load=load_mnist,
    whole={"train": 50_000, "validation": 10_000, "test": 10_000},
    files=tuple(MNIST_FILES.values()),
    model=MLP(widths=(100, 100), outputs=10),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    reference_batch_size=512,
    step_hint=1000,
    eval_period=50,
    target_metric="accuracy",
    max_allowed_runtime_sec=60.0,
    eval_period_time_sec=3.0,
)
