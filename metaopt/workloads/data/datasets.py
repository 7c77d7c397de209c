"""Locate, verify and download data files.

Data is read from ``METAOPT_DATA_DIR`` in the format in which it is distributed. A file with a
canonical name is checked against its SHA-256 each time it is read.
"""

import dataclasses
import functools
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

VARIABLE = "METAOPT_DATA_DIR"


class Source(Protocol):
    """Data that a workload reads, and that may be missing."""

    def locate(self) -> Path:
        """Return the path; raise ``FileNotFoundError``, with the remedy, if it is missing."""
        ...

    def paths(self) -> list[Path]:
        """Return every file that is read; raises ``FileNotFoundError`` like ``locate``."""
        ...


@dataclasses.dataclass(frozen=True)
class DataFile:
    """A file as its authors distribute it, gzipped or not.

    Attributes:
        folder: Folder under ``METAOPT_DATA_DIR``.
        stem: Its canonical name, without ``.gz``.
        sha256: Checksums by canonical name, one for the gzipped and one for the plain file.
        url: Address of the gzipped file.
    """

    folder: str
    stem: str
    sha256: dict[str, str] = dataclasses.field(hash=False)
    url: str

    def read(self) -> bytes:
        """Return the content, unzipped.

        Files with a canonical name come first and must have the known checksum. Otherwise any file
        whose name ends in ``-<stem>`` or ``-<stem>.gz`` is used, such as a small one for tests.

        Raises:
            FileNotFoundError: The file is missing; the message has the folder and the remedy.
            ValueError: The SHA-256 is wrong, or the file is cut short.
        """
        path = self.locate()
        content = path.read_bytes()
        if path.name in self.sha256:
            digest = hashlib.sha256(content).hexdigest()
            if digest != self.sha256[path.name]:
                raise ValueError(
                    f"{path}: wrong checksum, refused: SHA-256 is {digest}, should be "
                    f"{self.sha256[path.name]}. Delete the file and get it again."
                )
        return unzipped(content, path) if path.suffix == ".gz" else content

    def locate(self) -> Path:
        """Return the path of the file; raises ``FileNotFoundError`` if it is not there."""
        root = data_root()
        if root is not None:
            folder = root / self.folder
            canonical = [folder / name for name in self.sha256]
            others = [*folder.glob(f"*-{self.stem}"), *folder.glob(f"*-{self.stem}.gz")]
            for path in [*canonical, *sorted(others)]:
                if path.is_file():
                    return path
        raise missing(
            f"file {self.stem}.gz", self.folder, f"python -m tuning download {self.folder}"
        )

    def paths(self) -> list[Path]:
        """Return the file."""
        return [self.locate()]

    def download(self, root: Path) -> Path:
        """Fetch the gzipped file into ``root`` and check it; a right one there is kept."""
        import pooch  # here, because only this needs the network

        name = f"{self.stem}.gz"
        known = f"sha256:{self.sha256[name]}"
        pooch.retrieve(self.url, known, fname=name, path=root / self.folder)
        return root / self.folder / name


def data_root() -> Path | None:
    """Return ``METAOPT_DATA_DIR`` as a path, ``None`` if it is not set."""
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


def digests(sources: Iterable[Source]) -> dict[str, str]:
    """Return the SHA-256 of every file of the sources, by path under ``METAOPT_DATA_DIR``.

    A file is read once per process, unless its size or its time of change is another.

    Raises:
        FileNotFoundError: A file is not there.
    """
    found = {}
    for path in sorted({path for source in sources for path in source.paths()}):
        root, status = data_root(), path.stat()
        name = path.relative_to(root).as_posix() if root else path.name
        found[name] = _digest(path, status.st_size, status.st_mtime_ns)
    return found


@functools.cache
def _digest(path: Path, size: int, changed: int) -> str:
    del size, changed  # what makes another file of the same path
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(what: str, folder: str, how: str) -> FileNotFoundError:
    """Return the error for missing data: its name, the searched folder, and the remedy."""
    root = data_root()
    return FileNotFoundError(
        f"Missing data {what}: looked in {root or '$' + VARIABLE}/{folder}/"
        f"{'' if root else f' ({VARIABLE} is not set)'}; to get it: {how}"
    )


def unzipped(content: bytes, path: Path) -> bytes:
    """Return the content of a gzip file.

    Raises:
        ValueError: It is cut short or something else.
    """
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file: {error}") from None
