"""Logs as data: trials with their records and evaluations, studies, and oddities."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from analysis.logs.competition import Competition
from analysis.logs.layout import TrialKey
from analysis.logs.oddities import Oddity
from analysis.logs.trial_files import Evaluations
from metaopt.bench.records import StudyRecord, TrialRecord
from metaopt.bench.records.audit import AuditRecord
from metaopt.bench.records.identity import Identity

MAX_STUDIES = 10_000
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial, ours or AlgoPerf's.

    Attributes:
        key: Which; by its folder.
        where: Path of its folder in the logs.
        record: Its TrialRecord, or the OfficialRecord that was derived from AlgoPerf's files;
            ``None`` for a trial that counts for nothing.
        evaluations: Its rows; ``None`` without a file that can be read.
        documents: Of ``hparams``, ``flags`` and ``meta_data`` those that were read; of several
            numbered ones the first.
        files: Names of its files, of those that are read.
    """

    key: TrialKey
    where: str
    record: Any
    evaluations: Evaluations | None
    documents: Mapping[str, Mapping[str, Any]]
    files: frozenset[str]

    def document(self, name: str) -> Mapping[str, Any]:
        """Return a document; an empty one if there is none."""
        return self.documents.get(name, _NOTHING)

    @property
    def rows(self) -> Evaluations:
        """The evaluations; empty ones if there are none."""
        return Evaluations() if self.evaluations is None else self.evaluations


@dataclasses.dataclass(frozen=True)
class Logs:
    """Everything that was found, in an order that depends on neither folder nor tar.

    Attributes:
        path: The folder or tar.
        is_ours: Whether our runner wrote them.
        trials: The trials that count: those with a record.
        unrecorded: Trials of ours without a valid record.
        studies: Records of our finished studies.
        campaign: Our ``campaign.json``; ``None`` if it is not there or not valid.
        identities: What decided our trials' results, by its digest.
        study_identities: The same by the folder's contender, workload, framework and study.
        audits: Records of our audits.
        oddities: Problems found while reading.
        competition: The rules that AlgoPerf's logs were read by, with targets.
        due_studies: How many studies those rules ask for; ``None``: as many as the logs have.
    """

    path: Path
    is_ours: bool
    trials: tuple[Trial, ...]
    unrecorded: tuple[Trial, ...] = ()
    studies: tuple[StudyRecord, ...] = ()
    campaign: Mapping[str, Any] | None = None
    identities: Mapping[str, Identity] = dataclasses.field(default_factory=dict)
    study_identities: Mapping[tuple[str, str, str, int], Identity] = dataclasses.field(
        default_factory=dict
    )
    audits: tuple[AuditRecord, ...] = ()
    oddities: tuple[Oddity, ...] = ()
    competition: Competition = dataclasses.field(default_factory=Competition)
    due_studies: int | None = None

    @functools.cached_property
    def all_trials(self) -> tuple[Trial, ...]:
        """The trials with and without a record, by folder."""
        return tuple(sorted((*self.trials, *self.unrecorded), key=lambda t: (t.key, t.where)))

    def grouped(self, by: Callable[[TrialKey], Any]) -> Mapping[Any, list[Trial]]:
        """Return :attr:`all_trials` in groups."""
        groups: dict[Any, list[Trial]] = {}
        for trial in self.all_trials:
            groups.setdefault(by(trial.key), []).append(trial)
        return groups

    @functools.cached_property
    def contenders(self) -> list[str]:
        """Names of the contenders that ran or should have."""
        planned = self.campaign["contenders"] if self.campaign else []
        return sorted({*planned, *(trial.record.contender for trial in self.trials)})

    @functools.cached_property
    def workloads(self) -> list[str]:
        """Names of the workloads, in the campaign's or the targets' order if there is one."""
        found = {trial.record.workload for trial in self.trials}
        planned = list(self.campaign["workloads"]) if self.campaign else []
        if not self.is_ours and (targets := self.competition.targets) is not None:
            planned = [name for name in (*targets.base, *targets.held_out) if name in found]
        return [*planned, *sorted(found - set(planned))]

    @functools.cached_property
    def study_count(self) -> int:
        """How many studies each contender should have on each workload.

        Raises:
            ValueError: They are more than ``MAX_STUDIES``; a missing one takes memory as well.
        """
        count = self._due()
        if count > MAX_STUDIES:
            raise ValueError(f"{self.path}: {count:,} studies; the limit is {MAX_STUDIES:,}.")
        return count

    def _due(self) -> int:
        if self.is_ours:
            planned = self.campaign["studies"] if self.campaign else 0
            return max([planned, *(trial.record.study for trial in self.trials)])
        if self.due_studies is not None:
            return self.due_studies
        groups: dict[tuple[str, ...], set[int]] = {}
        for trial in self.trials:
            groups.setdefault(trial.key[:3], set()).add(trial.key.study)
        return max(map(len, groups.values()), default=0)

    @property
    def notes(self) -> tuple[str, ...]:
        """The oddities, as sentences."""
        return tuple(map(str, self.oddities))

    @functools.cached_property
    def by_pair(self) -> Mapping[tuple[str, str], list[Trial]]:
        """The trials by contender and workload, study by study."""
        found: dict[tuple[str, str], list[Trial]] = {}
        for trial in self.trials:
            pair = trial.record.contender, trial.record.workload
            found.setdefault(pair, []).append(trial)
        return found

    def of(self, contender: str, workload: str) -> list[Trial]:
        """Return one contender's trials on one workload, study by study."""
        return self.by_pair.get((contender, workload), [])

    def identity(self, record: TrialRecord) -> Identity | None:
        """Return what decided a trial's result; ``None`` if its study does not say."""
        return self.identities.get(getattr(record, "digest", ""))
