"""Why a trial failed, in one line: the error's type, its message, and where it came from.

Nothing here needs JAX.
"""

import math
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_FRAME = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)


def describe_with_place(error: BaseException, folder: Path) -> str:
    """Return type, message and place of an error on one line.

    The place is a line of the submission, see :func:`line_of`. If the error passed through none,
    it is the line that raised it.

    Args:
        error: The exception, as it was caught.
        folder: The submission's folder.
    """
    what, frames = describe(error), traceback.extract_tb(error.__traceback__)
    place = line_of(error, folder)
    if place is None and frames:
        place = f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}"
    return what if place is None else f"{what} ({place})"


def describe(error: BaseException) -> str:
    """Return an error's type and its message, cut to 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(": ")


def line_of(error: BaseException, folder: Path) -> str | None:
    """Return the last line under ``folder`` that an error passed through, as ``file:line``.

    If it passed through none, the errors that it was raised from are searched as well.
    """
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_relative_to(folder):
        return f"{Path(error.filename or '').relative_to(folder).as_posix()}:{error.lineno}"
    places = (_place_in(traceback.extract_tb(one.__traceback__), folder) for one in _chain(error))
    return next((place for place in places if place is not None), None)


def describe_stall(seconds: float, stacks: str, folder: Path) -> str:
    """Return for how long a trial took no step, and at which line of the submission.

    Args:
        seconds: The limit.
        stacks: The stacks as :mod:`faulthandler` writes them, innermost frame first.
        folder: The submission's folder.
    """
    frames = [traceback.FrameSummary(file, int(line), "") for file, line in _FRAME.findall(stacks)]
    place = _place_in(reversed(frames), folder)
    where = f" ({place})" if place else ""
    return f"No step and no evaluation ended within {seconds:g} s.{where}"


def describe_divergence(row: Mapping[str, Any]) -> str:
    """Return which values of an evaluation row are not finite, and after which step."""
    values = ", ".join(f"{name} is {row[name]}" for name in not_finite(row))
    return f"After step {row['global_step']}: {values}."


def not_finite(row: Mapping[str, Any]) -> list[str]:
    """Return the names of the values in an evaluation row that are NaN or infinite, sorted."""
    return sorted(
        name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _place_in(frames: Iterable[traceback.FrameSummary], folder: Path) -> str | None:
    """Return ``file:line`` of the innermost frame under ``folder``."""
    for frame in reversed([*frames]):
        path = Path(frame.filename)
        if path.is_relative_to(folder):
            return f"{path.relative_to(folder).as_posix()}:{frame.lineno}"
    return None
