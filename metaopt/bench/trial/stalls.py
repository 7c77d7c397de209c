"""A watch on a trial that may not return: it ends the process, and leaves the stack on disk.

The timer is :func:`faulthandler.dump_traceback_later`, which needs no global interpreter lock. So
it also sees compiled code that keeps the lock.
"""

import faulthandler
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

# A program that waits until this process has ended, which closes the program's standard input.
# Arguments: the stall file, and the line to print if the file has stacks.
_ANNOUNCE = """
import os, sys
sys.stdin.read()
path, line = sys.argv[1:]
if os.path.exists(path) and "Timeout" in open(path, encoding="utf-8", errors="replace").read():
    print(line, file=sys.stderr)
"""
_SLACK = 0.05  # of the limit: the timer is set again once in so long, and ends so much late


class StallWatch:
    """Ends the process, with exit code 1, when :meth:`beat` is not called for too long.

    A context manager around the work. All stacks are written to ``path`` first. Without a stall the
    file is gone afterwards. One watch per process can be active.

    Args:
        seconds: The limit, on the machine's own clock; longer than the longest compilation.
        path: Where the stacks go.
    """

    def __init__(self, seconds: float, path: Path) -> None:
        if not 0 < seconds < math.inf:  # also catches NaN
            raise ValueError(f"`stall_seconds` must be positive and finite, got {seconds}.")
        self._seconds = seconds
        self._path = path
        self._due = 0.0

    def beat(self) -> None:
        """Report progress; costs a fraction of a microsecond most of the time."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _SLACK * self._seconds
            faulthandler.dump_traceback_later(
                (1 + _SLACK) * self._seconds, exit=True, file=self._file
            )

    def __enter__(self) -> "StallWatch":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w", encoding="utf-8")
        self._file.write(f"{self._seconds:g}\n")
        self._file.flush()
        self.beat()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def watch_for_stalls(seconds: float | None, path: Path) -> Iterator[Callable[[], None]]:
    """Watch the block if there is a limit, and yield the function that reports progress.

    Args:
        seconds: The limit, see :class:`StallWatch`; ``None`` watches nothing.
        path: Where the stacks go.
    """
    if seconds is None:
        yield lambda: None
    else:
        with StallWatch(seconds, path) as watch:
            yield watch.beat


@contextmanager
def announced_stall(path: Path, line: str) -> Iterator[None]:
    """Print ``line`` on stderr if a stall in the block ends this process.

    The watch ends the process without another line of Python, so a small process waits for its end.

    Args:
        path: Where the stacks go.
        line: The line.
    """
    command = [sys.executable, "-I", "-S", "-c", _ANNOUNCE, str(path), line]
    # In a session of its own: Ctrl-C ends the trial, and this process after it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


def read_stall(path: Path) -> tuple[float, str] | None:
    """Return the limit in seconds and the stacks of a stall; ``None`` if there was none."""
    if not path.exists():
        return None
    limit, _, stacks = path.read_text("utf-8", "replace").partition("\n")
    return (float(limit), stacks) if stacks else None
