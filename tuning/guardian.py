"""Ends what a driver leaves behind when it is killed.

Ray's processes end with their driver, except two agents, which wait for a minute. The guardian is a
process that waits for the driver's end, however it comes, and then kills the driver's descendants.
It ignores the signals with which a scheduler ends all processes of a job: the driver's end is its
own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil

_LOOK_SECONDS = 1.0  # at the driver's descendants


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Kill what was started in the block when it ends, or when this process does."""
    command = [sys.executable, __file__]
    guardian = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert guardian.stdin is not None
    try:
        yield
    finally:
        guardian.stdin.close()
        guardian.wait()


def guard(driver: psutil.Process) -> None:
    """Wait until standard input is closed, and kill the processes that the driver started since."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    before = {psutil.Process(), *driver.children(recursive=True)}
    found: set[psutil.Process] = set()
    while not ended.wait(_LOOK_SECONDS):
        with contextlib.suppress(psutil.Error):
            found |= set(driver.children(recursive=True))
    for process in found - before:
        with contextlib.suppress(psutil.Error):  # a reused process identifier is another process
            process.kill()


if __name__ == "__main__":
    guard(psutil.Process(os.getppid()))
