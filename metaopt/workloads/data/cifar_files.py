"""CIFAR-10 in the formats it is distributed in: python batches, binary batches, and one NPZ file.

Images are (n, 32, 32, 3) of uint8, labels (n,) of int32 from 0 to 9.
"""

import dataclasses
import hashlib
import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metaopt.workloads.data.datasets import data_root, missing

FOLDER = "cifar10"
CLASSES = 10
_PIXELS = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)

# MD5 of the python batches, as published for the archive cifar-10-python.tar.gz.
BATCH_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

_RECONSTRUCT = np.zeros(0, np.uint8).__reduce__()[0]  # NumPy's own, whatever it is called there
_ALLOWED = {  # the names in a python batch; the second is what NumPy 2 calls the first
    "numpy.core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
}

Examples = tuple[np.ndarray, np.ndarray]  # images and labels


@dataclasses.dataclass(frozen=True)
class CifarFiles:
    """The first of these that exists under ``METAOPT_DATA_DIR/cifar10/``.

    ``cifar-10-batches-py/``, ``cifar-10-batches-bin/``, then any ``*.npz``. Python batches must be
    the published ones. Subsets and data of your own go into an NPZ file.
    """

    def locate(self) -> Path:
        """Return the folder or file; raise ``FileNotFoundError`` if there is none."""
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
            "unpack an archive of https://www.cs.toronto.edu/~kriz/cifar.html there: "
            "cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a) or "
            "cifar-10-binary.tar.gz (MD5 c32a1d4ab5d03f1284b67883e8d87530)",
        )

    def paths(self) -> list[Path]:
        """Return the NPZ file or the batches; raise ``FileNotFoundError`` if one is missing."""
        path = self.locate()
        if path.suffix == ".npz":
            return [path]
        suffix = "" if path.name.endswith("-py") else ".bin"
        return [_batch_path(path, f"{name}{suffix}") for name in (*_TRAIN, *_TEST)]

    def read(self) -> tuple[Examples, Examples]:
        """Return training and test examples, in the order of the files.

        Raises:
            FileNotFoundError: There is no data, or a batch is missing.
            ValueError: A file is malformed; the message names the file, the rule and the value.
        """
        path = self.locate()
        if path.suffix == ".npz":
            return read_npz(path)
        if path.name.endswith("-py"):
            return _read_batches(path, "", read_published_batch)
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


def read_published_batch(content: bytes, path: Path) -> Examples:
    """Read a python batch whose MD5 is the published one (:data:`BATCH_MD5`).

    Raises:
        ValueError: The file has another checksum. It is not unpickled then.
    """
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if digest != BATCH_MD5[path.name]:
        raise ValueError(
            f"{path}: wrong checksum, refused: MD5 is {digest}, should be {BATCH_MD5[path.name]}. "
            "Unpack the published archive again, or put data of your own into an NPZ file."
        )
    return parse_python_batch(content, path)


def parse_python_batch(content: bytes, path: Path | str) -> Examples:
    """Read a pickled dictionary with ``data``, (n, 3072) of uint8, and ``labels``, a list.

    Raises:
        ValueError: The file is malformed, or asks for a name that no batch needs. Such a name is
            neither imported nor called.
    """
    try:
        batch = _BatchUnpickler(content).load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
        images = _from_planes(data)
    except Exception as error:  # a broken pickle raises nearly anything
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path}: not a python batch of CIFAR-10: {what}.") from None
    return checked(images, labels, path)


class _BatchUnpickler(pickle.Unpickler):
    """An unpickler that knows only the names in a batch; Python 2's strings become bytes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return what a name stands for.

        Raises:
            pickle.UnpicklingError: The name is not one of a batch's.
        """
        name = f"{module_name}.{global_name}"
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {name}, only {[*_ALLOWED]} are allowed")
        return _ALLOWED[name]


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
