"""The progress file: what an unfinished trial leaves behind for the process that goes on with it.

It is there from the trial's start to its record, or to its pause.
"""

import json
from pathlib import Path
from typing import Any

from metaopt.bench.records import write_json
from metaopt.bench.trial.plan import TrialPlan, fingerprint

FILE = "progress.json"


def read_progress(directory: Path) -> dict[str, Any]:
    """Return what the unfinished trial in ``directory`` left behind; nothing if there is none."""
    path = directory / FILE
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write_progress(directory: Path, progress: dict[str, Any]) -> None:
    """Leave ``progress`` behind; the file goes where it is empty."""
    if progress:
        write_json(directory / FILE, progress)
    else:
        (directory / FILE).unlink(missing_ok=True)


def read_progress_of(plan: TrialPlan, directory: Path) -> dict[str, Any]:
    """Return what a killed process left of the turn that ``plan`` is for; nothing if none was.

    Raises:
        ValueError: It is of another plan.
    """
    before = read_progress(directory)
    if not before or _segments(before) < len(plan.segments):
        return {}  # a kill left it behind when the trial had paused
    then, now = before["plan"], fingerprint(plan)
    differing = [
        f"{key}: {then.get(key)!r} there, {now[key]!r} now"
        for key in now
        if then.get(key) != now[key]
    ]
    if differing:
        raise ValueError(
            f"{directory} holds an unfinished trial of another plan ({'; '.join(differing)}). Use "
            "another output folder, or delete it."
        )
    return before


def find_tuner_seconds(directory: Path, segments: int) -> float | None:
    """Return what it took to decide on a turn that was begun; ``None`` if it was not.

    Args:
        directory: The trial's folder.
        segments: How many of its segments came before the turn.
    """
    before = read_progress(directory)
    if not before or _segments(before) != segments:
        return None
    return before.get("tuner_seconds")


def mark_died(directory: Path) -> None:
    """Leave word that the unfinished trial in ``directory`` killed its process.

    When it is run again, it fails at the cost of its last checkpoint instead of going on.
    """
    write_progress(directory, {**read_progress(directory), "died": True})


def _segments(progress: dict[str, Any]) -> int:
    return progress["plan"].get("segments") or 0
