"""Where data lies, whether it is what it should be, and how to get it.

Data is looked up under ``METAOPT_DATA_DIR`` in the format in which it is distributed. A file with a
canonical name is checked against its SHA-256 each time it is read.
"""

import dataclasses
import gzip
import hashlib
import os
import zlib
from pathlib import Path

VARIABLE = "METAOPT_DATA_DIR"


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

        Files with a canonical name come first and must have the known checksum. Failing those, any
        file whose name ends in ``-<stem>`` or ``-<stem>.gz`` will do, a small one for tests say.

        Raises:
            FileNotFoundError: It is not there; says where it was looked for and how to get it.
            ValueError: Its SHA-256 is another one, or it is cut short.
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
        if path.suffix != ".gz":
            return content
        try:
            return gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file: {error}") from None

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
        raise FileNotFoundError(
            f"Missing data file {self.stem}.gz: looked in {root or '$' + VARIABLE}/{self.folder}/"
            f"{'' if root else f' ({VARIABLE} is not set)'}; "
            f"to get it: python -m tuning download {self.folder}"
        )

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
