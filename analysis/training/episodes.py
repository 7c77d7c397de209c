"""Training curves over episodes and since deployment: the numbers of the paper's figures.

    T        steps of an episode
    first    the first run of a study; it represents a learner
    best     of a study, the trial with the best last value; see
             :mod:`analysis.training.last_evaluations`

A learner is a self-tuning contender with more than one episode; every other contender is a
baseline. Steps are optimizer steps.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.logs.logs import Logs
from analysis.training.curves import Band, Episode, finite_values, read_episodes
from analysis.training.last_evaluations import DEPLOYED, LOSS, LastEvaluation, best_of_studies

SMOOTHING = 9  # evaluations in a running mean, where every step is evaluated

Runs = Mapping[tuple[str, str], Mapping[int, Sequence[Episode]]]
EpisodeRows = Mapping[str, NDArray[np.float64]]  # (evaluations,) each
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps, values; both (evaluations,)


@dataclasses.dataclass(frozen=True)
class Piece(Band):
    """A mean over studies, with the lowest and the highest of them, at the steps ``x``."""

    studies: int  # number of averaged studies
    cut: bool = False  # whether some run ended before the episode did


@dataclasses.dataclass(frozen=True)
class Line:
    """One contender's pieces, one per episode, or a single piece."""

    name: str
    pieces: tuple[Piece, ...]


@dataclasses.dataclass(frozen=True)
class OverEpisodes:
    """The training loss of learners with the same T, the baselines repeated in each episode.

    Attributes:
        starts: The steps before each episode.
        length: T.
        window: The number of evaluations in the running mean; 1 for none.
        changing: Whether batches change and nothing was deployed; otherwise the runs learned on one
            batch, or were deployed later.
        geometric: Whether means are geometric; they are arithmetic if a loss is negative.
    """

    workload: str
    learners: tuple[Line, ...]
    baselines: tuple[Line, ...]
    starts: tuple[float, ...]
    length: int
    window: int
    changing: bool
    geometric: bool


@dataclasses.dataclass(frozen=True)
class Panel:
    """One metric since deployment, or since the start for contenders that deploy nothing."""

    metric: str
    lines: tuple[Line, ...]
    geometric: bool


@dataclasses.dataclass(frozen=True)
class SinceDeployment:
    """Deployed learners and the baselines on one workload.

    Attributes:
        learners: The names of the learners that deployed.
        shown: The steps of the longest tuned trial; without tuned trials, of the longest line.
        longest: The steps of the longest line.
        left_out: The learners that never deployed here.
    """

    workload: str
    panels: tuple[Panel, ...]
    learners: tuple[str, ...]
    shown: float
    longest: float
    left_out: tuple[str, ...]


def read_runs(logs: Logs) -> Runs:
    """Return the episodes of each learner's first runs, by (contender, workload) and study."""
    runs: dict[tuple[str, str], dict[int, list[Episode]]] = {}
    for trial in logs.trials:
        record = trial.record
        if record.ruleset == "self-tuning" and record.trial == 1:
            found = read_episodes(trial, "steps")
            runs.setdefault((record.contender, record.workload), {})[record.study] = found
    return {key: run for key, run in runs.items() if max(map(len, run.values())) > 1}


def learning_episodes(run: Sequence[Episode]) -> list[Episode]:
    """Return the episodes before deployment."""
    return [episode for episode in run if episode.phase != DEPLOYED]


def over_episodes(
    logs: Logs, runs: Runs, ends: Iterable[LastEvaluation], workload: str
) -> list[OverEpisodes]:
    """Return the learners of a workload over their episodes, one entry for each T.

    Deployed phases are left out. If batches change, learners that never deploy are in a figure of
    their own.
    """
    ends = tuple(ends)
    fixed = _is_fixed(logs, workload)
    groups: dict[tuple[bool, int], dict[str, list[list[Episode]]]] = {}
    for (name, where), studies in runs.items():
        learned = [learning_episodes(run) for run in studies.values()]
        if where != workload or max(map(len, learned)) < 2:
            continue
        deploys = any(e.phase == DEPLOYED for run in studies.values() for e in run)
        length = float(np.median([run[1].start - run[0].start for run in learned if len(run) > 1]))
        if length > 0:  # else the steps are not in the logs
            groups.setdefault((not (fixed or deploys), round(length)), {})[name] = learned
    baselines = _baseline_losses(runs, ends, workload) if groups else {}
    found = [
        _over_episodes(
            workload,
            group,
            baselines,
            length,
            window=SMOOTHING if fixed and _is_dense(group) else 1,
            changing=changing,
        )
        for (changing, length), group in sorted(groups.items(), key=lambda entry: entry[0])
    ]
    return [figure for figure in found if figure]


