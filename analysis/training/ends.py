"""How training ended: of each contender's best trials, and of each episode of the learners.

A mean is over studies, from lowest to highest; that of a loss is geometric, as on a logarithmic
axis, and arithmetic if one is negative.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.logs.logs import Logs
from analysis.report.tables import Shown, Table, plain
from analysis.training.best import DEPLOYED, LOSS, Ended, best_of_studies
from analysis.training.curves import Episode
from analysis.training.episodes import Runs, is_loss, learning
from metaopt.bench.records import TrialRecord

ENDS_HEADER = (
    "workload", "contender", "studies", "found", "phase", "validation_metric", "test_metric",
    *(f"{part}_{edge}" for part in ("train_loss", "validation", "test", "steps")
      for edge in ("mean", "low", "high")),
)  # fmt: skip
EPISODES_HEADER = (
    "workload", "contender", "hyperparameters", "phase", "episode", "studies", "cut", "finite",
    "loss_mean", "loss_low", "loss_high",
)  # fmt: skip


# A deployed run goes on to the end of its budget. To set it beside an episode it is also read where
# it is as long as the run's first episode.
EPISODE_LONG = "deployed, an episode long"
_PHASES = ("learning", EPISODE_LONG, DEPLOYED)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean, lowest and highest of the finite values, and how many of how many these are."""

    mean: float  # NaN, as low and high, if there is none
    low: float
    high: float
    finite: int
    of: int


@dataclasses.dataclass(frozen=True)
class End:
    """The ends of a contender's best trials on a workload, one per study that has one."""

    workload: str
    contender: str
    studies: int  # that there should be
    found: int  # with a best trial
    phase: str  # of the last evaluations; several are joined by a slash
    validation_metric: str  # the target's
    test_metric: str
    loss: Summary
    validation: Summary
    test: Summary
    steps: Summary  # since the last restart


@dataclasses.dataclass(frozen=True)
class EpisodeEnd:
    """The last training loss of one episode of a learner's first runs."""

    workload: str
    contender: str
    hyperparameters: str  # JSON; empty if there are none, or the studies' differ
    phase: str  # learning, or deployed; EPISODE_LONG: early in the deployed run
    episode: int  # from 1 in each phase
    studies: int  # that have it
    cut: int  # of them, those whose run ended before the episode did
    loss: Summary  # of the others, or of these if there are no others


def summarize(values: Sequence[float], *, geometric: bool) -> Summary:
    """Return the summary of one value per study.

    Args:
        values: Those that are not finite are counted and left out.
        geometric: Take the geometric mean, if no value is negative.
    """
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return Summary(math.nan, math.nan, math.nan, 0, len(values))
    known = known + 0.0  # a loss may be -0
    low, high = float(known.min()), float(known.max())
    if geometric and low >= 0:
        mean = float(np.exp(np.log(known).mean())) if low > 0 else 0.0
    else:
        mean = float(known.mean())
    return Summary(min(max(mean, low), high), low, high, len(known), len(values))


def ends_of_training(logs: Logs, ends: Iterable[Ended]) -> list[End]:
    """Return how the best trials ended, by workload and contender (:mod:`analysis.training.best`).

    Best is decided by the last value of the target's metric, for every contender alike.
    """
    groups: dict[tuple[str, str], list[Ended]] = {}
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
            summarize([end.value(column) for end in best], geometric=is_loss(column))
            for column in (LOSS, metric, test)
        )
        found.append(
            End(
                workload, contender, logs.study_count, len(best),
                " / ".join(sorted({end.phase for end in best} - {""})),
                metric, test, loss, validation, tested,
                summarize([end.steps for end in best], geometric=False),
            )
        )  # fmt: skip
    return found


def ends_of_episodes(logs: Logs, runs: Runs) -> list[EpisodeEnd]:
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
            EpisodeEnd(
                workload, contender, "" if settings == "null" else settings, phase, number,
                len(values[False]) + len(values[True]), len(values[True]),
                summarize(values[False] or values[True], geometric=True),
            )
            for (phase, number), values in sorted(losses.items(), key=_learning_first)
        ]  # fmt: skip
    return found


def _learning_first(entry: tuple[tuple[str, int], Any]) -> tuple[int, int]:
    (phase, number), _ = entry
    return _PHASES.index(phase), number


