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
        key: The identity of the trial, from its folder.
        where: The path of its folder in the logs.
        record: Its TrialRecord, or the OfficialRecord derived from AlgoPerf's files; ``None`` if
            the trial does not count.
        evaluations: Its evaluation rows; ``None`` without a readable file.
        documents: Its ``hparams``, ``flags`` and ``meta_data``, if read; of several numbered files
            the first.
        files: The names of its known files.
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
    """The content of a folder or tar of logs, in an order independent of the file system.

    Attributes:
        path: The folder or tar.
        is_ours: Whether our runner wrote them.
        trials: The trials with a record; only these count.
        unrecorded: The other trials.
        studies: Records of our finished studies.
        campaign: Our ``campaign.json``; ``None`` if it is missing or invalid.
        identities: The identities of our trials, by digest.
        study_identities: The same by submission, workload, framework and study of the folder.
        audits: Records of our audits.
        oddities: Problems found while reading.
        competition: The rules that AlgoPerf's logs were read by, with targets.
        due_studies: The number of studies that those rules require; ``None`` if they set none.
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
        """The names of the contenders that ran or were planned."""
        planned = self.campaign["contenders"] if self.campaign else []
        return sorted({*planned, *(trial.record.contender for trial in self.trials)})

    @functools.cached_property
    def workloads(self) -> list[str]:
        """The names of the workloads, in the order of the campaign or of the targets, if known."""
        found = {trial.record.workload for trial in self.trials}
        planned = list(self.campaign["workloads"]) if self.campaign else []
        if not self.is_ours and (targets := self.competition.targets) is not None:
            planned = [name for name in (*targets.base, *targets.held_out) if name in found]
        return [*planned, *sorted(found - set(planned))]

    @functools.cached_property
    def study_count(self) -> int:
        """The number of studies that each contender should have on each workload.

        Raises:
            ValueError: There are more than ``MAX_STUDIES``; missing studies take memory too.
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
        """Return the identity of a trial; ``None`` if its study has none."""
        return self.identities.get(getattr(record, "digest", ""))