def _over_episodes(
    workload: str,
    group: Mapping[str, list[list[Episode]]],
    baselines: Mapping[str, list[Curve]],
    length: int,
    *,
    window: int,
    changing: bool,
) -> OverEpisodes | None:
    starts = [
        float(np.median([episode.start for episode in same if episode]))
        for same in itertools.zip_longest(*(run for runs in group.values() for run in runs))
    ]
    within = {
        name: [_until(curve, length) for curve in curves] for name, curves in baselines.items()
    }
    losses = [episode.loss for runs in group.values() for run in runs for episode in run]
    losses += [values for curves in within.values() for _, values in curves]
    floor = positive_floor(losses)

    learners = []
    for name, runs in group.items():
        pieces = []
        for start, same in zip(starts, itertools.zip_longest(*runs), strict=False):
            curves = [(e.spent - e.start, e.loss) for e in same if e]
            piece = mean_over_studies(curves, window=window, floor=floor)
            if piece:
                cut = any(e.cut for e in same if e)
                pieces.append(dataclasses.replace(piece, x=piece.x + start, cut=cut))
        if pieces:
            learners.append(Line(name, tuple(pieces)))
    if not learners:
        return None
    repeated = []
    for name, curves in within.items():
        piece = mean_over_studies(curves, window=window, floor=floor)
        if piece:
            shifted = (dataclasses.replace(piece, x=piece.x + start) for start in starts)
            repeated.append(Line(name, tuple(shifted)))
    return OverEpisodes(
        workload=workload,
        learners=tuple(learners),
        baselines=tuple(repeated),
        starts=tuple(starts),
        length=length,
        window=window,
        changing=changing,
        geometric=floor is not None,
    )


def since_deployment(
    logs: Logs, runs: Runs, ends: Iterable[LastEvaluation], workload: str
) -> SinceDeployment | None:
    """Return training loss and target metric since deployment, or since the start for baselines.

    Each study contributes its best trial by the last value of the target metric. The result is
    ``None`` if the batch is fixed or nothing was deployed.
    """
    if _is_fixed(logs, workload):
        return None
    contenders = _by_contender(ends, workload)
    if not contenders:
        return None
    target = next(iter(contenders.values()))[0].trial.record.target
    by_name: dict[str, list[EpisodeRows]] = {}
    learners, left_out, tuned = [], [], set()
    for name, mine in contenders.items():
        best = best_of_studies(mine, target.metric, target.better).values()
        tuned |= {name for end in best if end.trial.record.ruleset == "external"}
        if (name, workload) in runs:
            best = [end for end in best if end.phase == DEPLOYED]
            (learners if best else left_out).append(name)
        by_name[name] = [since_restart(end, [LOSS, target.metric]) for end in best]
    panels = [_panel(by_name, metric) for metric in dict.fromkeys([LOSS, target.metric])]
    panels = tuple(panel for panel in panels if panel.lines)
    reach = {line.name: float(line.pieces[0].x[-1]) for panel in panels for line in panel.lines}
    if not reach.keys() & learners:
        return None
    longest = max(reach.values())
    shown = max((steps for name, steps in reach.items() if name in tuned), default=longest)
    return SinceDeployment(workload, panels, tuple(learners), shown, longest, tuple(left_out))


def _panel(by_name: Mapping[str, list[EpisodeRows]], metric: str) -> Panel:
    curves = {
        name: [(rows["steps"], rows[metric]) for rows in tables] for name, tables in by_name.items()
    }
    values = [values for several in curves.values() for _, values in several]
    floor = positive_floor(values) if is_loss(metric) else None
    pieces = {name: mean_over_studies(several, floor=floor) for name, several in curves.items()}
    lines = tuple(Line(name, (piece,)) for name, piece in pieces.items() if piece)
    return Panel(metric, lines, floor is not None)


