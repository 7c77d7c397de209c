"""Final values of each contender's best trials, and of each episode of the learners.

Means are over studies, with the lowest and the highest value. Means of losses are geometric, or
arithmetic if a loss is negative.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from analysis.logs.logs import Logs
from analysis.training.curves import Episode
from analysis.training.episodes import Runs, is_loss, learning_episodes
from analysis.training.last_evaluations import DEPLOYED, LOSS, LastEvaluation, best_of_studies
from metaopt.bench.records import TrialRecord

# A deployed run continues to the end of its budget. To compare it with an episode, it is also read
# after as many steps as the run's first episode had.
EPISODE_LONG = "deployed, an episode long"
PHASES = ("learning", EPISODE_LONG, DEPLOYED)


@dataclasses.dataclass(frozen=True)
class MeanAndRange:
    """Mean, lowest and highest of the finite values, and the counts of finite and all values."""

    mean: float  # NaN, as low and high, if there is none
    low: float
    high: float
    finite: int
    of: int


@dataclasses.dataclass(frozen=True)
class FinalValues:
    """The final values of a contender's best trials on a workload, one trial per study."""

    workload: str
    contender: str
    studies: int  # planned number
    found: int  # number of studies with a best trial
    phase: str  # phases of the last evaluations, joined by slashes
    validation_metric: str  # of the target
    test_metric: str
    loss: MeanAndRange
    validation: MeanAndRange
    test: MeanAndRange
    steps: MeanAndRange  # since the last restart


@dataclasses.dataclass(frozen=True)
class EpisodeFinalLoss:
    """The last training loss of one episode of a learner's first runs."""

    workload: str
    contender: str
    hyperparameters: str  # JSON; empty if there are none, or the studies' differ
    phase: str  # learning, or deployed; EPISODE_LONG: early in the deployed run
    episode: int  # from 1 in each phase
    studies: int  # number of studies with this episode
    cut: int  # number of those whose run ended before the episode did
    loss: MeanAndRange  # over the studies that were not cut; over all if all were cut


def mean_and_range(values: Sequence[float], *, geometric: bool) -> MeanAndRange:
    """Return the summary of one value per study.

    Args:
        values: The values; those that are not finite are left out.
        geometric: Whether to take the geometric mean if no value is negative.
    """
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return MeanAndRange(math.nan, math.nan, math.nan, 0, len(values))
    known = known + 0.0  # a loss may be -0
    low, high = float(known.min()), float(known.max())
    if geometric and low >= 0:
        mean = float(np.exp(np.log(known).mean())) if low > 0 else 0.0
    else:
        mean = float(known.mean())
    return MeanAndRange(min(max(mean, low), high), low, high, len(known), len(values))


def final_values(logs: Logs, ends: Iterable[LastEvaluation]) -> list[FinalValues]:
    """Return the final values of the best trial of each study, by workload and contender.

    Best is decided by the last value of the target's metric, for every contender alike.
    """
    groups: dict[tuple[str, str], list[LastEvaluation]] = {}
    targets: dict[str, TrialRecord] = {}  # one for all, even where logs were mixed
    for end in ends:
        record = end.trial.record
        targets.setdefault(record.workload, record)
        groups.setdefault((record.workload, record.contender), []).append(end)
    order = {workload: index for index, workload in enumerate(logs.workloads)}
    found = []
    for (workload, contender), mine in sorted(
        groups.items(), key=lambda group: (order[group[0][0]], group[0][1])
    ):
        record = targets[workload]
        metric = record.target.metric
        test = record.test_target.metric if record.test_target else ""
        test = test or metric.replace("validation/", "test/", 1)
        best = list(best_of_studies(mine, metric, record.target.better).values())
        loss, validation, tested = (
            mean_and_range([end.value(column) for end in best], geometric=is_loss(column))
            for column in (LOSS, metric, test)
        )
        found.append(
            FinalValues(
                workload, contender, logs.study_count, len(best),
                " / ".join(sorted({end.phase for end in best} - {""})),
                metric, test, loss, validation, tested,
                mean_and_range([end.steps for end in best], geometric=False),
            )
        )  # fmt: skip
    return found


def final_episode_losses(logs: Logs, runs: Runs) -> list[EpisodeFinalLoss]:
    """Return the last training losses of each episode of every learner."""
    found = []
    for (contender, workload), studies in sorted(runs.items(), key=lambda run: run[0][::-1]):
        pinned = {
            json.dumps(trial.record.hyperparameters, sort_keys=True)
            for trial in logs.of(contender, workload)
            if trial.record.trial == 1
        }
        losses: dict[tuple[str, int], dict[bool, list[float]]] = {}
        for run in studies.values():
            seen: dict[str, int] = {}
            for episode in run:
                phase = DEPLOYED if episode.phase == DEPLOYED else "learning"
                seen[phase] = seen.get(phase, 0) + 1
                both = losses.setdefault((phase, seen[phase]), {True: [], False: []})
                both[episode.cut].append(float(episode.loss[-1]))
            early = _episode_long(run)
            if early is not None:
                losses.setdefault((EPISODE_LONG, 1), {True: [], False: []})[False].append(early)
        settings = pinned.pop() if len(pinned) == 1 else "null"
        found += [
            EpisodeFinalLoss(
                workload, contender, "" if settings == "null" else settings, phase, number,
                len(values[False]) + len(values[True]), len(values[True]),
                mean_and_range(values[False] or values[True], geometric=True),
            )
            for (phase, number), values in sorted(losses.items(), key=_learning_first)
        ]  # fmt: skip
    return found


def _learning_first(entry: tuple[tuple[str, int], Any]) -> tuple[int, int]:
    (phase, number), _ = entry
    return PHASES.index(phase), number


def _episode_long(run: Sequence[Episode]) -> float | None:
    """Return a deployed run's loss after the number of steps of its first episode, if any."""
    episodes = [episode for episode in learning_episodes(run) if not episode.cut]
    deployed = [episode for episode in run if episode.phase == DEPLOYED]
    if not episodes or not deployed:
        return None
    length, later = (part[0].spent - part[0].start for part in (episodes, deployed))
    # A restart takes one step, which the first episode does not have.
    reached = np.flatnonzero(later <= length[-1] + 1)
    if not reached.size or later[-1] < length[-1]:
        return None
    return float(deployed[0].loss[reached[-1]])
