"""The progress file: it marks a trial as running, for the process that resumes it after a kill.

It is written when a segment of the trial begins, and deleted when the segment's record is written.
"""

import json
from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.records.layout import STALL_FILE
from metaopt.bench.trial.environment import utc_now
from metaopt.bench.trial.plan import TrialPlan, fingerprint

FILE = "progress.json"


def begin_segment(plan: TrialPlan, directory: Path) -> dict[str, Any]:
    """Mark the plan's next segment as running, and return the content of the progress file.

    Returns:
        ``plan`` (its fingerprint), ``tuner_seconds``, ``started_at`` of the trial, ``preemptions``
        (how often the trial was resumed after a kill), and ``died`` if it has killed its process.

    Raises:
        ValueError: A killed process ran a trial of another plan there.
    """
    left = _read(directory)
    if left and left["plan"]["segments"] >= len(plan.segments):
        _check(left["plan"], fingerprint(plan), directory)
        progress = {**left, "preemptions": left["preemptions"] + 1}
    else:  # the first segment, or one after a pause
        path = directory / records.RUN_FILE
        paused = records.read_trial(path) if path.exists() else None
        progress = {
            "plan": fingerprint(plan),
            "tuner_seconds": plan.tuner_seconds,
            "started_at": paused.started_at if paused else utc_now(),
            "preemptions": paused.preemptions if paused else 0,
        }
    records.write_json(directory / FILE, progress)
    return progress


def is_unfinished(plan: TrialPlan, directory: Path) -> bool:
    """Return whether a killed process left the plan's next segment there."""
    left = _read(directory)
    return bool(left) and left["plan"] == fingerprint(plan)


def end_segment(directory: Path) -> None:
    """Delete the marks of a running segment."""
    for name in (FILE, STALL_FILE):
        (directory / name).unlink(missing_ok=True)


def find_tuner_seconds(directory: Path, segments: int) -> float | None:
    """Return what it took to decide on a running segment; ``None`` if it was not begun.

    Args:
        directory: The trial's folder.
        segments: The number of the trial's segments before it.
    """
    left = _read(directory)
    return left["tuner_seconds"] if left and left["plan"]["segments"] == segments else None


def mark_died(directory: Path) -> None:
    """Note that the running trial in ``directory`` killed its process.

    When it is run again, it fails at the cost of its last checkpoint.
    """
    records.write_json(directory / FILE, {**_read(directory), "died": True})


def _read(directory: Path) -> dict[str, Any]:
    path = directory / FILE
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _check(then: dict[str, Any], now: dict[str, Any], directory: Path) -> None:
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
