"""The files of a folder or a tar as one stream, without extracting: logs are strangers' files.

Nothing outside the root is opened, links and devices are not followed, and what is larger than its
limit is not read; each is an oddity under the name of a rule of :mod:`analysis.checks`. Threads
read the files of a folder ahead, and decompress a tar while its files are parsed.
"""

import dataclasses
import io
import os
import queue
import stat
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
MAX_ENTRIES = 5_000_000  # files and folders of one LOGS
MAX_ODDITIES = 10_000  # kept word for word; the others are counted
_THREADS = 4  # files of a folder that are read at once; what they wait for is the disk
_AHEAD = 16  # files in memory before they are parsed

Wanted = Callable[[str], int | None]  # path -> largest size in bytes that is read; None: not at all


class Oddity(NamedTuple):
    """Something that good logs do not have."""

    rule: str  # of analysis.checks
    where: str  # a path in the logs
    what: str


class Oddities:
    """What was noticed, in the order in which it was, without repetition."""

    def __init__(self) -> None:
        self.seen: dict[Oddity, None] = {}
        self.dropped = 0

    def add(self, rule: str, where: str, what: str) -> None:
        """Note something."""
        oddity = Oddity(rule, where, what)
        if len(self.seen) < MAX_ODDITIES:
            self.seen[oddity] = None
        elif oddity not in self.seen:
            self.dropped += 1


class Entry(NamedTuple):
    """A file or folder; paths are relative to the root, with slashes."""

    path: str
    content: bytes | None  # None: a folder, or a file that was not wanted
    is_folder: bool = False
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Source:
    """A folder or a tar, or the part of it under ``within``."""

    path: Path
    within: PurePosixPath

    @property
    def is_tar(self) -> bool:
        """Whether it is a file."""
        return self.path.is_file()

    def stream(self, wanted: Wanted, oddities: Oddities) -> Iterator[Entry]:
        """Yield every entry, with the content of those that are wanted.

        A folder comes in the order of its names, a tar in its own.

        Raises:
            ValueError: The tar is none or ends early, there are more entries than
                ``MAX_ENTRIES``, or nothing lies under ``within``.
        """
        entries = self._tar(wanted, oddities) if self.is_tar else self._folder(wanted, oddities)
        count = 0
        for count, entry in enumerate(entries, 1):
            if count > MAX_ENTRIES:
                raise ValueError(
                    f"{self.path}: more than {MAX_ENTRIES:,} files and folders, which is the "
                    "limit; choose a part with --within."
                )
            yield entry
        if not count:
            where = f"{self.path}: nothing" + (f" under {self.within}" if self.within.parts else "")
            raise ValueError(f"{where} that could be read; --within names a folder inside.")

    def _folder(self, wanted: Wanted, oddities: Oddities) -> Iterator[Entry]:
        root = self.path / self.within
        with ThreadPoolExecutor(_THREADS) as pool:
            ahead: deque[Callable[[], Entry | None]] = deque()
            for entry in _walk(root, oddities):
                limit = None if entry.is_folder else wanted(entry.path)
                if limit is None:
                    ahead.append(lambda entry=entry: entry)
                else:
                    ahead.append(pool.submit(_read, root, entry, limit, oddities).result)
                if len(ahead) > _AHEAD and (ready := ahead.popleft()()) is not None:
                    yield ready
            while ahead:
                if (ready := ahead.popleft()()) is not None:
                    yield ready

    def _tar(self, wanted: Wanted, oddities: Oddities) -> Iterator[Entry]:
        members: queue.Queue[Entry | Exception | None] = queue.Queue(_AHEAD)
        stop = threading.Event()

        def fill() -> None:
            try:
                for entry in _tar_entries(self.path, self.within, wanted, oddities):
                    if not _put(members, entry, stop):
                        return
                _put(members, None, stop)
            except Exception as error:
                _put(members, error, stop)

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        try:
            while (entry := members.get()) is not None:
                if isinstance(entry, Exception):
                    raise ValueError(f"{self.path}: not a whole tar file: {entry}") from None
                yield entry
        finally:
            stop.set()
            thread.join()