def _episode_long(run: Sequence[Episode]) -> float | None:
    """Return a deployed run's loss after as many steps as the first episode had, if it has them."""
    episodes = [episode for episode in learning(run) if not episode.cut]
    deployed = [episode for episode in run if episode.phase == DEPLOYED]
    if not episodes or not deployed:
        return None
    length, later = (part[0].spent - part[0].start for part in (episodes, deployed))
    # A restart takes a step of its own, which only the first episode does not have.
    reached = np.flatnonzero(later <= length[-1] + 1)
    if not reached.size or later[-1] < length[-1]:
        return None
    return float(deployed[0].loss[reached[-1]])


def end_tables(ends: Sequence[End]) -> list[Table]:
    """Return one table per workload."""
    tables = []
    for workload in dict.fromkeys(end.workload for end in ends):
        mine = [end for end in ends if end.workload == workload]
        metric, test = mine[0].validation_metric, mine[0].test_metric
        rows = tuple(
            (
                plain(end.contender),
                summary_text(end.loss, ".3g"),
                summary_text(end.validation, ".3g" if is_loss(metric) else ".4g"),
                summary_text(end.test, ".3g" if is_loss(test) else ".4g"),
                summary_text(end.steps, ",.0f"),
                plain(end.phase) or "-",
                Shown(f"{end.found}/{end.studies}", end.found),
            )
            for end in mine
        )
        header = (
            "contender",
            "training loss",
            plain(metric),
            plain(test),
            "steps",
            "phase",
            "studies",
        )
        better = f"{plain(workload)}: the trial of each study with the best last {plain(metric)}"
        tables.append(Table(better, header, rows, workload=workload))
    return tables


def episode_tables(ends: Sequence[EpisodeEnd]) -> list[Table]:
    """Return one table per workload: a row per episode, a column per learner."""
    tables = []
    for workload in dict.fromkeys(end.workload for end in ends):
        mine = {(e.phase, e.episode, e.contender): e for e in ends if e.workload == workload}
        names = sorted({name for _, _, name in mine})
        first = {name: _first_of(mine, name) for name in names}
        rows = []
        for phase, number in sorted(
            {key[:2] for key in mine}, key=lambda k: (_PHASES.index(k[0]), k[1])
        ):
            label = str(number)
            if phase != "learning":
                label = phase if number == 1 else f"{phase} {number}"
            cells = [_loss_text(mine.get((phase, number, name)), first[name]) for name in names]
            rows.append((label, *cells))
        caption = f"{plain(workload)}: training loss at the last evaluation of each episode"
        header = ("episode", *map(plain, names))
        tables.append(Table(caption, header, tuple(rows), workload=workload))
    return tables


def _first_of(ends: Mapping[tuple[str, int, str], EpisodeEnd], name: str) -> int:
    """Return how many studies a learner has: those of its first episode, in whichever phase."""
    return max(end.studies for (_, number, n), end in ends.items() if n == name and number == 1)


def _loss_text(end: EpisodeEnd | None, studies: int) -> str:
    if end is None:
        return Shown("-", None)
    text = summary_text(end.loss, ".3g", studies) if end.loss.finite else "not finite"
    return Shown(f"{text} cut" if end.cut == end.studies else text, end.loss.mean)


def summary_text(summary: Summary, form: str, studies: int | None = None) -> str:
    """Return "mean (low to high)", with "k/n" behind it where only k of n studies have a value.

    Args:
        summary: The numbers.
        form: Their format.
        studies: n, if not all that the summary knows of.
    """
    if not summary.finite:
        return Shown("-", None)
    mean, low, high = (f"{value:{form}}" for value in (summary.mean, summary.low, summary.high))
    text = mean if low == high else f"{mean} ({low} to {high})"
    studies = summary.of if studies is None else studies
    text = text if summary.finite == studies else f"{text} {summary.finite}/{studies}"
    return Shown(text, summary.mean)


def end_rows(ends: Iterable[End]) -> list[tuple[Any, ...]]:
    """Return the lines of ``ends.csv`` below :data:`ENDS_HEADER`; NaN where there is no value."""
    return [
        (
            end.workload, end.contender, end.studies, end.found, end.phase, end.validation_metric,
            end.test_metric,
            *(value for part in (end.loss, end.validation, end.test, end.steps)
              for value in (part.mean, part.low, part.high)),
        )
        for end in ends
    ]  # fmt: skip


def episode_rows(ends: Iterable[EpisodeEnd]) -> list[tuple[Any, ...]]:
    """Return the lines of ``episodes.csv`` below :data:`EPISODES_HEADER`."""
    return [
        (
            end.workload, end.contender, end.hyperparameters or None, end.phase, end.episode,
            end.studies, end.cut, end.loss.finite, end.loss.mean, end.loss.low, end.loss.high,
        )
        for end in ends
    ]  # fmt: skip
