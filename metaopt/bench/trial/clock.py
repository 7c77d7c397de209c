"""The clock: it waits for the device before it is read, and counts compilation apart.

AlgoPerf's clock waits for nothing in JAX, so queued work slips into its untimed evaluation. Ours
waits for everything that a step returned, and for every other array of the process, before the
segment's end is read: a step may have queued work that it did not return.
Between evaluations it is not read at all (budgets in steps or gradient evaluations) or read without
waiting (budgets in seconds), so a submission keeps its overlap of Python and device.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import jax.monitoring

# The cost of a new shape or a new function before it first runs.
_COMPILATION_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_compilation_seconds = 0.0


class Clock(Protocol):
    """A source of time, in seconds from any origin."""

    def now(self) -> float:
        """Return the time."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return the time in seconds."""
        return time.perf_counter()


class Stopwatch:
    """Seconds by purpose, read from one clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.training = 0.0
        self.compilation = 0.0
        self.evaluation = 0.0
        self.logging = 0.0
        self._segment_start: float | None = None
        self._compiled_before = 0.0

    def start_segment(self) -> None:
        """Begin charging the submission."""
        self._segment_start = self.clock.now()
        self._compiled_before = compilation_seconds()

    def running(self) -> float:
        """Return the submission's seconds including the open segment, without waiting."""
        start = self._segment_start
        return self.training if start is None else self.training + self.clock.now() - start

    def compiled(self) -> float:
        """Return the seconds of compilation including the open segment's."""
        if self._segment_start is None:
            return self.compilation
        return self.compilation + compilation_seconds() - self._compiled_before

    def end_segment(self, results: Any) -> None:
        """Wait for ``results`` (any pytree) and all queued work; stop charging the submission."""
        jax.block_until_ready((results, jax.live_arrays()))
        self.abandon_segment()

    def abandon_segment(self) -> None:
        """Stop charging the submission without waiting; nothing happens if that is so already."""
        if self._segment_start is None:
            return
        self.training, self.compilation = self.running(), self.compiled()
        self._segment_start = None

    @contextmanager
    def paused(self, results: Any = None) -> Iterator[None]:
        """Do not charge the submission for the block.

        Args:
            results: What to wait for first, with all queued work; ``None`` waits for nothing.
        """
        is_running = self._segment_start is not None
        if is_running and results is None:
            self.abandon_segment()
        elif is_running:
            self.end_segment(results)
        try:
            yield
        finally:
            if is_running:
                self.start_segment()

    @contextmanager
    def measure(self, purpose: str) -> Iterator[None]:
        """Add the time of the block to ``evaluation`` or ``logging``."""
        start = self.clock.now()
        try:
            yield
        finally:
            setattr(self, purpose, getattr(self, purpose) + self.clock.now() - start)


def compilation_seconds() -> float:
    """Return what this process has spent on tracing, lowering and compiling so far."""
    return _compilation_seconds


def _on_duration(event: str, duration_secs: float, **_: Any) -> None:
    global _compilation_seconds
    if event in _COMPILATION_EVENTS:
        _compilation_seconds += duration_secs


jax.monitoring.register_event_duration_secs_listener(_on_duration)
