"""The last evaluation of every trial, and the best trial of each study by it.

A self-tuning run that trains several times, from new initial parameters each time, is as many
trials here: each of its deployed episodes has an end. A campaign has thousands of trials; the last
line of a file is read from its end.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from analysis.logs.reading import Logs, Trial
from metaopt.bench.records import EVAL_FILE, FAILURES
from metaopt.bench.targets import Direction

LOSS = "train/loss"
DEPLOYED = "deployed"  # the phase after learning
_TAIL = 4096  # bytes; several lines of our own


@dataclasses.dataclass(frozen=True)
class Ended:
    """A trial and its last evaluation, as text by column; empty if it has none.

    Or that of one of its episodes.
    """

    trial: Trial
    last: Mapping[str, str]

    def value(self, column: str) -> float:
        """Return a column's last value; NaN if it is absent, not a number or infinite."""
        try:
            value = float(self.last.get(column, ""))
        except ValueError:
            return math.nan
        return value if math.isfinite(value) else math.nan

    @property
    def steps(self) -> float:
        """Optimizer steps since the last restart, up to the last evaluation."""
        start = self.value("episode_start_steps")
        return self.value("global_step") - (0.0 if math.isnan(start) else start)


def read_ends(logs: Logs) -> tuple[Ended, ...]:
    """Return every trial with its last evaluation, in the order of the logs.

    Of a trial that ended deployed, in an episode that was not its first, every deployed episode
    with its own.
    """
    return tuple(Ended(trial, last) for trial in logs.trials for last in _lasts(trial))


def _lasts(trial: Trial) -> list[dict[str, str]]:
    path = trial.folder / EVAL_FILE
    last = read_last(path)
    if last.get("phase") != DEPLOYED or last.get("episode", "") in ("", "0"):
        return [last]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, restkey="", restval="")
            return list({row["episode"]: row for row in table if row["phase"] == DEPLOYED}.values())
    except (OSError, ValueError, csv.Error):  # damaged, but for its last row
        return [last]


def read_last(path: Path) -> dict[str, str]:
    """Return the last row of a CSV file with a header; empty if there is none to be read."""
    try:
        with path.open("rb") as file:
            header = file.readline()
            begin = file.tell()
            size = file.seek(0, io.SEEK_END)
            file.seek(max(begin, size - _TAIL))
            lines = file.read().rstrip(b"\r\n").split(b"\n")
            # A quote may enclose the end of a line; and the last line may be longer than the tail.
            if b'"' in lines[-1] or (len(lines) == 1 and size - begin > _TAIL):
                file.seek(0)
                return _last_of(file.read())
        return _last_of(header + lines[-1])
    except (OSError, ValueError, csv.Error):
        return {}


def _last_of(content: bytes) -> dict[str, str]:
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    return dict(zip(rows[0], rows[-1], strict=True)) if len(rows) > 1 else {}


def best_of_studies(ends: Iterable[Ended], column: str, better: Direction) -> dict[int, Ended]:
    """Return the best end of each study: the one with the best value in ``column``.

    That of a failed trial never is, nor one whose value is not a finite number; of equals the
    first is. A study without any other is left out.

    Args:
        ends: Of one contender's trials on one workload.
        column: Of the evaluations.
        better: Which values are better.
    """
    sign = 1.0 if better == "lower" else -1.0
    best: dict[int, Ended] = {}
    for end in ends:
        record, value = end.trial.record, sign * end.value(column)
        if record.status in FAILURES or math.isnan(value):
            continue
        known = best.get(record.study)
        if known is None or value < sign * known.value(column):
            best[record.study] = end
    return dict(sorted(best.items()))
