"""CIFAR-10 in the formats it is distributed in: python batches, binary batches, and one NPZ file.

Images are (n, 32, 32, 3) of uint8, labels (n,) of int32 from 0 to 9.

Python batches are pickles, which ``plain_pickle`` reads without unpickling.
"""

import dataclasses
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from metaopt.workloads.data.datasets import data_root, missing
from metaopt.workloads.data.plain_pickle import plain_pickle

FOLDER = "cifar10"
CLASSES = 10
_PIXELS = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)

Examples = tuple[np.ndarray, np.ndarray]  # images and labels


@dataclasses.dataclass(frozen=True)
class CifarFiles:
    """The first of these under ``METAOPT_DATA_DIR/cifar10/`` that is there.

    ``cifar-10-batches-py/``, ``cifar-10-batches-bin/``, then any ``*.npz``. There are no checksums:
    the archives are published with MD5 sums, and what is read here is their content.
    """

    def locate(self) -> Path:
        """Return the folder or file; raises ``FileNotFoundError`` if there is none."""
        root = data_root()
        if root is not None:
            folder = root / FOLDER
            named = [folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"]
            for path in [*named, *sorted(folder.glob("*.npz"))]:
                if path.exists():
                    return path
        raise missing(
            "cifar-10-batches-py/, cifar-10-batches-bin/ or *.npz",
            FOLDER,
            "unpack the python or the binary archive of https://www.cs.toronto.edu/~kriz/cifar.html"
            " there",
        )

    def paths(self) -> list[Path]:
        """Return the NPZ file or the batches; raises ``FileNotFoundError`` if one is missing."""
        path = self.locate()
        if path.suffix == ".npz":
            return [path]
        suffix = "" if path.name.endswith("-py") else ".bin"
        return [_batch_path(path, f"{name}{suffix}") for name in (*_TRAIN, *_TEST)]

    def read(self) -> tuple[Examples, Examples]:
        """Return training and test examples, in the order of the files.

        Raises:
            FileNotFoundError: There is no data, or a batch of it is missing.
            ValueError: A file is not what it should be; says which, the rule and the value.
        """
        path = self.locate()
        if path.suffix == ".npz":
            return read_npz(path)
        if path.name.endswith("-py"):
            return _read_batches(path, "", parse_python_batch)
        return _read_batches(path, ".bin", parse_binary_batch)


def _read_batches(
    folder: Path, suffix: str, parse: Callable[[bytes, Path], Examples]
) -> tuple[Examples, Examples]:
    def read(names: tuple[str, ...]) -> Examples:
        batches = []
        for name in names:
            path = _batch_path(folder, f"{name}{suffix}")
            batches.append(parse(path.read_bytes(), path))
        images, labels = zip(*batches, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    return read(_TRAIN), read(_TEST)


def _batch_path(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise missing(f"file {name}", f"{FOLDER}/{folder.name}", "unpack the whole archive")
    return path


def parse_binary_batch(content: bytes, path: Path | str) -> Examples:
    """Read records of one label and 3,072 pixels: a plane each of red, green and blue."""
    record = 1 + _PIXELS
    if not content or len(content) % record:
        raise ValueError(
            f"{path}: the size must be a multiple of {record} bytes and not 0, got {len(content)}."
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return checked(_from_planes(rows[:, 1:]), rows[:, 0], path)


def parse_python_batch(content: bytes, path: Path | str) -> Examples:
    """Read a pickled dictionary with ``data``, (n, 3072) of uint8, and ``labels``, a list."""
    batch = plain_pickle(content, path)
    if not isinstance(batch, dict):
        raise ValueError(f"{path}: the pickle must be a dictionary, got {type(batch).__name__}.")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: v for key, v in batch.items()}
    for key in ("data", "labels"):
        if key not in batch:
            raise ValueError(
                f"{path}: the batch must have {key!r}, got {sorted(map(str, batch))[:9]}."
            )
    data, labels = batch["data"], batch["labels"]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        got = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{path}: `data` must be an array (n, {_PIXELS}), got {got}.")
    kinds = {type(label) for label in labels} if isinstance(labels, list) else {type(labels)}
    if not isinstance(labels, list) or kinds - {int}:
        got = sorted(kind.__name__ for kind in kinds - {int})
        raise ValueError(f"{path}: `labels` must be a list of int, got {', '.join(got)}.")
    try:
        return checked(_from_planes(data), np.array(labels, np.int64), path)
    except OverflowError:
        raise ValueError(f"{path}: labels must be 0 to 9, got one above 2 ** 63.") from None


def read_npz(path: Path) -> tuple[Examples, Examples]:
    """Read ``x_train``, ``y_train``, ``x_test`` and ``y_test``; nothing in it is unpickled."""
    names = "x_train", "y_train", "x_test", "y_test"
    try:
        # Opened here, because numpy leaves a file open that is cut short.
        with path.open("rb") as raw, zipfile.ZipFile(raw), np.load(raw, allow_pickle=False) as file:
            lacking = [name for name in names if name not in file.files]
            if lacking:
                raise ValueError(f"{path}: the file must have {lacking}, got {file.files}.")
            for name in names:
                _check_claim(file.zip, f"{name}.npy")
            arrays = [file[name] for name in names]
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        # A RuntimeError is an encrypted file's, or that of a compression which is not there.
        raise ValueError(f"{path}: not a whole NPZ file: {error}") from None
    except ValueError as error:  # numpy's own do not name the file
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from None
    return checked(arrays[0], arrays[1], path), checked(arrays[2], arrays[3], path)


def _check_claim(archive: zipfile.ZipFile, name: str) -> None:
    """Raise ``ValueError`` if an array says to be larger than its file; numpy would allocate it."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        held = archive.getinfo(name).file_size - file.tell()
        needed = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and held != needed:  # objects are refused by numpy
            raise ValueError(f"{name} holds {held} bytes, but its shape {shape} needs {needed}.")


def checked(images: np.ndarray, labels: np.ndarray, path: Path | str) -> Examples:
    """Return images and labels with the types that are used.

    Raises:
        ValueError: A shape, a type or a label is wrong.
    """
    if images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(
            f"{path}: images must be (n, 32, 32, 3) of uint8 with n > 0, "
            f"got {images.shape} {images.dtype}."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: labels must be ({len(images)},) of integers like the images, "
            f"got {labels.shape} {labels.dtype}."
        )
    wrong = labels[(labels < 0) | (labels >= CLASSES)]
    if wrong.size:
        raise ValueError(f"{path}: labels must be 0 to 9, got {wrong[0]}.")
    return images, labels.astype(np.int32)


def _from_planes(rows: np.ndarray) -> np.ndarray:
    """Turn rows of a red, a green and a blue plane into images (n, 32, 32, 3)."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