def open_source(path: Path, within: str | None = None) -> Source:
    """Return the folder or tar at ``path``, or the part of it under ``within``.

    Raises:
        ValueError: It is neither, or ``within`` leads out of it or to nothing.
    """
    inner = PurePosixPath(within or ".")
    if inner.is_absolute() or ".." in inner.parts:
        raise ValueError(f"`within` must lead into {path}, got {within!r}.")
    if path.is_dir():
        if not (path / inner).is_dir():
            raise ValueError(f"No folder {within!r} in {path}.")
        if not (path / inner).resolve().is_relative_to(path.resolve()):
            raise ValueError(f"`within` must lead into {path}, got {within!r}, a link out of it.")
        return Source(path, inner)
    if not path.is_file():
        raise ValueError(f"No folder {str(path)!r}, and no tar of that name.")
    if not path.name.endswith(TAR_SUFFIXES):
        raise ValueError(f"{path}: neither a folder nor a tar; one of {list(TAR_SUFFIXES)}.")
    return Source(path, inner)


def _put(members: queue.Queue, entry: Entry | Exception | None, stop: threading.Event) -> bool:
    """Hand an entry over, unless nobody wants it any more."""
    while not stop.is_set():
        try:
            members.put(entry, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _walk(root: Path, oddities: Oddities) -> Iterator[Entry]:
    """Yield what lies under ``root``, in the order of names, without content."""
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(root / folder) as listing:
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
                yield Entry(name, None, is_folder=True)
            elif entry.is_file():
                yield Entry(name, None)
            else:
                oddities.add("files-links", name, "a device, pipe or socket, not opened")
        todo += reversed(folders)


def _read(root: Path, entry: Entry, limit: int, oddities: Oddities) -> Entry | None:
    """Return an entry with its content; without, if it is too large or not what it was."""
    try:
        # A link or a pipe may have taken the file's place since it was listed.
        descriptor = os.open(root / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "not a file any more")
            if not _fits(entry.path, status.st_size, limit, oddities):
                return entry._replace(size=status.st_size)
            content = file.read(limit + 1)
    except OSError as error:
        oddities.add("files-unreadable", entry.path, f"cannot be read: {error.strerror}")
        return entry
    return entry._replace(content=content[:limit], size=len(content))


def _fits(path: str, size: int, limit: int, oddities: Oddities) -> bool:
    if size > limit:
        what = f"{size:,} bytes, not read: the limit of such a file is {limit:,}"
        oddities.add("files-size", path, what)
    return size <= limit


class _Member(tarfile.TarInfo):
    """A member of a tar that must come to its proper end.

    Python takes a header that is cut, empty or damaged for the end of the tar, unless it is the
    first: whatever came behind it would be missing without a word.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:  # pyright: ignore (its parameter's name)
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            raise  # the block of zeros that ends it
        except tarfile.HeaderError as error:
            what = f"it is cut off or damaged at byte {archive.offset:,} ({error})"
            raise tarfile.ReadError(what) from None


def _tar_entries(
    path: Path, within: PurePosixPath, wanted: Wanted, oddities: Oddities
) -> Iterator[Entry]:
    """Yield a tar's members under ``within``, as they come: nothing is kept of those before."""
    seen: set[str] = set()
    prefix = "" if within == PurePosixPath() else f"{within}/"
    with tarfile.open(path, "r|*", errorlevel=1, tarinfo=_Member) as archive:
        for member in archive:
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] (it keeps headers)
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if member.name.startswith("/") or ".." in parts:
                oddities.add("files-outside", member.name, "leads out of the tar, not read")
                continue
            name = "/".join(parts)
            if not name.startswith(prefix) or name == prefix[:-1]:
                continue
            inner = name[len(prefix) :]
            if member.isdir():
                yield Entry(inner, None, is_folder=True)
            elif not member.isreg():
                is_link = member.issym() or member.islnk()
                kind = "a link, not followed" if is_link else "a device or pipe, not opened"
                oddities.add("files-links", inner, kind)
            else:
                if inner in seen:
                    oddities.add("files-twice", inner, "twice in the tar; the first is read")
                    continue
                limit = wanted(inner)
                content = None
                if limit is not None:
                    seen.add(inner)
                    if _fits(inner, member.size, limit, oddities):
                        file = archive.extractfile(member)
                        content = (file or io.BytesIO()).read()
                yield Entry(inner, content, size=member.size)
