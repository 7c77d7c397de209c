r"""Aligned text: two files, plain or gzipped, whose lines translate each other.

Lines end with ``\n`` and nothing else: the other characters that Unicode counts as line ends occur
inside sentences, and a file split there is no longer aligned.
"""

import dataclasses
from pathlib import Path

from metaopt.workloads.data.datasets import data_root, missing, unzipped


@dataclasses.dataclass(frozen=True)
class AlignedText:
    """The pairs of files ``<stem>.<source>`` and ``<stem>.<target>``, each also as ``.gz``.

    There are no checksums: the texts are distributed in several archives and file forms.

    Attributes:
        folder: Folder under ``METAOPT_DATA_DIR``.
        stem: The files' common name, or a pattern; pairs are then read one after the other.
        how: How to get them.
        source: Ending of the files that are translated.
        target: Ending of the files with the translations.
    """

    folder: str
    stem: str
    how: str
    source: str = "en"
    target: str = "de"

    def locate(self) -> Path:
        """Return the first file; raises ``FileNotFoundError`` if a file is not there."""
        return self._pairs()[0][0]

    def paths(self) -> list[Path]:
        """Return the files of both languages; raises ``FileNotFoundError`` if one is not there."""
        return [path for pair in self._pairs() for path in pair]

    def read(self) -> tuple[list[str], list[str]]:
        """Return the lines of both languages.

        Raises:
            FileNotFoundError: A file is not there.
            ValueError: A file is cut short or is not UTF-8, or two have unequal numbers of lines.
        """
        sources, targets = [], []
        for paths in self._pairs():
            source, target = (read_lines(path) for path in paths)
            if len(source) != len(target):
                raise ValueError(
                    f"{paths[0]} and {paths[1]}: aligned files must have as many lines, "
                    f"got {len(source)} and {len(target)}."
                )
            sources += source
            targets += target
        if not sources:
            raise ValueError(f"{self.locate()}: the text must have a line, got none.")
        return sources, targets

    def _pairs(self) -> list[tuple[Path, Path]]:
        root = data_root()
        folder = None if root is None else root / self.folder
        found = [] if folder is None else _files(folder, self.stem, self.source)
        if folder is None or not found:
            raise self._missing(self.source)
        pairs = []
        for stem, path in found:
            partner = dict(_files(folder, stem, self.target)).get(stem)
            if partner is None:
                raise self._missing(self.target, stem)
            pairs.append((path, partner))
        return pairs

    def _missing(self, language: str, stem: str = "") -> FileNotFoundError:
        name = f"{stem or self.stem}.{language}"
        return missing(f"file {name} or {name}.gz", self.folder, self.how)


def read_lines(path: Path) -> list[str]:
    r"""Return the lines of a file, split at ``\n`` only; raises ``ValueError`` if it is broken."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = unzipped(content, path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the text must be UTF-8: {error}") from None
    return text.removesuffix("\n").split("\n") if text else []


def _files(folder: Path, stem: str, language: str) -> list[tuple[str, Path]]:
    """Return ``(stem, path)`` of the files of a language; plain ones come before gzipped ones."""
    by_stem: dict[str, Path] = {}
    for ending in (f".{language}", f".{language}.gz"):
        for path in sorted(folder.glob(f"{stem}{ending}")):
            if path.is_file():
                by_stem.setdefault(path.name.removesuffix(ending), path)
    return sorted(by_stem.items())
