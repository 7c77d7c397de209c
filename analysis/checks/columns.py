"""Rules on columns and types: of evaluations, and of JSON documents."""

from collections.abc import Iterator

import numpy as np

from analysis.checks.subject import LogSubject, log_rule, oddity_rule
from analysis.logs.files import NEEDED, TEXT_COLUMNS
from metaopt.bench.records import EVAL_FILE

_SPLITS = ("train/", "validation/", "test/")


def _missing_columns(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        header = trial.evaluations.header if trial.evaluations else ()
        if header and (missing := [name for name in NEEDED if name not in header]):
            yield f"{trial.where}/{EVAL_FILE}", f"no columns {missing}"


def _missing_metric(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        target, evaluations = subject.target(trial), trial.evaluations
        header = evaluations.header if evaluations else ()
        if target is not None and header and target.metric not in header:
            yield f"{trial.where}/{EVAL_FILE}", f"no column {target.metric!r}"


def _unreal_metrics(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        record = subject.record(trial)
        if trial.evaluations is None or (record is not None and record.status == "diverged"):
            continue
        faulty = trial.evaluations.faulty
        unreal = {
            name: np.flatnonzero(~np.isfinite(values))
            for name, values in trial.evaluations.columns.items()
            if name.startswith(_SPLITS) and name not in faulty
        }
        if named := [name for name, rows in unreal.items() if len(rows)]:
            first = min(int(unreal[name][0]) for name in named) + 1
            yield f"{trial.where}/{EVAL_FILE}", f"{', '.join(named)}, first in row {first}"


def _odd_hparams(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        for name, value in trial.document("hparams").items():
            if not name.isidentifier():
                yield f"{trial.where}/hparams.json", f"{name!r} is no Python identifier"
            elif not isinstance(value, int | float | str):
                kind = type(value).__name__
                yield f"{trial.where}/hparams.json", f"{name} is {kind}, no number or text"


RULES = (
    log_rule(
        "columns-needed",
        f"{EVAL_FILE} has the columns {', '.join(NEEDED)}",
        _missing_columns,
        means="Costs cannot be told. The official scorer takes the column of the trial before.",
        mend="Restore the file as the runner wrote it.",
    ),
    log_rule(
        "columns-metric",
        f"{EVAL_FILE} has the column of the validation target",
        _missing_metric,
        means="Whether the target was met cannot be told. It counts as a miss.",
        mend="Restore the file as the runner wrote it, or give the targets of this workload.",
    ),
    oddity_rule(
        "columns-repeated",
        "no column comes twice",
        means="Two columns of one name contradict each other; the first is read.",
        mend="Take the wrong one out.",
    ),
    oddity_rule(
        "types-csv",
        f"{EVAL_FILE} is CSV",
        means="Nothing of the file can be read.",
        mend="Restore the file as the runner wrote it.",
    ),
    oddity_rule(
        "types-rows",
        "every row has a cell for each column",
        means="A line was cut, by a kill or a full disk, or lines were run together.",
        mend="Take the broken row out, or run the trial again.",
    ),
    oddity_rule(
        "types-numbers",
        f"cells are numbers, but for {', '.join(TEXT_COLUMNS)}",
        means="What is no number counts as NaN, which meets no target.",
        mend="Restore the file as the runner wrote it.",
    ),
    oddity_rule(
        "types-json",
        "JSON files hold one object",
        means="Nothing of the document can be used.",
        mend="Restore the file as the runner wrote it.",
    ),
    log_rule(
        "types-finite",
        "metrics are finite",
        _unreal_metrics,
        severity="note",
        means="The run diverged, or a metric could not be computed. NaN meets no target.",
        mend="Nothing, if the training diverged.",
    ),
    log_rule(
        "types-hparams",
        "hyperparameters are numbers or texts under Python identifiers",
        _odd_hparams,
        means="AlgoPerf's runner makes a named tuple of them, which these cannot be in.",
        mend="Rename or flatten it in the search space.",
    ),
)
