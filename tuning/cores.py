"""The cores that a process may use.

Each process of a campaign keeps to its share of the cores. Compiled code starts one thread for each
core that its process may use. If every process used all cores, their threads would wait for each
other.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def available_cores() -> list[int]:
    """Return the cores that this process may use, as numbers; empty on systems without affinity."""
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return []
    return sorted(os.sched_getaffinity(0))


def keep_to(cores: Sequence[int]) -> None:
    """Restrict all threads of this process to ``cores``; does nothing if ``cores`` is empty.

    Compiled code respects it only if this runs before JAX initialises its devices.
    """
    if not cores:
        return
    tasks = Path("/proc/self/task")
    for thread in os.listdir(tasks) if tasks.exists() else ["0"]:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), cores)


@contextlib.contextmanager
def kept_to(cores: Sequence[int]) -> Iterator[None]:
    """Restrict this process to ``cores`` within a block."""
    before = available_cores()
    keep_to(cores)
    try:
        yield
    finally:
        keep_to(before)
