"""Progress: bars on a terminal, otherwise a line for each finished study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tuning.studies import StudyKey

Tell = Callable[[StudyKey, float], None]


@contextmanager
def show_progress(studies: int, finished: int, console: Console | None) -> Iterator[Tell]:
    """Yield a function of a study and the spent share of its budget.

    On a terminal there is a bar for the campaign and one for each running study. Elsewhere every
    study that ends gets a line.

    Args:
        studies: The number of the campaign's studies.
        finished: How many of them had ended before.
        console: Where to show it; ``None`` shows nothing.
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
    shares: dict[StudyKey, float] = {}
    tasks: dict[StudyKey, Any] = {}
    lines = console is not None and not console.is_terminal
    ended = finished
    total = progress.add_task(f"{studies} studies", total=studies, completed=finished)

    def tell(key: StudyKey, share: float) -> None:
        nonlocal ended
        shares[key] = max(share, shares.get(key, 0.0))
        progress.update(total, completed=finished + sum(shares.values()))
        if share >= 1.0:
            ended += 1
            if lines and console is not None:
                console.print(f"{ended} of {studies}: {key}", markup=False, highlight=False)
            if key in tasks:
                progress.remove_task(tasks.pop(key))
        elif key in tasks:
            progress.update(tasks[key], completed=shares[key])
        else:
            tasks[key] = progress.add_task(f"  {key}", total=1.0)
            progress.update(tasks[key], completed=share)

    if lines and console is not None and finished:
        console.print(f"{finished} of {studies} studies ended before", highlight=False)
    with progress:
        yield tell