def mean_over_studies(
    curves: Iterable[Curve], *, window: int = 1, floor: float | None = None
) -> Piece | None:
    """Return the mean, lowest and highest of the studies' curves where all have a value.

    Each curve is interpolated linearly between its evaluations, smoothed by a centred running mean
    over ``window`` evaluations (fewer at the ends), and cut at its first value that is not finite.
    Empty curves are left out.

    Args:
        curves: One curve per study.
        window: The number of evaluations in the running mean.
        floor: If given, values are raised to at least the floor and averaged as logarithms, so that
            means are geometric.

    Returns:
        The mean; ``None`` if the curves have no step in common.
    """
    kept = [curve for curve in map(_finite_beginning, curves) if len(curve[0])]
    if not kept:
        return None
    grid = np.unique(np.concatenate([steps for steps, _ in kept]))
    first, last = max(steps[0] for steps, _ in kept), min(steps[-1] for steps, _ in kept)
    grid = grid[(grid >= first) & (grid <= last)]
    if not len(grid):
        return None
    table = []
    for steps, values in kept:
        scaled = values if floor is None else np.log(np.maximum(values, floor))
        if window > 1:
            rolling = pd.Series(scaled).rolling(window, center=True, min_periods=1)
            scaled = np.asarray(rolling.mean())
        table.append(np.interp(grid, steps, scaled))
    three = [reduce(table, axis=0) for reduce in (np.mean, np.min, np.max)]
    if floor is not None:
        three = [np.exp(values) for values in three]
    return Piece(grid, *three, studies=len(kept))


def positive_floor(values: Iterable[NDArray[np.float64]]) -> float | None:
    """Return the smallest positive value, the floor for means of logarithms.

    The result is ``None``, for arithmetic means, if a value is negative or none is positive.
    """
    known = np.concatenate([np.zeros(0), *(part[np.isfinite(part)] for part in values)])
    positive = known[known > 0]
    return float(positive.min()) if len(positive) and not (known < 0).any() else None


def is_loss(metric: str) -> bool:
    """Return whether a metric is a loss: its means are geometric, its axis is logarithmic."""
    return "loss" in metric


def since_restart(end: LastEvaluation, columns: Sequence[str]) -> EpisodeRows:
    """Return ``steps`` since the start of the last episode, and the columns in its rows."""
    rows = end.trial.rows
    episode = end.value("episode")
    kept = np.ones(rows.rows, bool) if math.isnan(episode) else rows.column("episode") == episode
    start = np.nan_to_num(rows.column("episode_start_steps"))
    found = {"steps": finite_values(rows, "global_step") - start}
    found |= {name: finite_values(rows, name) for name in columns}
    return {name: values[kept] for name, values in found.items()}


def _baseline_losses(
    runs: Runs, ends: Sequence[LastEvaluation], workload: str
) -> dict[str, list[Curve]]:
    """Return the loss curves of the best trial of each study of every baseline."""
    curves = {}
    for name, mine in _by_contender(ends, workload).items():
        if (name, workload) not in runs:
            best = best_of_studies(mine, LOSS, "lower").values()
            rows = [since_restart(end, [LOSS]) for end in best]
            curves[name] = [(r["steps"], r[LOSS]) for r in rows]
    return curves


def _is_dense(group: Mapping[str, list[list[Episode]]]) -> bool:
    """Return whether the learners were evaluated at every step."""
    episodes = (e for runs in group.values() for run in runs for e in run)
    gaps = np.concatenate([np.diff(episode.spent) for episode in episodes])
    return len(gaps) > 0 and float(np.median(gaps)) <= 1


def _by_contender(ends: Iterable[LastEvaluation], workload: str) -> dict[str, list[LastEvaluation]]:
    groups: dict[str, list[LastEvaluation]] = {}
    for end in ends:
        if end.trial.record.workload == workload:
            groups.setdefault(end.trial.record.contender, []).append(end)
    return groups


def _is_fixed(logs: Logs, workload: str) -> bool:
    return any(
        trial.record.seeds.fixed_batch is not None
        for trial in logs.trials
        if trial.record.workload == workload
    )


def _finite_beginning(curve: Curve) -> Curve:
    """Return a curve in the order of its steps, up to its first value that is not finite."""
    steps, values = curve
    known = np.isfinite(steps)
    steps, values = steps[known], values[known]
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    lost = np.flatnonzero(~np.isfinite(values))
    end = lost[0] if len(lost) else len(values)
    return steps[:end], values[:end]


def _until(curve: Curve, steps: float) -> Curve:
    inside = curve[0] <= steps
    return curve[0][inside], curve[1][inside]
