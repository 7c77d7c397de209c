"""A campaign's logs out of a tar, in memory: paths that stand in for those of a folder."""

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

from analysis.logs.files import MAX_DOCUMENT_BYTES, MAX_EVALUATION_BYTES
from analysis.logs.layout import locate
from analysis.logs.sources import Oddities, open_source
from metaopt.bench import identity, records

MAX_BYTES = 2 * 2**30  # of all files together

_LIMITS = {
    records.EVAL_FILE: MAX_EVALUATION_BYTES,
    records.RUN_FILE: MAX_DOCUMENT_BYTES,
    records.STUDY_FILE: MAX_DOCUMENT_BYTES,
    identity.FILE: MAX_DOCUMENT_BYTES,
    records.CAMPAIGN_FILE: MAX_DOCUMENT_BYTES,
}


@dataclasses.dataclass(frozen=True, order=True)
class MemoryPath:
    """The part of :class:`pathlib.Path` that reading logs needs."""

    path: PurePosixPath
    tree: dict[PurePosixPath, bytes | None] = dataclasses.field(compare=False, repr=False)
    children: dict[PurePosixPath, list[PurePosixPath]] = dataclasses.field(
        compare=False, repr=False
    )
    origin: Path = dataclasses.field(compare=False)

    def __truediv__(self, name: Any) -> "MemoryPath":
        return dataclasses.replace(self, path=self.path / str(name))

    def __str__(self) -> str:
        return f"{self.origin}:{self.path}"

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.name

    @property
    def parent(self) -> "MemoryPath":
        """The folder around it."""
        return dataclasses.replace(self, path=self.path.parent)

    def relative_to(self, other: "MemoryPath") -> PurePosixPath:
        """Return the path from a folder above."""
        return self.path.relative_to(other.path)

    def exists(self) -> bool:
        """Return whether it is in the tar."""
        return self.path in self.tree

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self.exists() and self.tree[self.path] is None

    def iterdir(self) -> Iterator["MemoryPath"]:
        """Yield what lies in the folder."""
        for path in self.children.get(self.path, ()):
            yield dataclasses.replace(self, path=path)

    def read_bytes(self) -> bytes:
        """Return the content."""
        content = self.tree.get(self.path)
        if content is None:
            raise FileNotFoundError(f"No file {self}.")
        return content

    def read_text(self, encoding: str) -> str:
        """Return the content as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb", **options: Any) -> Any:
        """Open it for reading, as bytes or as text."""
        raw = io.BytesIO(self.read_bytes())
        return raw if "b" in mode else io.TextIOWrapper(raw, **options)

    def stat(self) -> Any:
        """Return the size of the content."""
        return SimpleNamespace(st_size=len(self.read_bytes()))


def load_tar(path: Path, within: str | None, notes: list[str]) -> Path:
    """Read a campaign's records and evaluations into memory and return the folder they are in.

    Raises:
        ValueError: They are larger than ``MAX_BYTES``, or it is no tar.
    """
    oddities = Oddities()
    source = open_source(path, within)
    tree: dict[PurePosixPath, bytes | None] = {PurePosixPath(): None}
    root, total = "", 0
    for entry in source.stream(lambda name: _LIMITS.get(os.path.basename(name)), oddities):
        where = PurePosixPath(entry.path)
        if not entry.is_folder:
            tree[where] = entry.content or b""
            total += len(entry.content or b"")
            if total > MAX_BYTES:
                raise ValueError(
                    f"{path}: more than {MAX_BYTES:,} bytes of records and evaluations, which is "
                    "the limit; extract it, or choose a part with --within."
                )
        for folder in [where, *where.parents] if entry.is_folder else where.parents:
            tree.setdefault(folder, None)
        if (place := locate(entry.path)) is not None:
            root = place.root
    notes += [f"{oddity.where}: {oddity.what}" for oddity in oddities.seen]
    base = PurePosixPath(root)
    base = base.parent if base.name == "logs" else base
    children: dict[PurePosixPath, list[PurePosixPath]] = {}
    for where in tree:
        if where.parts:
            children.setdefault(where.parent, []).append(where)
    # It has what reading needs of a path and nothing else.
    return cast(Path, MemoryPath(base, tree, children, path))
