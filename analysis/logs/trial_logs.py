"""Read logs in AlgoPerf's layout, official ones or ours: every oddity is noted, none is fatal.

One pass over the files, in whatever order they come; what is kept of a trial is the columns and
documents that were asked for.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from analysis.logs.files import (
    MAX_DOCUMENT_BYTES,
    MAX_EVALUATION_BYTES,
    Evaluations,
    read_document,
    read_evaluations,
)
from analysis.logs.layout import Place, TrialKey, document_of, is_known_file, locate
from analysis.logs.sources import Entry, Oddities, Oddity, Source, open_source
from metaopt.bench import identity, records

MAX_TRIALS = 200_000

Cell = tuple[str, str, str, int]  # submission, workload, framework, study

DOCUMENTS = ("hparams", "flags", "meta_data", "run")
_AROUND = ("report", records.CAMPAIGN_FILE)  # beside a campaign's logs
_OF_STUDIES = (records.STUDY_FILE, identity.FILE)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class LoggedTrial:
    """One trial of the layout.

    Attributes:
        key: Which.
        where: Path of its folder.
        evaluations: ``None`` if there is no such file, or none that is read.
        documents: What was asked for and can be read, of ``hparams``, ``flags``, ``meta_data`` (as
            it began: those numbered 0 where there are several) and ``run``.
        files: Names of the files that are there, of those that are read.
    """

    key: TrialKey
    where: str
    evaluations: Evaluations | None
    documents: Mapping[str, Mapping[str, Any]]
    files: frozenset[str]

    def document(self, name: str) -> Mapping[str, Any]:
        """Return a document, an empty one if there is none."""
        return self.documents.get(name, _NOTHING)


@dataclasses.dataclass(frozen=True)
class TrialLogs:
    """All trials, in an order that depends on neither folder nor tar."""

    source: Source
    trials: tuple[LoggedTrial, ...]
    oddities: tuple[Oddity, ...]
    studies: Mapping[Cell, Mapping[str, Any]]  # our study.json
    identities: Mapping[Cell, Mapping[str, Any]]  # our identity.json
    campaign: Mapping[str, Any] | None  # our campaign.json

    @property
    def submissions(self) -> list[str]:
        """Names of the submissions."""
        return sorted({trial.key.submission for trial in self.trials})


@dataclasses.dataclass
class _Pending:
    key: TrialKey
    evaluations: Evaluations | None = None
    documents: dict[str, tuple[int, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    files: set[str] = dataclasses.field(default_factory=set)


def read_trial_logs(
    path: Path,
    within: str | None = None,
    *,
    columns: Callable[[TrialKey, str], bool] = lambda key, name: True,
    documents: tuple[str, ...] = (),
) -> TrialLogs:
    """Read a folder or tar of logs.

    Args:
        path: The folder or tar; of a campaign's output folder the ``logs`` in it.
        within: A path inside.
        columns: Which columns of a trial's evaluations are kept.
        documents: Which of ``DOCUMENTS`` are kept.

    Raises:
        ValueError: There is no trial, there are more than ``MAX_TRIALS``, or the submissions lie
            under more than one folder.
    """
    return _Reader(open_source(path, within), columns, documents).read()


class _Reader:
    def __init__(
        self,
        source: Source,
        columns: Callable[[TrialKey, str], bool],
        documents: tuple[str, ...],
    ) -> None:
        self.source, self.columns, self.documents = source, columns, documents
        self.oddities = Oddities()
        self.pending: dict[str, _Pending] = {}
        self.roots: set[str] = set()
        self.campaign: Mapping[str, Any] | None = None
        self.studies: dict[str, dict[Cell, Mapping[str, Any]]] = {name: {} for name in _OF_STUDIES}
        self.outside: dict[str, None] = {}  # files and folders without a study in their path

    def read(self) -> TrialLogs:
        for entry in self.source.stream(self._limit, self.oddities):
            place = locate(entry.path)
            if place is None:
                self._look_outside(entry)
            elif place.key is None:
                self._look_beside(entry, place)
            else:
                self._look_into(entry, place, place.key)
        if not self.pending:
            raise ValueError(
                f"{self.source.path}: no finished trial "
                "(<submission>/study_1/<workload>_jax/trial_1) in it."
            )
        if len(self.roots) > 1:
            roots = [root or "." for root in sorted(self.roots)]
            raise ValueError(
                f"{self.source.path}: submissions lie under {len(roots)} folders, {roots[:5]}; "
                "choose one with --within."
            )
        self._note_strays()
        trials = sorted(
            (
                LoggedTrial(
                    trial.key,
                    where,
                    trial.evaluations,
                    {name: document for name, (_, document) in trial.documents.items()},
                    frozenset(trial.files),
                )
                for where, trial in self.pending.items()
            ),
            key=lambda trial: (trial.key, trial.where),
        )
        oddities = sorted(self.oddities.seen)
        if self.oddities.dropped:
            what = f"{self.oddities.dropped:,} more oddities, not kept"
            oddities.append(Oddity("files-size", ".", what))
        beside = (self.studies[name] for name in _OF_STUDIES)
        return TrialLogs(self.source, tuple(trials), tuple(oddities), *beside, self.campaign)

    def _limit(self, path: str) -> int | None:
        """Return how many bytes of a file are read at most; ``None`` for nothing of it."""
        place = locate(path)
        if place is None:
            ours = path.rpartition("/")[2] == records.CAMPAIGN_FILE and "run" in self.documents
            return MAX_DOCUMENT_BYTES if ours else None
        if place.key is None:
            ours = path.rpartition("/")[2] in _OF_STUDIES and "run" in self.documents
            return MAX_DOCUMENT_BYTES if ours else None
        if place.file == records.EVAL_FILE:
            return MAX_EVALUATION_BYTES
        document = document_of(place.file)
        return MAX_DOCUMENT_BYTES if document and document[0] in self.documents else None

    def _look_into(self, entry: Entry, place: Place, key: TrialKey) -> None:
        if place.path not in self.pending:
            if len(self.pending) == MAX_TRIALS:
                raise ValueError(
                    f"{self.source.path}: more than {MAX_TRIALS:,} trials, which is the limit; "
                    "choose a part with --within."
                )
            self.pending[place.path] = _Pending(key)
            self.roots.add(place.root)
        if not place.file:
            return
        trial = self.pending[place.path]
        if not is_known_file(place.file):
            self.oddities.add("files-stray", entry.path, "not a file of a trial")
            return
        if entry.is_folder:
            return
        document = document_of(place.file)
        if document is not None or place.file == records.EVAL_FILE:
            trial.files.add(place.file)
        if entry.content is None:
            return
        if place.file == records.EVAL_FILE:
            trial.evaluations = read_evaluations(
                entry.content, lambda name: self.columns(key, name)
            )
            for fault in trial.evaluations.faults:
                self.oddities.add(fault.rule, entry.path, fault.what)
        elif document is not None and (found := self._document(entry)) is not None:
            name, preemptions = document
            known = trial.documents.get(name)
            if known is None or preemptions < known[0]:
                trial.documents[name] = preemptions, found

    def _look_beside(self, entry: Entry, place: Place) -> None:
        """What lies in a study but in none of its trials: our files, or strays."""
        inner = place.inner
        if not inner or inner[-1].startswith(".") or (len(inner) == 1 and place.cell):
            return
        if place.cell and len(inner) == 2 and inner[1].endswith(".log"):
            return  # what AlgoPerf's launcher printed
        if place.cell is None or len(inner) != 2 or inner[1] not in _OF_STUDIES:
            what = "not <workload>_<framework>" if place.cell is None else "not a trial"
            self.oddities.add("files-stray", place.path, what)
        elif (document := self._document(entry)) is not None:
            self.studies[inner[1]][place.cell] = document

    def _document(self, entry: Entry) -> Mapping[str, Any] | None:
        if entry.content is None:
            return None
        document, wrong = read_document(entry.content)
        if document is None:
            self.oddities.add("types-json", entry.path, wrong)
        return document

    def _look_outside(self, entry: Entry) -> None:
        if entry.path.rpartition("/")[2] == records.CAMPAIGN_FILE and entry.content is not None:
            self.campaign = self._document(entry)
        elif len(self.outside) < MAX_TRIALS:
            self.outside[entry.path] = None

    def _note_strays(self) -> None:
        """Note what is in no study and above none, unless a campaign has it beside its logs."""
        (root,) = self.roots
        known = {oddity.where for oddity in self.oddities.seen}
        for where in self.pending:
            parts = where.split("/")
            known |= {"/".join(parts[:end]) for end in range(1, len(parts))}
        base = "/".join(root.split("/")[:-1]) if root.split("/")[-1] == "logs" else root
        stray: set[str] = set()
        for path in sorted(self.outside):
            inner = path.removeprefix(f"{base}/") if base else path
            first = inner.split("/")[0]
            if path in known or first.startswith(".") or first in _AROUND:
                continue
            if path.rpartition("/")[0] not in stray:  # else it has been said of its folder
                self.oddities.add("files-stray", path, "in no study")
            stray.add(path)
