"""One long-form table of the evaluations in logs, AlgoPerf's or ours, with a strict schema.

A row is one metric at one evaluation of one trial:

    path         trial's folder, in the logs; with evaluation and metric it identifies the row
    submission   without its timestamp
    workload     without its framework
    framework    jax or pytorch
    study        number of the folder, from 0 or 1
    trial        number of the folder, from 1
    evaluation   row of eval_measurements.csv, from 0 without gaps
    step         global_step; NaN if missing
    seconds      accumulated_submission_time; NaN if missing
    metric       name with its split, such as validation/loss
    value        NaN if it is not a number
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.logs.layout import FRAMEWORKS
from analysis.logs.logs import Trial
from analysis.logs.reader import read_logs
from analysis.logs.trial_files import SECONDS, STEP
from analysis.report.table import COUNT, TEXT, CellFormat, Column, Table

SPLITS = ("train/", "validation/", "test/")
SCHEMA = {
    "path": "category",
    "submission": "category",
    "workload": "category",
    "framework": "category",
    "study": "int64",
    "trial": "int64",
    "evaluation": "int64",
    "step": "float64",
    "seconds": "float64",
    "metric": "category",
    "value": "float64",
}
MAX_ROWS = 50_000_000
_NUMBER = CellFormat(lambda value: value if isinstance(value, str) else f"{value:.6g}")
_COUNTS = ("test/num_examples", "validation/num_examples")  # data set sizes


def read_table(path: Path, within: str | None = None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the table of a folder or tar of logs, and notes on its oddities.

    Raises:
        ValueError: There are no trials, or the table has more than ``MAX_ROWS`` rows.
    """
    logs = read_logs(path, within, columns=lambda key, name: _is_kept(name), uncounted=True)
    trials = sorted((*logs.trials, *logs.unrecorded), key=lambda trial: (trial.key, trial.where))
    return make_table(trials), logs.notes


def make_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return the table of trials, at 40 bytes per row plus each distinct string once."""
    parts = [_long(trial) for trial in trials]
    counts = np.array([len(values) for *_, values in parts], np.int64)
    if counts.sum() > MAX_ROWS:
        raise ValueError(
            f"The table would have {counts.sum():,} rows, the limit is {MAX_ROWS:,}; choose a part "
            "of the logs with --within."
        )
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)] or [np.empty(0)] * 5
    evaluations, steps, seconds, metrics, values = joined
    repeated = {
        "path": [trial.where for trial in trials],
        **{name: [getattr(trial.key, name) for trial in trials]
           for name in ("submission", "workload", "framework", "study", "trial")},
    }  # fmt: skip
    columns = {}
    for name, entries in repeated.items():
        codes, texts = pd.factorize(np.array(entries, object))
        each = np.repeat(codes, counts)
        columns[name] = (
            pd.Categorical.from_codes(each, texts)
            if SCHEMA[name] == "category"
            else np.array(texts, np.int64)[each]
        )
    columns |= {"evaluation": evaluations, "step": steps, "seconds": seconds}
    columns |= {"metric": pd.Categorical(metrics), "value": values}
    table = pd.DataFrame(columns, columns=list(SCHEMA)).astype({"evaluation": "int64"})
    check_table(table)
    return table


def shown_table(table: pd.DataFrame) -> Table:
    """Return the table for the formats other than CSV; an infinite value is the text ``inf``."""
    formats = {"category": TEXT, "int64": COUNT, "float64": _NUMBER}
    columns = tuple(Column(name, formats[kind]) for name, kind in SCHEMA.items())
    rows = (map(_finite_or_text, row) for row in table.itertuples(index=False, name=None))
    return Table("All metrics of all evaluations", columns, tuple(map(tuple, rows)), "evaluations")


def _finite_or_text(value: Any) -> Any:
    # An infinite number in a table is a target that was missed.
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def check_table(table: pd.DataFrame) -> None:
    """Check a table against the schema.

    Raises:
        ValueError: It breaks a rule; the message names the column, the rule and the value.
    """
    if list(table.columns) != list(SCHEMA):
        raise ValueError(f"The columns must be {list(SCHEMA)}, got {list(table.columns)}.")
    for name, kind in SCHEMA.items():
        if str(table[name].dtype) != kind:
            raise ValueError(f"Column {name!r} must be {kind}, got {table[name].dtype}.")
    for name in (n for n, kind in SCHEMA.items() if kind == "category"):
        if np.any(table[name].isna()):
            raise ValueError(f"Column {name!r} must not have missing values.")
        if not all(isinstance(text, str) and text for text in table[name].cat.categories):
            raise ValueError(f"Column {name!r} must hold texts that are not empty.")
    if wrong := sorted(set(table["framework"].unique()) - set(FRAMEWORKS)):
        raise ValueError(f"Column 'framework' must be one of {list(FRAMEWORKS)}, got {wrong}.")
    for name in ("study", "trial", "evaluation"):
        if np.any(table[name] < 0):
            raise ValueError(f"Column {name!r} must not be negative, got {table[name].min()}.")
    wrong = [metric for metric in table["metric"].unique() if not metric.startswith(SPLITS)]
    if wrong:
        raise ValueError(f"Column 'metric' must begin with one of {list(SPLITS)}, got {wrong[:3]}.")
    keys = ["path", "metric"]
    if table.duplicated([*keys, "evaluation"]).any():
        row = table[table.duplicated([*keys, "evaluation"])].iloc[0]
        raise ValueError(f"Evaluation {row.evaluation} of {row.path} is there twice.")
    counts: Any = table.groupby(keys, observed=True)["evaluation"].agg(["max", "size"])
    gaps = counts[counts["max"] + 1 != counts["size"]]
    if len(gaps):
        raise ValueError(f"The evaluations of {gaps.index[0][0]} have a gap.")


def _is_kept(name: str) -> bool:
    return name in (STEP, SECONDS) or _is_metric(name)


def _is_metric(name: str) -> bool:
    return name.startswith(SPLITS) and name not in _COUNTS


def _long(trial: Trial) -> tuple[np.ndarray, ...]:
    """Return evaluation, step, seconds, metric and value, each (evaluations x metrics,)."""
    found = trial.evaluations
    names = sorted(n for n in (found.columns if found else ()) if _is_metric(n))
    if found is None or not names:
        return (*(np.empty(0) for _ in range(3)), np.empty(0, object), np.empty(0))
    count = len(names)
    return (
        np.tile(np.arange(found.rows), count),
        np.tile(found.column(STEP), count),
        np.tile(found.column(SECONDS), count),
        np.repeat(np.array(names, object), found.rows),
        np.concatenate([found.columns[name] for name in names]),
    )
