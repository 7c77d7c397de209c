"""CIFAR-10 in the formats it is distributed in: python batches, binary batches, and one NPZ file.

Images are (n, 32, 32, 3) of uint8, labels (n,) of int32 from 0 to 9.

Python batches are pickles, and a pickle may call anything. Here it may not: the few names that a
pickled array refers to are replaced by recorders of plain data, and every other name is refused.
"""

import dataclasses
import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metaopt.workloads.data import data_root, missing

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
            path = folder / f"{name}{suffix}"
            if not path.is_file():
                raise missing(
                    f"file {path.name}", f"{FOLDER}/{folder.name}", "unpack the whole archive"
                )
            batches.append(parse(path.read_bytes(), path))
        images, labels = zip(*batches, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    return read(_TRAIN), read(_TEST)


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
            raise ValueError(f"{path}: the batch must have {key!r}, got {sorted(map(str, batch))}.")
    data, labels = batch["data"], batch["labels"]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        got = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{path}: `data` must be an array (n, {_PIXELS}), got {got}.")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{path}: `labels` must be a list of int, got {str(labels)[:60]}.")
    try:
        return checked(_from_planes(data), np.array(labels, np.int64), path)
    except OverflowError:
        raise ValueError(f"{path}: labels must be 0 to 9, got {max(labels, key=abs)}.") from None


def read_npz(path: Path) -> tuple[Examples, Examples]:
    """Read ``x_train``, ``y_train``, ``x_test`` and ``y_test``; nothing in it is unpickled."""
    names = "x_train", "y_train", "x_test", "y_test"
    try:
        # Opened here, because numpy leaves a file open that is cut short.
        with path.open("rb") as raw, zipfile.ZipFile(raw), np.load(raw, allow_pickle=False) as file:
            lacking = [name for name in names if name not in file.files]
            if lacking:
                raise ValueError(f"{path}: the file must have {lacking}, got {file.files}.")
            arrays = [file[name] for name in names]
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a whole NPZ file: {error}") from None
    except ValueError as error:  # numpy's own do not name the file
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from None
    return checked(arrays[0], arrays[1], path), checked(arrays[2], arrays[3], path)


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


# A pickle of plain data.


def plain_pickle(content: bytes, path: Path | str) -> Any:
    """Unpickle dictionaries, lists, numbers, strings, bytes and arrays of bytes, nothing else.

    Raises:
        ValueError: The pickle is cut short, or refers to anything else, which is not called.
    """
    try:
        return _plain(_PlainUnpickler(io.BytesIO(content), encoding="bytes").load())
    except _RefusedError as error:
        raise ValueError(f"{path}: refused: {error}.") from None
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(f"{path}: not a whole pickle of plain data: {error!r}.") from None


class _RefusedError(Exception):
    """What the pickle asks for is not plain data."""


class _RecordedDtype:
    """Stands in for ``numpy.dtype``: only the one of bytes."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        if name not in ("u1", b"u1", "uint8", b"uint8"):
            raise _RefusedError(f"arrays must be of u1, got {name!r}")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment: bytes have none."""


class _RecordedArray:
    """Stands in for ``numpy.ndarray``."""

    array: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, content = state
        whole = isinstance(content, bytes) and all(type(size) is int for size in shape)
        if not (isinstance(dtype, _RecordedDtype) and whole and not fortran_order):
            raise _RefusedError("an array must be bytes in C order")
        if min(shape, default=0) < 0 or math.prod(shape) != len(content):
            raise _RefusedError(f"an array of shape {shape} cannot have {len(content)} bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape)


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise _RefusedError(f"text must be encoded as latin1, got {encoding!r}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RecordedArray,
    ("numpy._core.multiarray", "_reconstruct"): _RecordedArray,
    ("numpy", "ndarray"): _RecordedArray,
    ("numpy", "dtype"): _RecordedDtype,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes in the protocol of Python 2
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in; raises for every name that is not known."""
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _RefusedError(f"the pickle wants {module}.{name}, only arrays may be") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse: there is nothing outside the file."""
        raise _RefusedError(f"the pickle wants the outside object {pid!r}")


def _plain(value: Any) -> Any:
    """Return ``value`` with arrays for their stand-ins; raises for what is not plain data."""
    if isinstance(value, _RecordedArray) and value.array is not None:
        return value.array
    if type(value) is dict:
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or type(value) in (bytes, str, int, float, bool):
        return value
    raise _RefusedError(f"{type(value).__name__} is not plain data")
