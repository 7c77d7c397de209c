"""Files that a user asks for: regular files are replaced, and nothing else."""

import os
import stat
from pathlib import Path

from metaopt.bench.records import write_text


def publish(path: Path, text: str) -> None:
    """Write a file that everybody may read: records are the owner's, a report is to be shown.

    A pipe or a character device is written to, never replaced.

    Raises:
        ValueError: ``path`` is a link, or a device or socket that cannot be written to.
    """
    mode = path.stat().st_mode if path.exists() else 0
    # A link may lead anywhere; to /dev/stdout and the like it is an honest one.
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
        return
    check_replaceable(path)
    write_text(path, text)
    path.chmod(0o644)


def check_replaceable(path: Path) -> None:
    """Check that nothing but a regular file would be replaced.

    Raises:
        ValueError: ``path`` is something else, such as a link.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise ValueError(f"{path} is not a regular file. Choose another path, or remove it.")
