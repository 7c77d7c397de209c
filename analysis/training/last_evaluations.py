"""The last evaluation of every trial, and the best trial of each study by it.

A self-tuning run that trains several times from new initial parameters counts as several trials:
one for each deployed episode.
"""

import dataclasses
import math
from collections.abc import Iterable

from analysis.logs.logs import Logs, Trial
from metaopt.bench.measure.targets import Direction
from metaopt.bench.records import FAILURES

LOSS = "train/loss"
DEPLOYED = "deployed"  # the phase after learning


@dataclasses.dataclass(frozen=True)
class LastEvaluation:
    """A trial, or one of its episodes, and the row of its last evaluation."""

    trial: Trial
    row: int | None  # None: it has no evaluation

    def value(self, column: str) -> float:
        """Return a column's last value; NaN if it is absent, not a number or infinite."""
        if self.row is None:
            return math.nan
        value = float(self.trial.rows.column(column)[self.row])
        return value if math.isfinite(value) else math.nan

    @property
    def phase(self) -> str:
        """The phase of the last evaluation; empty if the logs have none."""
        return "" if self.row is None else self.trial.rows.text("phase")[self.row]

    @property
    def steps(self) -> float:
        """Optimizer steps since the last restart, up to the last evaluation."""
        start = self.value("episode_start_steps")
        return self.value("global_step") - (0.0 if math.isnan(start) else start)


def last_evaluations(logs: Logs) -> tuple[LastEvaluation, ...]:
    """Return every trial with its last evaluation, in the order of the logs.

    A trial that ended in the deployed phase of a later episode appears once per deployed episode.
    """
    return tuple(LastEvaluation(trial, row) for trial in logs.trials for row in _lasts(trial))


def _lasts(trial: Trial) -> list[int | None]:
    rows = trial.rows
    if not rows.rows:
        return [None]
    last, phases, episodes = rows.rows - 1, rows.text("phase"), rows.column("episode")
    if phases[last] != DEPLOYED or not episodes[last] > 0:
        return [last]
    deployed = {
        float(episode): i
        for i, (phase, episode) in enumerate(zip(phases, episodes, strict=True))
        if phase == DEPLOYED and not math.isnan(episode)
    }
    return [*deployed.values()]


def best_of_studies(
    ends: Iterable[LastEvaluation], column: str, better: Direction
) -> dict[int, LastEvaluation]:
    """Return the trial with the best last value in ``column``, for each study.

    Failed trials and values that are not finite are excluded. Of equal values the first is taken. A
    study without a candidate is left out.

    Args:
        ends: The last evaluations of one contender's trials on one workload.
        column: The column of the evaluations.
        better: The direction of improvement.
    """
    sign = 1.0 if better == "lower" else -1.0
    best: dict[int, LastEvaluation] = {}
    for end in ends:
        record, value = end.trial.record, sign * end.value(column)
        if record.status in FAILURES or math.isnan(value):
            continue
        known = best.get(record.study)
        if known is None or value < sign * known.value(column):
            best[record.study] = end
    return dict(sorted(best.items()))
