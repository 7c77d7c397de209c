"""Copies of tuning studies in an Optuna storage, for its dashboard and visualisations.

Only the records on disk are read, so later changes of a submission or its search space do not
matter. Each study of a tuned contender becomes an Optuna study with the name
``campaign/contender/workload/study_k`` and its trials in order.

    value          the number that the tuner was told, see ``bench.records.outcomes.value_of``
    distributions  the search space in the records
    intermediate   the target's metric, at fifty evaluations at most
    start          the start of the trial; its end is later by the seconds on its ledger
    state          FAIL for a failure. PRUNED for a trial that its tuner stopped, or paused and
                   never resumed. RUNNING for a paused trial of a study that is running.
"""

import datetime
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from metaopt.bench import records
from metaopt.bench.contract.spaces import Space, parse_space
from metaopt.bench.records import FAILURES, TrialRecord
from metaopt.bench.records.outcomes import value_of
from metaopt.bench.records.redaction import redact
from tuning.storages import open_storage
from tuning.studies import LOGS
from tuning.tuners.distributions import distribution_of

_CURVE = 50  # evaluations of a trial: a database writes a row for each
_COMPARED = (
    "state", "values", "params", "distributions", "user_attrs", "intermediate_values",
    "datetime_start", "datetime_complete",
)  # fmt: skip


def export_studies(runs: Path, url: str) -> Iterator[tuple[str, int]]:
    """Copy every trial that has a record; yields the name of each study and its number of trials.

    This can be called repeatedly, also while the campaign runs. Unchanged trials in the storage
    stay. A study with a trial that has changed, because it was paused, is written again.

    Raises:
        ValueError: There is no trial to copy, the storage does not answer, or it has a study of
            the same name that was not copied from records.
    """
    groups: dict[str, list[tuple[TrialRecord, Path]]] = {}
    for path in sorted((runs / LOGS).rglob(records.RUN_FILE)):
        record = records.read_trial(path)
        if record.hyperparameters is not None:
            parts = record.campaign, record.contender, record.workload, f"study_{record.study}"
            groups.setdefault("/".join(parts), []).append((record, path.parent))
    if not groups:
        raise ValueError(f"{runs}: no trial of a tuned contender has a record under {LOGS}/.")
    try:
        storage = open_storage(url)
        for name, trials in sorted(groups.items()):
            trials.sort(key=lambda pair: pair[0].trial)
            found = [record for record, _ in trials]
            distributions = _distributions(found)
            frozen = [_freeze(record, folder, distributions) for record, folder in trials]
            _write(storage, name, f"tuner's value ({found[0].target.metric})", frozen)
            yield name, len(frozen)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = redact(str(error).strip().split("\n")[0], url)
        raise ValueError(
            f"The storage {redact(url)} does not answer ({cause}). Run the same command again."
        ) from None


def _write(storage: BaseStorage, name: str, metric: str, trials: Sequence[FrozenTrial]) -> None:
    """Make the storage's study ``name`` hold exactly these trials."""
    study = _open(storage, name)
    held = study.get_trials(deepcopy=False)
    if any("trial" not in trial.user_attrs for trial in held):
        raise ValueError(
            f"The storage has a study {name!r} that was not copied from records. Use another one."
        )
    if len(held) > len(trials) or not all(map(_are_equal, held, trials)):
        storage.delete_study(study._study_id)
        study, held = _open(storage, name), []
    if study.metric_names != [metric]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([metric])
    study.add_trials(trials[len(held) :])


def _open(storage: BaseStorage, name: str) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name=name, direction="minimize", load_if_exists=True
    )


def _are_equal(held: FrozenTrial, trial: FrozenTrial) -> bool:
    return all(getattr(held, name) == getattr(trial, name) for name in _COMPARED)


def _distributions(trials: Sequence[TrialRecord]) -> dict[str, BaseDistribution]:
    """Return the search space of the trials as distributions.

    A list of points becomes the values of each hyperparameter. Without a search space, the values
    are those of the trials.
    """
    document = trials[0].search_space
    space = None if document is None else parse_space(document, "search_space")
    if isinstance(space, Space):
        return {name: distribution_of(part) for name, part in space.parameters.items()}
    points = [trial.hyperparameters or {} for trial in trials] if space is None else space.points
    return {
        name: CategoricalDistribution(list(dict.fromkeys(point[name] for point in points)))
        for name in points[0]
    }


def _freeze(
    record: TrialRecord, folder: Path, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    point, cost, state = record.hyperparameters or {}, record.ledger.cost, _state(record, folder)
    trial = optuna.trial.create_trial(
        value=value_of(record) if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        state=state,
        params=point,
        distributions={name: distributions[name] for name in point},
        intermediate_values=_curve(record, folder),
        user_attrs={
            "trial": record.trial,
            "status": record.status,
            "cause": record.cause,
            "value": value_of(record),
            record.target.metric: record.best,
            "steps": cost.steps,
            "gradient_evaluations": cost.gradient_evaluations,
            "seconds": cost.seconds,
            "spent_before": record.spent_before.model_dump(),
        },
    )
    # Optuna's times are naive, in the local time zone.
    start = datetime.datetime.fromisoformat(record.started_at).astimezone().replace(tzinfo=None)
    trial.datetime_start = start
    if state.is_finished():
        ledger = record.ledger
        seconds = cost.seconds + ledger.evaluation_seconds + ledger.logging_seconds
        trial.datetime_complete = start + datetime.timedelta(seconds=seconds)
    return trial


def _state(record: TrialRecord, folder: Path) -> TrialState:
    if record.status in FAILURES and record.reached is None:
        return TrialState.FAIL
    if record.status == "paused" and not (folder.parent / records.STUDY_FILE).exists():
        return TrialState.RUNNING
    if record.status in ("paused", "pruned"):
        return TrialState.PRUNED
    return TrialState.COMPLETE


def _curve(record: TrialRecord, folder: Path) -> dict[int, float]:
    """Return the finite values of the target's metric by step, up to the trial's last record."""
    path = folder / records.EVAL_FILE
    rows = records.read_evaluations(path) if path.exists() else []
    rows = rows[: record.segments[-1].evaluations]  # the next segment may be running
    shown = [*rows[:: math.ceil(len(rows) / _CURVE) or 1], *rows[-1:]]
    values = {int(r["global_step"]): records.metric_of(r, record.target.metric) for r in shown}
    return {step: value for step, value in values.items() if math.isfinite(value)}
