"""Which cores a process may use.

Each process of a campaign keeps to its share of the machine. Compiled code takes as many threads as
its process may use cores; processes that each took them all would wait for each other's threads
(``tests/performance/bench_workers.py`` measures it).
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence


def available_cores() -> list[int]:
    """Return the cores that this process may use, as numbers; an empty list if nobody can say."""
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return []
    return sorted(os.sched_getaffinity(0))


def share_cores(cores: Sequence[int], processes: int) -> list[list[int]]:
    """Divide cores among processes: all of them, to each at least one.

    Args:
        cores: Their numbers; none gives nobody any.
        processes: How many, at least 1. Where they are more than the cores, some share one.
    """
    if not cores:
        return [[] for _ in range(processes)]
    if len(cores) < processes:
        return [[cores[i % len(cores)]] for i in range(processes)]
    bounds = [len(cores) * i // processes for i in range(processes + 1)]
    return [list(cores[low:high]) for low, high in itertools.pairwise(bounds)]


def keep_to(cores: Sequence[int]) -> None:
    """Let this process run on ``cores`` alone; not at all if there are none named.

    It counts for compiled code if it comes before JAX looks for its devices.
    """
    if cores:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def kept_to(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process to ``cores`` for the length of a block."""
    before = available_cores()
    keep_to(cores)
    try:
        yield
    finally:
        keep_to(before)
