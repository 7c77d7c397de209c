"""Curves out of evaluation rows: best metric against spent budget, loss over episodes."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.reading import Logs, Trial
from metaopt.bench.budget import Currency
from metaopt.bench.records import EVAL_FILE

COLUMNS: dict[Currency, str] = {
    "steps": "global_step",
    "gradient_evaluations": "gradient_evaluations",
    "seconds": "accumulated_submission_time",
}
_POINTS = 240


@dataclasses.dataclass(frozen=True)
class Band:
    """A curve over studies: the middle, the lowest and the highest at each x where all have one."""

    x: NDArray[np.float64]
    middle: NDArray[np.float64]  # median or mean
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Episode:
    """The training loss of one episode against the budget that the run had spent."""

    number: int
    phase: str
    spent: NDArray[np.float64]
    loss: NDArray[np.float64]


def read_rows(trial: Trial, columns: Iterable[str]) -> pd.DataFrame:
    """Return the wanted columns of a trial's evaluations; those that are absent are NaN."""
    wanted = list(columns)
    try:
        frame = pd.read_csv(trial.folder / EVAL_FILE, usecols=lambda name: name in wanted)
    except (OSError, ValueError):  # missing, or nothing in it: a trial that died at once
        frame = pd.DataFrame()
    return frame.reindex(columns=wanted)


def anytime(logs: Logs, contender: str, workload: str) -> Band | None:
    """Return the best validation metric so far against the study's spent budget.

    What counts as best is the target's direction. Studies that ended early keep their best.
    ``None`` if no study has a value.
    """
    trials = logs.of(contender, workload)
    if not trials:
        return None
    budget, target = trials[0].record.budget, trials[0].record.target
    x = np.geomspace(min(budget.eval_period, budget.study / 2), budget.study, _POINTS)
    studies = []
    for study in sorted({trial.record.study for trial in trials}):
        parts = [_progress(trial) for trial in trials if trial.record.study == study]
        spent, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not len(values):
            continue
        best = (np.fmin if target.better == "lower" else np.fmax).accumulate(values)
        # The last point stands for all that was spent: rounding must not hide its evaluation.
        seen = np.searchsorted(spent, x * (1 + 1e-9), side="right") - 1
        studies.append(np.where(seen >= 0, best[np.maximum(seen, 0)], np.nan))
    if not studies:
        return None
    table = np.array(studies)
    started = ~np.isnan(table).any(axis=0)
    if not started.any():
        return None
    curves = [reduce(table[:, started], axis=0) for reduce in (np.median, np.min, np.max)]
    return Band(x[started], *curves)


def episodes(trial: Trial) -> list[Episode]:
    """Return the episodes of a self-tuning run in their order."""
    spent = COLUMNS[trial.record.budget.currency]
    rows = read_rows(trial, [spent, "train/loss", "episode", "phase"])
    return [
        Episode(
            index, str(part["phase"].iloc[-1]), _finite(part, spent), _finite(part, "train/loss")
        )
        for index, (_, part) in enumerate(rows.groupby("episode"))
    ]


def _progress(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the study's spent budget and the metric at each evaluation of a trial."""
    record = trial.record
    column = COLUMNS[record.budget.currency]
    rows = read_rows(trial, [column, record.target.metric])
    spent, values = _finite(rows, column), _finite(rows, record.target.metric)
    known = ~np.isnan(spent)
    return record.spent_before.amount(record.budget.currency) + spent[known], values[known]


def _finite(rows: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column's numbers; whatever is not a finite one is NaN."""
    values = np.asarray(pd.to_numeric(rows[column], errors="coerce"), np.float64)
    return np.where(np.isfinite(values), values, np.nan)
