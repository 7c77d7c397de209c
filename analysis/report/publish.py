"""Write output files: only regular files are ever replaced."""

import os
import stat
from pathlib import Path

from metaopt.bench.records import write_text


def publish(path: Path, text: str) -> None:
    """Write a file that all users may read, unlike records, which only their owner may read.

    A pipe or a character device is written to and not replaced.

    Raises:
        ValueError: ``path`` is a link, a folder, a socket or a block device.
    """
    mode = path.stat().st_mode if path.exists() else 0
    # Links are refused below, except those to a pipe or a terminal, such as /dev/stdout.
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
        return
    check_replaceable(path)
    write_text(path, text)
    path.chmod(0o644)


def check_replaceable(path: Path) -> None:
    """Check that ``path`` is a regular file or does not exist.

    Raises:
        ValueError: ``path`` is something else, such as a link.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise ValueError(f"{path} is not a regular file. Choose another path, or remove it.")
