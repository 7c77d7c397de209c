"""Copies of finished tuning studies in an Optuna storage: for its dashboard and visualisations.

The records on disk are what counts. Each study of a tuned contender becomes an Optuna study named
``campaign/contender/workload/study_k`` with its trials in their order: hyperparameters, the value
that the tuner was told, the metric at fifty evaluations at most, and the costs as attributes.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from metaopt.bench import records
from metaopt.bench.loading import load_submission
from metaopt.bench.records import TrialRecord
from metaopt.bench.spaces import Choices, Range, Space, parse_space
from metaopt.bench.tuner import value_of
from tuning.contenders import SUBMISSIONS
from tuning.slots import LOGS
from tuning.storages import PatientStorage

_CURVE = 50  # evaluations of a trial: each is a row that a database writes


def export_studies(runs: Path, url: str) -> Iterator[tuple[str, int]]:
    """Copy what is finished; yields the name of each study and how many trials it has now.

    What the storage has already stays as it is, so it can be called while a campaign runs.

    Raises:
        ValueError: There is no finished trial, or the storage does not answer.
    """
    groups: dict[str, list[tuple[TrialRecord, Path]]] = {}
    for path in sorted((runs / LOGS).rglob(records.RUN_FILE)):
        record = records.read_trial(path)
        if record.hyperparameters is not None:
            parts = record.campaign, record.contender, record.workload, f"study_{record.study}"
            groups.setdefault("/".join(parts), []).append((record, path.parent))
    if not groups:
        raise ValueError(f"{runs}: no finished trial of a tuned contender under {LOGS}/.")
    storage = PatientStorage(url)
    for name, trials in sorted(groups.items()):
        study = storage.call(lambda s, n=name: _open(s, n))
        known = {trial.user_attrs.get("trial") for trial in study.get_trials(deepcopy=False)}
        distributions = _distributions([record for record, _ in trials])
        for record, folder in sorted(trials, key=lambda pair: pair[0].trial):
            if record.trial not in known:
                frozen = _freeze(record, folder, distributions)
                storage.call(lambda _, f=frozen, s=study: s.add_trial(f))
        yield name, len(study.get_trials(deepcopy=False))


def _open(storage: BaseStorage, name: str) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name=name, direction="minimize", load_if_exists=True
    )


def _distributions(trials: list[TrialRecord]) -> dict[str, BaseDistribution]:
    """Return the space that the trials' points are from, as Optuna writes it.

    The submission's own; the values that were tried, where it is a list of points or a parameter
    is fixed by a variant, or where the submission is not here.
    """
    points = [trial.hyperparameters or {} for trial in trials]
    found: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(list(dict.fromkeys(point[name] for point in points)))
        for name in points[0]
    }
    try:
        submission = load_submission(trials[0].submission, SUBMISSIONS)
        space = parse_space(submission.read_space(trials[0].space), submission.name)
    except (ValueError, OSError):
        return found
    for name, part in space.parameters.items() if isinstance(space, Space) else ():
        if all(_holds(part, point[name]) for point in points):
            fixed = FixedTrial({name: points[0][name]})
            part.suggest(fixed, name)  # pyright: ignore[reportArgumentType]
            found[name] = fixed.distributions[name]
    return found


def _holds(part: Range | Choices, value: Any) -> bool:
    return value in part.points if isinstance(part, Choices) else part.low <= value <= part.high


def _freeze(
    record: TrialRecord, folder: Path, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    assert record.hyperparameters is not None
    rows = records.read_evaluations(folder / records.EVAL_FILE) if record.best is not None else []
    shown = [*rows[:: math.ceil(len(rows) / _CURVE) or 1], *rows[-1:]]
    values = {int(row["global_step"]): row[record.target.metric] for row in shown}
    cost = record.ledger.cost
    return optuna.create_trial(
        # As the tuner was told: a failure is a finite value there, never a missing one.
        value=value_of(record),
        state=TrialState.COMPLETE,
        params=record.hyperparameters,
        distributions=distributions,
        intermediate_values={step: value for step, value in values.items() if value == value},
        user_attrs={
            "trial": record.trial,
            "status": record.status,
            record.target.metric: record.best,
            "steps": cost.steps,
            "gradient_evaluations": cost.gradient_evaluations,
            "seconds": cost.seconds,
            "spent_before": record.spent_before.model_dump(),
        },
    )
