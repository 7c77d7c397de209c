"""Progress bars: one for the campaign, one for each running study."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tuning.slots import StudyKey

Tell = Callable[[StudyKey, float], None]


@contextmanager
def show_progress(studies: int, console: Console | None) -> Iterator[Tell]:
    """Yield a function of a study and the spent share of its budget; any thread may call it.

    Nothing is shown if ``console`` is not a terminal.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=console is None or not console.is_terminal,
        transient=True,
    )
    total = progress.add_task(f"{studies} studies", total=float(studies))
    shares: dict[StudyKey, float] = {}
    tasks: dict[StudyKey, Any] = {}
    lock = threading.Lock()

    def tell(key: StudyKey, share: float) -> None:
        with lock:
            shares[key] = max(share, shares.get(key, 0.0))
            progress.update(total, completed=sum(shares.values()))
            if shares[key] >= 1.0:
                if key in tasks:
                    progress.remove_task(tasks.pop(key))
            elif key in tasks:
                progress.update(tasks[key], completed=share)
            else:
                tasks[key] = progress.add_task(f"  {key}", total=1.0)
                progress.update(tasks[key], completed=share)

    with progress:
        yield tell
