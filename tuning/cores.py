"""The cores that a process may use.

Each process of a campaign keeps to its share of the cores. Compiled code starts one thread for each
core that its process may use. If every process used all cores, their threads would wait for each
other (``tests/performance/bench_workers.py`` measures it).
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence


def available_cores() -> list[int]:
    """Return the cores that this process may use, as numbers; empty on systems without affinity."""
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return []
    return sorted(os.sched_getaffinity(0))


def share_cores(cores: Sequence[int], processes: int) -> list[list[int]]:
    """Divide all cores among processes, at least one to each.

    Args:
        cores: The numbers of the cores; empty gives empty shares.
        processes: The number of processes, at least 1. With fewer cores, some share a core.
    """
    if not cores:
        return [[] for _ in range(processes)]
    if len(cores) < processes:
        return [[cores[i % len(cores)]] for i in range(processes)]
    bounds = [len(cores) * i // processes for i in range(processes + 1)]
    return [list(cores[low:high]) for low, high in itertools.pairwise(bounds)]


def keep_to(cores: Sequence[int]) -> None:
    """Restrict this process to ``cores``; does nothing if ``cores`` is empty.

    Compiled code respects it only if this runs before JAX initialises its devices.
    """
    if cores:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def kept_to(cores: Sequence[int]) -> Iterator[None]:
    """Restrict this process to ``cores`` within a block."""
    before = available_cores()
    keep_to(cores)
    try:
        yield
    finally:
        keep_to(before)
