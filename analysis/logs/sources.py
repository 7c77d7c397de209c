"""Read the files of a folder or a tar one by one, without extracting anything.

Logs are untrusted: links and devices are not followed, paths cannot leave the root, and files above
their size limit are not read. Each such case is noted as an oddity. A compressed tar is read to its
end, at most ``MAX_BYTES``, so that its checksum is verified.
"""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Self

from analysis.logs.oddities import Oddities

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
MAX_ENTRIES = 5_000_000  # files and folders
MAX_BYTES = 8 * 2**30  # of a tar, decompressed
_BLOCK = 2**18
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open, b"BZh": bz2.open,
}  # fmt: skip

SizeLimit = Callable[
    [str], int | None
]  # path -> largest size in bytes that is read; None: not at all


class FoundFile(NamedTuple):
    """A file or folder, with its path relative to the root."""

    path: str
    content: bytes | None  # None: a folder, or a file that was not wanted or not read
    is_folder: bool = False


def walk_files(
    path: Path, within: str | None, wanted: SizeLimit, oddities: Oddities
) -> Iterator[FoundFile]:
    """Yield every file and folder, with the content of the files that are wanted.

    The entries of a folder are sorted by name; those of a tar keep its order.

    Args:
        path: A folder or a tar.
        within: A folder inside ``path`` to use as the root; by default ``path`` itself.
        wanted: The size limit of a file in bytes, by its path; ``None`` to skip its content.
        oddities: The collection that oddities are added to.

    Raises:
        ValueError: ``path`` is neither a folder nor a complete tar, ``within`` is outside of it or
            missing, or a limit is exceeded.
    """
    inner = PurePosixPath(within or ".")
    if inner.is_absolute() or ".." in inner.parts:
        raise ValueError(f"`within` must lead into {path}, got {within!r}.")
    if path.is_dir():
        entries = _folder(_inside(path, inner), wanted, oddities)
    elif not path.is_file():
        raise ValueError(f"No folder {str(path)!r}, and no tar of that name.")
    elif not path.name.endswith(TAR_SUFFIXES):
        raise ValueError(f"{path}: neither a folder nor a tar; one of {list(TAR_SUFFIXES)}.")
    else:
        entries = _tar(path, inner, wanted, oddities)
    count = 0
    for count, entry in enumerate(entries, 1):
        if count > MAX_ENTRIES:
            raise ValueError(
                f"{path}: more than {MAX_ENTRIES:,} files and folders, which is the limit. Choose "
                "a part with --within."
            )
        yield entry
    if not count:
        where = f"{path}: nothing" + (f" under {within}" if inner.parts else "")
        raise ValueError(f"{where} that could be read; --within names a folder inside.")


def _inside(path: Path, inner: PurePosixPath) -> Path:
    root = path / inner
    if not root.is_dir():
        raise ValueError(f"No folder {str(inner)!r} in {path}.")
    if not root.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"`within` must lead into {path}, got {str(inner)!r}, a link out of it.")
    return root


def _folder(path: Path, wanted: SizeLimit, oddities: Oddities) -> Iterator[FoundFile]:
    root, todo = str(path), [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as listing:
                found = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            oddities.add("files-unreadable", folder or ".", f"cannot be listed: {error.strerror}")
            continue
        folders = []
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink():
                oddities.add("files-links", name, "a link, not followed")
            elif entry.is_dir():
                folders.append(name)
                yield FoundFile(name, None, is_folder=True)
            elif entry.is_file():
                limit = wanted(name)
                yield FoundFile(name, None if limit is None else _read(root, name, limit, oddities))
            else:
                oddities.add("files-links", name, "a device, pipe or socket, not opened")
        todo += reversed(folders)


def _read(root: str | Path, name: str, limit: int, oddities: Oddities) -> bytes | None:
    try:
        # The file may have been replaced by a link or a pipe since it was listed.
        descriptor = os.open(os.path.join(root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "not a file any more")
            size = status.st_size
            return file.read(size) if _fits(name, size, limit, oddities) else None
    except OSError as error:
        oddities.add("files-unreadable", name, f"cannot be read: {error.strerror}")
        return None


def _fits(path: str, size: int, limit: int, oddities: Oddities) -> bool:
    if size > limit:
        what = f"{size:,} bytes, not read: the limit of such a file is {limit:,}"
        oddities.add("files-size", path, what)
    return size <= limit


class _Member(tarfile.TarInfo):
    """A member of a tar that must end properly.

    Python treats a truncated, empty or damaged header as the end of the tar, unless it is the first
    header. All later members would then be lost silently.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:  # pyright: ignore (its parameter's name)
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            raise  # the block of zeros that ends a tar
        except tarfile.HeaderError as error:
            what = f"it is cut off or damaged at byte {archive.offset:,} ({error})"
            raise tarfile.ReadError(what) from None


class _TooLarge(Exception):
    pass


class _Limited:
    """A stream that raises an error after ``MAX_BYTES``."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.total = file, 0

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.total += len(data)
        if self.total > MAX_BYTES:
            raise _TooLarge
        return data


def _tar(
    path: Path, root: PurePosixPath, wanted: SizeLimit, oddities: Oddities
) -> Iterator[FoundFile]:
    with path.open("rb") as file:
        magic = file.read(5)
    opener = next((o for start, o in _OPENERS.items() if magic.startswith(start)), None)
    try:
        with path.open("rb") if opener is None else opener(path) as file:
            stream = _Limited(file)
            options: Any = {"fileobj": stream, "mode": "r|", "bufsize": _BLOCK}
            with tarfile.open(**options, errorlevel=1, tarinfo=_Member) as archive:
                yield from _members(archive, root, wanted, oddities)
            while stream.read(_BLOCK):  # to the end, where the checksum is
                pass
    except _TooLarge:
        raise ValueError(
            f"{path}: more than {MAX_BYTES:,} bytes when decompressed, which is the limit."
        ) from None
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole tar file: {error}") from None


def _members(
    archive: tarfile.TarFile, root: PurePosixPath, wanted: SizeLimit, oddities: Oddities
) -> Iterator[FoundFile]:
    seen: set[str] = set()
    prefix = "" if root == PurePosixPath() else f"{root}/"
    for member in archive:
        archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] (it keeps headers)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if member.name.startswith("/") or ".." in parts:
            oddities.add("files-outside", member.name, "leads out of the tar, not read")
            continue
        name = "/".join(parts)
        if not name.startswith(prefix) or name == prefix[:-1]:
            continue
        name = name[len(prefix) :]
        if member.isdir():
            yield FoundFile(name, None, is_folder=True)
        elif not member.isreg():
            is_link = member.issym() or member.islnk()
            kind = "a link, not followed" if is_link else "a device or pipe, not opened"
            oddities.add("files-links", name, kind)
        elif name in seen:
            oddities.add("files-twice", name, "twice in the tar; the first is read")
        else:
            content, limit = None, wanted(name)
            if limit is not None:
                seen.add(name)
                if _fits(name, member.size, limit, oddities):
                    file = archive.extractfile(member)
                    content = b"" if file is None else file.read()
            yield FoundFile(name, content)
