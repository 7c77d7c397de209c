"""Curves from evaluation rows: best metric against spent budget, and loss over episodes."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.logs.logs import Logs, Trial
from analysis.logs.trial_files import Evaluations
from analysis.scoring.costs import COST_COLUMNS
from analysis.training.last_evaluations import DEPLOYED, LOSS
from metaopt.bench.measure.budget import Currency

_POINTS = 120


@dataclasses.dataclass(frozen=True)
class Band:
    """Median or mean over studies, lowest and highest, at each x where all studies have a value."""

    x: NDArray[np.float64]
    middle: NDArray[np.float64]  # median or mean
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Episode:
    """The training loss of one episode against the run's cost so far, in one currency."""

    number: int  # from 0, counting episodes with evaluations
    phase: str
    start: float  # spent when the episode began
    spent: NDArray[np.float64]
    loss: NDArray[np.float64]
    cut: bool = False  # the run ended before the episode did


def anytime(logs: Logs, contender: str, workload: str) -> Band | None:
    """Return the best validation metric so far against the study's spent budget.

    The target's direction decides which value is best. Studies that ended early keep their best
    value. Points between two of the same values are left out: in a report of fifteen workloads
    they were half of all. The result is ``None`` if no study has a value.
    """
    trials = logs.of(contender, workload)
    if not trials:
        return None
    target = trials[0].record.target
    groups: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.key.framework, trial.record.study), []).append(trial)
    progress = []
    for members in groups.values():
        parts = [_progress(trial) for trial in members]
        spent, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(values):
            order = np.argsort(spent, kind="stable")  # trials that pause take turns
            progress.append((spent[order], values[order]))
    x = _grid(trials[0].record.budget, [spent for spent, _ in progress])
    studies = []
    for spent, values in progress:
        best = (np.fmin if target.better == "lower" else np.fmax).accumulate(values)
        # The tolerance keeps rounding from hiding the evaluation at the last point.
        seen = np.searchsorted(spent, x * (1 + 1e-9), side="right") - 1
        studies.append(np.where(seen >= 0, best[np.maximum(seen, 0)], np.nan))
    if not studies:
        return None
    table = np.array(studies)
    started = ~np.isnan(table).any(axis=0)
    if not started.any():
        return None
    curves = np.array([reduce(table[:, started], axis=0) for reduce in (np.median, np.min, np.max)])
    changes = (curves[:, 1:] != curves[:, :-1]).any(axis=0)
    corners = np.append(True, changes) | np.append(changes, True)
    return Band(x[started][corners], *curves[:, corners])


def _grid(budget: Any, spent: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return geometrically spaced amounts, from one evaluation period to the study's budget."""
    whole, period = budget.study, budget.eval_period
    if not np.isfinite(whole):  # the logs do not name the budget
        whole = max((float(amounts[-1]) for amounts in spent), default=1.0)
    return np.geomspace(min(period or whole / 100, whole / 2), whole, _POINTS)


def anytime_bands(logs: Logs) -> dict[tuple[str, str], Band]:
    """Return the :func:`anytime` curves of all contenders and workloads with values."""
    pairs = [(name, workload) for workload in logs.workloads for name in logs.contenders]
    found = {pair: anytime(logs, *pair) for pair in pairs}
    return {pair: band for pair, band in found.items() if band is not None}


def read_episodes(trial: Trial, currency: Currency | None = None) -> list[Episode]:
    """Return the episodes of a self-tuning run in their order; none if its logs have none.

    Args:
        trial: The run.
        currency: The currency of the cost; by default the budget's.
    """
    unit: Currency = currency or trial.record.budget.currency
    spent, loss = finite_values(trial.rows, COST_COLUMNS[unit]), finite_values(trial.rows, LOSS)
    starts = finite_values(trial.rows, f"episode_start_{unit}")
    numbers, phases = trial.rows.column("episode"), trial.rows.text("phase")
    found: list[Episode] = []
    for index, number in enumerate(np.unique(numbers[~np.isnan(numbers)])):
        rows = np.flatnonzero(numbers == number)
        start = starts[rows[0]]
        if np.isnan(start):  # not logged: assume the last evaluation of the episode before
            start = found[-1].spent[-1] if found else 0.0
        episode = Episode(index, phases[rows[-1]], float(start), spent[rows], loss[rows])
        found.append(episode)
    # A last learning episode is cut if it is shorter than all earlier learning episodes.
    seen = [e.spent[-1] - e.start for e in found[:-1] if e.phase != DEPLOYED]
    if seen and found[-1].phase != DEPLOYED and found[-1].spent[-1] - found[-1].start < min(seen):
        found[-1] = dataclasses.replace(found[-1], cut=True)
    return found


def _progress(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the study's spent budget and the metric at each evaluation of a trial."""
    record, currency = trial.record, trial.record.budget.currency
    spent = finite_values(trial.rows, COST_COLUMNS[currency])
    values = finite_values(trial.rows, record.target.metric)
    before = np.full(len(spent), record.spent_before.amount(currency))
    row = 0
    for segment in record.segments:
        shift = segment.spent_before.amount(currency) - segment.start.amount(currency)
        before[row:] = shift  # to the end; the next segment overwrites its rows
        row = segment.evaluations
    known = ~np.isnan(spent)
    return (before + spent)[known], values[known]


def finite_values(rows: Evaluations, column: str) -> NDArray[np.float64]:
    """Return a column's numbers, one per row; values that are not finite are NaN."""
    values = rows.column(column)
    return np.where(np.isfinite(values), values, np.nan)
