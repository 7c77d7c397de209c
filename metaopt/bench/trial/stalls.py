"""A trial that does not come back: somebody else has to notice, and to end its process."""

import math
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType


class StallWatch:
    """Watches the thread that made it, and speaks up when that has been silent for too long.

    As a context manager around the work: the work calls :meth:`beat` now and then. After
    ``seconds`` without a beat ``on_stall`` is called, in a thread of its own and once, with the
    watched thread's stack. It must end the process: a beat that comes after all waits for ever,
    so that nothing changes while ``on_stall`` writes down what it finds.

    What holds Python's global lock for ever (compiled code that does not let go of it, as JAX does)
    cannot be noticed from here.

    Args:
        seconds: Of silence, on the machine's own clock; at least the longest compilation.
        on_stall: Told the stack; does not return.
    """

    def __init__(self, seconds: float, on_stall: Callable[[traceback.StackSummary], None]) -> None:
        if not 0 < seconds < math.inf:  # also catches NaN
            raise ValueError(f"`stall_seconds` must be positive and finite, got {seconds}.")
        self._seconds = seconds
        self._on_stall = on_stall
        self._watched = threading.get_ident()
        self._speaking = threading.Lock()
        self._done = threading.Event()
        self._last = time.monotonic()

    def beat(self) -> None:
        """Say that the work goes on; costs a fraction of a microsecond."""
        with self._speaking:
            self._last = time.monotonic()

    def __enter__(self) -> "StallWatch":
        self.beat()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._speaking:
            self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(self._left()):
            with self._speaking:
                if self._left() > 0 or self._done.is_set():
                    continue
                frame = sys._current_frames()[self._watched]
                self._on_stall(traceback.extract_stack(frame))
                return

    def _left(self) -> float:
        return max(0.0, self._last + self._seconds - time.monotonic())


def no_beat() -> None:
    """Tell nobody: no stall is watched for."""
