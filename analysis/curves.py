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
    """A curve over studies: median, lowest and highest at each x; NaN before the first value."""

    x: NDArray[np.float64]
    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


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
    """
    trials = [
        trial
        for trial in logs.trials
        if (trial.record.contender, trial.record.workload) == (contender, workload)
    ]
    if not trials:
        return None
    budget = trials[0].record.budget
    x = np.linspace(0.0, budget.study, _POINTS + 1)[1:]
    studies = []
    for study in sorted({trial.record.study for trial in trials}):
        parts = [_progress(trial) for trial in trials if trial.record.study == study]
        spent, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        better = np.fmin if trials[0].record.target.better == "lower" else np.fmax
        best = np.concatenate([[np.nan], better.accumulate(values)])  # before the first: nothing
        studies.append(best[np.searchsorted(spent, x, side="right")])
    table = np.array(studies)
    started = ~np.isnan(table).any(axis=0)
    curves = [reduce(table[:, started], axis=0) for reduce in (np.median, np.min, np.max)]
    return Band(x[started], *curves)


def _progress(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the study's spent budget and the metric at each evaluation of a trial."""
    record = trial.record
    column = COLUMNS[record.budget.currency]
    rows = read_rows(trial, [column, record.target.metric])
    before = record.spent_before.amount(record.budget.currency)
    values = rows[record.target.metric].to_numpy(np.float64)
    return before + rows[column].to_numpy(np.float64), np.where(np.isinf(values), np.nan, values)


def episodes(trial: Trial) -> list[tuple[str, pd.DataFrame]]:
    """Return ``(phase, rows)`` of each episode, with the columns ``global_step`` and ``loss``."""
    rows = read_rows(trial, ["global_step", "train/loss", "episode", "phase"])
    rows = rows.rename(columns={"train/loss": "loss"})
    return [(str(part["phase"].iloc[-1]), part) for _, part in rows.groupby("episode")]
