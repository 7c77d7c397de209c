"""Rules on the columns of evaluations and on the types in evaluations and JSON documents."""

from collections.abc import Iterator

import numpy as np

from analysis.checks.rules import oddity_rule, rule
from analysis.logs.logs import Logs
from analysis.logs.trial_files import NEEDED, TEXT_COLUMNS
from metaopt.bench.records import EVAL_FILE

_SPLITS = ("train/", "validation/", "test/")


@rule(
    "columns-needed",
    f"{EVAL_FILE} has the columns {', '.join(NEEDED)}",
    means="Costs are unknown. The official scorer takes the column of the trial before.",
    fix="Restore the file as the runner wrote it.",
)
def missing_columns(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find our files without the cost columns; the reader notes AlgoPerf's."""
    for trial in logs.all_trials if logs.is_ours else ():
        header = trial.rows.header
        if header and (missing := [name for name in NEEDED if name not in header]):
            yield f"{trial.where}/{EVAL_FILE}", f"no columns {missing}"


@rule(
    "columns-metric",
    f"{EVAL_FILE} has the column of the validation target",
    means="Without it, the target counts as missed.",
    fix="Restore the file as the runner wrote it, or give the targets of this workload.",
)
def missing_metric(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find our files without the target metric; the reader notes AlgoPerf's."""
    official = logs.competition.targets
    for trial in logs.trials if logs.is_ours else ():
        metric = official and official.column(trial.key.workload)
        metric = metric or trial.record.target.metric
        if trial.rows.header and metric not in trial.rows.header:
            yield f"{trial.where}/{EVAL_FILE}", f"no column {metric}"


oddity_rule(
    "columns-repeated",
    "no column appears twice",
    means="Two columns of one name contradict each other; the first is read.",
    fix="Remove the wrong one.",
)
oddity_rule(
    "types-csv",
    f"{EVAL_FILE} is CSV",
    means="Nothing in the file can be read.",
    fix="Restore the file as the runner wrote it.",
)
oddity_rule(
    "types-rows",
    "every row has a cell for each column and ends with a newline",
    means="A line was cut, by a kill or a full disk, or lines were joined. It does not count.",
    fix="Remove the broken row, or run the trial again.",
)
oddity_rule(
    "types-numbers",
    f"cells are numbers, except in {', '.join(TEXT_COLUMNS)}",
    means="Other text counts as NaN, which meets no target.",
    fix="Restore the file as the runner wrote it.",
)
oddity_rule(
    "types-json",
    "JSON files hold one object, and records of audits are valid",
    means="The document is not used.",
    fix="Restore the file as the runner wrote it.",
)


@rule(
    "types-finite",
    "metrics are finite",
    severity="note",
    means="The run diverged, or a metric could not be computed. NaN meets no target.",
    fix="Nothing, if the training diverged.",
)
def unreal_metrics(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find metrics that are NaN or infinite."""
    for trial in logs.all_trials:
        if logs.is_ours and trial.record is not None and trial.record.status == "diverged":
            continue
        whole = trial.rows.whole
        unreal = {
            name: np.flatnonzero(~np.isfinite(values) & whole)
            for name, values in trial.rows.columns.items()
            if name.startswith(_SPLITS) and name not in trial.rows.faulty
        }
        if named := [name for name, rows in unreal.items() if len(rows)]:
            first = min(int(unreal[name][0]) for name in named) + 1
            yield f"{trial.where}/{EVAL_FILE}", f"{', '.join(named)}, first in row {first}"


@rule(
    "types-hparams",
    "hyperparameters are numbers or texts under Python identifiers",
    means="AlgoPerf's runner makes a named tuple of them, which cannot hold these.",
    fix="Rename or flatten them in the search space.",
)
def odd_hparams(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find hyperparameters that a named tuple cannot hold."""
    for trial in logs.all_trials:
        for name, value in trial.document("hparams").items():
            if not name.isidentifier():
                yield f"{trial.where}/hparams.json", f"{name!r} is no Python identifier"
            elif not isinstance(value, int | float | str):
                kind = type(value).__name__
                yield f"{trial.where}/hparams.json", f"{name} is {kind}, no number or text"
