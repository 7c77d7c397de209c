"""The logs that rules look at, and what several rules want to know of them."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from analysis.logs.competition import OfficialTargets
from analysis.logs.layout import TrialKey
from analysis.logs.trial_logs import DOCUMENTS, Cell, LoggedTrial, TrialLogs, read_trial_logs
from analysis.scoring.strict_rules import Demands
from metaopt.bench.findings import Problem, Rule, Severity
from metaopt.bench.identity import Identity, parse_identity
from metaopt.bench.records import StudyRecord, TrialRecord
from metaopt.bench.targets import Target


@dataclasses.dataclass(frozen=True)
class LogRule(Rule):
    """A rule on logs.

    Attributes:
        means: What it says about logs that one breaks.
        mend: What their author can do.
    """

    means: str
    mend: str


def log_rule(
    id: str,
    title: str,
    find: Callable[["LogSubject"], Iterable[tuple[str, str]]],
    *,
    means: str,
    mend: str,
    severity: Severity = "error",
) -> LogRule:
    """Return a rule whose ``find`` yields ``(where, what)``."""

    def problems(subject: "LogSubject") -> Iterator[Problem]:
        for where, what in find(subject):
            yield Problem(what, where, mend, severity)

    return LogRule(id, title, problems, means, mend)


def oddity_rule(id: str, title: str, *, means: str, mend: str) -> LogRule:
    """Return a rule for what reading noticed under its name."""

    def find(subject: "LogSubject") -> Iterator[tuple[str, str]]:
        for oddity in subject.logs.oddities:
            if oddity.rule == id:
                yield oddity.where, oddity.what

    return log_rule(id, title, find, means=means, mend=mend)


@dataclasses.dataclass(frozen=True)
class LogSubject:
    """Logs, and what they are held against."""

    logs: TrialLogs
    targets: OfficialTargets | None = None
    demands: Demands | None = None  # studies and trials that there should be

    @property
    def trials(self) -> tuple[LoggedTrial, ...]:
        """All trials."""
        return self.logs.trials

    @functools.cached_property
    def is_ours(self) -> bool:
        """Whether our runner wrote the logs: some trial has a ``run.json``."""
        return any("run.json" in trial.files for trial in self.trials)

    @functools.cached_property
    def parsed(self) -> dict[str, TrialRecord | str]:
        """Each trial's record, or what is wrong with it, by the trial's path."""
        return {
            trial.where: _parse(TrialRecord, trial.documents["run"])
            for trial in self.trials
            if "run" in trial.documents
        }

    @functools.cached_property
    def records(self) -> list[tuple[LoggedTrial, TrialRecord]]:
        """The trials with a valid record, and the record."""
        return [
            (trial, record)
            for trial in self.trials
            if isinstance(record := self.parsed.get(trial.where), TrialRecord)
        ]

    @functools.cached_property
    def studies(self) -> dict[Cell, StudyRecord | str]:
        """Our studies' records, or what is wrong with them."""
        return {cell: _parse(StudyRecord, found) for cell, found in self.logs.studies.items()}

    @functools.cached_property
    def identities(self) -> dict[Cell, Identity | str]:
        """What decided our studies' results, or what is wrong with it."""
        found: dict[Cell, Identity | str] = {}
        for cell, document in self.logs.identities.items():
            try:
                found[cell] = parse_identity(json.dumps(document))
            except ValueError as error:
                found[cell] = str(error)
        return found

    def identity(self, trial: LoggedTrial) -> Identity | None:
        """Return what decided a trial's result; ``None`` if its study does not say."""
        found = self.identities.get(trial.key[:4])
        return None if isinstance(found, str) else found

    def record(self, trial: LoggedTrial) -> TrialRecord | None:
        """Return a trial's record; ``None`` if it has none that is valid."""
        found = self.parsed.get(trial.where)
        return found if isinstance(found, TrialRecord) else None

    def target(self, trial: LoggedTrial) -> Target | None:
        """Return the validation target: of the targets' file, the record or the meta data."""
        workload = trial.key.workload
        if self.targets is not None and workload in self.targets.metrics:
            return self.targets.target(workload)
        if (record := self.record(trial)) is not None:
            return record.target.target()
        return logged_target(trial)

    def grouped(self, by: Callable[[TrialKey], Any]) -> Mapping[Any, list[LoggedTrial]]:
        """Return the trials in groups."""
        groups: dict[Any, list[LoggedTrial]] = {}
        for trial in self.trials:
            groups.setdefault(by(trial.key), []).append(trial)
        return groups


def logged_target(trial: LoggedTrial) -> Target | None:
    """Return the validation target that AlgoPerf's meta data of a trial names."""
    meta = trial.document("meta_data")
    metric = meta.get("workload.target_metric_name")
    value = meta.get("workload.validation_target_value")
    if not isinstance(metric, str) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return OfficialTargets((), (), {"": (metric, float(value))}).target("")
    except ValueError:
        return None


def ruleset_of(trial: LoggedTrial) -> str | None:
    """Return ``external`` or ``self``, as the trial's flags say; ``None`` if they do not."""
    found = trial.document("flags").get("tuning_ruleset")
    return found if found in ("external", "self") else None


def seed_of(trial: LoggedTrial) -> int | None:
    """Return the seed that was recorded: the one that was used, else the one that was asked for."""
    for name in ("meta_data", "flags"):
        seed = trial.document(name).get("rng_seed")
        if isinstance(seed, int) and not isinstance(seed, bool):
            return seed
    return None


def read_subject(
    path: Path,
    within: str | None = None,
    *,
    targets: OfficialTargets | None = None,
    demands: Demands | None = None,
) -> LogSubject:
    """Read everything that rules look at; raises like :func:`read_trial_logs`."""
    return LogSubject(read_trial_logs(path, within, documents=DOCUMENTS), targets, demands)


def _parse(model: type, document: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate_json(json.dumps(document))
    except (pydantic.ValidationError, ValueError) as error:
        if not isinstance(error, pydantic.ValidationError):
            return str(error)
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
