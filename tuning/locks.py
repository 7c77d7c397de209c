"""Locks on output folders. The system releases them when a process ends, also when it is killed."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


@contextmanager
def hold(path: Path, what: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock ``path`` for the block.

    Raises:
        ValueError: Another process holds it; names the process and the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=wait_seconds)
    owner = path.with_suffix(".owner")
    try:
        with lock:
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
            yield
    except filelock.Timeout:
        holder = owner.read_text("utf-8") if owner.exists() else "another process"
        raise ValueError(f"{what} is in use by {holder}; wait for it, or stop it.") from None
