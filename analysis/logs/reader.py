"""Read a folder or tar of logs, AlgoPerf's or ours. Oddities are noted; none is fatal.

The reader makes one pass over the files, in any order.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from analysis.logs.competition import Competition
from analysis.logs.layout import Place, TrialKey, is_known_file, locate, parse_document_name
from analysis.logs.logs import Logs, Trial
from analysis.logs.oddities import Oddities
from analysis.logs.official_logs import official_logs
from analysis.logs.our_logs import CampaignFiles, campaign_problem, our_logs
from analysis.logs.sources import FoundFile, walk_files
from analysis.logs.trial_files import (
    MAX_DOCUMENT_BYTES,
    MAX_EVALUATION_BYTES,
    SCORE,
    SECONDS,
    STEP,
    Evaluations,
    read_document,
    read_evaluations,
)
from metaopt.bench import records
from metaopt.bench.records import StudyRecord, TrialRecord, identity
from metaopt.bench.records.audit import AUDIT_FILE, AuditRecord
from metaopt.bench.records.identity import parse_identity
from metaopt.bench.records.trials import describe_invalid

MAX_TRIALS = 200_000
_ALWAYS = (STEP, SECONDS, SCORE)

_M = TypeVar("_M", bound=pydantic.BaseModel)
DEFAULT_COMPETITION = Competition()
_AROUND = ("report", records.CAMPAIGN_FILE)  # beside a campaign's logs
_OF_STUDIES = (records.STUDY_FILE, identity.FILE)


def all_columns(key: TrialKey, name: str) -> bool:
    """Keep every column of every trial."""
    return True


def no_columns(key: TrialKey, name: str) -> bool:
    """Keep only the clocks and the target metric, which are always kept."""
    return False


def read_logs(
    path: Path,
    within: str | None = None,
    competition: Competition = DEFAULT_COMPETITION,
    *,
    columns: Callable[[TrialKey, str], bool] = all_columns,
    hyperparameters: bool = True,
    uncounted: bool = False,
) -> Logs:
    """Read an output folder of ours, a folder of AlgoPerf's logs, or a tar of either.

    Args:
        path: The folder or tar.
        within: A path inside.
        competition: The rules that AlgoPerf's logs are read by. With targets, logs of ours are read
            as AlgoPerf's too: their own targets and records do not count.
        columns: A filter of the evaluation columns to keep. The clocks and the target metric are
            always kept.
        hyperparameters: Whether to read ``hparams.json``.
        uncounted: Whether to accept logs in which no trial counts, because no trial has a valid
            record or no workload has a target.

    Raises:
        ValueError: No trial counts, there are more than ``MAX_TRIALS``, the submissions are in
            several folders, or the flags contradict the ruleset.
    """
    base = path / (within or ".")
    if path.is_dir() and base.name == "logs" and (base.parent / records.CAMPAIGN_FILE).is_file():
        path, within = base.parent, None
    logs = _Reader(path, within, competition, columns, hyperparameters).read()
    if not logs.trials and not uncounted:
        what = "finished trial: no valid run.json" if logs.is_ours else "workload that has a target"
        raise ValueError(f"{path}: no {what} (<submission>/study_1/<workload>_jax/trial_1).")
    return logs


@dataclasses.dataclass
class _Pending:
    key: TrialKey
    evaluations: Evaluations | None = None
    documents: dict[str, tuple[int, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    record: TrialRecord | None = None
    problem: str = f"no {records.RUN_FILE}: unfinished, not counted"
    files: set[str] = dataclasses.field(default_factory=set)

    def finish(self, where: str) -> Trial:
        documents = {name: content for name, (_, content) in self.documents.items()}
        return Trial(
            self.key, where, self.record, self.evaluations, documents, frozenset(self.files)
        )


class _Reader:
    def __init__(
        self,
        path: Path,
        within: str | None,
        competition: Competition,
        columns: Callable[[TrialKey, str], bool],
        hyperparameters: bool,
    ) -> None:
        self.path, self.within = path, within
        self.competition, self.columns = competition, columns
        self.hyperparameters = hyperparameters
        self.oddities = Oddities()
        self.pending: dict[str, _Pending] = {}
        self.roots: set[str] = set()
        self.beside = CampaignFiles()
        self.outside: dict[str, None] = {}  # files and folders without a study in their path

    def read(self) -> Logs:
        for entry in walk_files(self.path, self.within, self._limit, self.oddities):
            place = locate(entry.path)
            if place is None:
                self._look_outside(entry)
            elif (key := place.key) is None:
                self._look_beside(entry, place)
            else:
                self._look_into(entry, place, key)
        if not self.pending:
            raise ValueError(
                f"{self.path}: no finished trial (<submission>/study_1/<workload>_jax/trial_1)."
            )
        if len(self.roots) > 1:
            roots = [root or "." for root in sorted(self.roots)]
            raise ValueError(
                f"{self.path}: submissions lie under {len(roots)} folders, {roots[:5]}. Choose one "
                "with --within."
            )
        self._note_strays()
        found = [
            (trial.finish(where), trial.problem)
            for where, trial in sorted(self.pending.items(), key=lambda e: (e[1].key, e[0]))
        ]
        is_ours = any(records.RUN_FILE in trial.files for trial, _ in found)
        if is_ours and self.competition.targets is None:
            return our_logs(self.path, found, self.beside, self.competition, self.oddities)
        trials = [dataclasses.replace(trial, record=None) for trial, _ in found]
        return official_logs(self.path, trials, self.competition, self.oddities)

    def _limit(self, path: str) -> int | None:
        """Return the size limit of a file in bytes; ``None`` if it is not read."""
        place, name = locate(path), path.rpartition("/")[2]
        if place is None:
            return MAX_DOCUMENT_BYTES if name == records.CAMPAIGN_FILE else None
        if place.trial is None:
            return MAX_DOCUMENT_BYTES if name in _OF_STUDIES else None
        if place.file == records.EVAL_FILE:
            return MAX_EVALUATION_BYTES
        if place.file == records.HPARAMS_FILE and not self.hyperparameters:
            return None
        return MAX_DOCUMENT_BYTES if parse_document_name(place.file) else None

    def _look_into(self, entry: FoundFile, place: Place, key: TrialKey) -> None:
        if place.path not in self.pending:
            if len(self.pending) == MAX_TRIALS:
                raise ValueError(
                    f"{self.path}: more than {MAX_TRIALS:,} trials, which is the limit. Choose a "
                    "part with --within."
                )
            self.pending[place.path] = _Pending(key)
            self.roots.add(place.root)
        file = place.file
        if not file:
            return
        trial = self.pending[place.path]
        if not is_known_file(file):
            self.oddities.add("files-stray", entry.path, "not a file of a trial")
            return
        document = parse_document_name(file)
        if entry.is_folder or (document is None and file != records.EVAL_FILE):
            return
        trial.files.add(sys.intern(file))
        if entry.content is None:
            return
        if document is None:
            trial.evaluations = read_evaluations(
                entry.content, lambda name: self._is_kept(key, name)
            )
            for fault in trial.evaluations.faults:
                self.oddities.add(fault.rule, entry.path, fault.what)
        elif file == records.RUN_FILE:
            trial.record, trial.problem = _parse(TrialRecord, entry.content)
        elif file == AUDIT_FILE:
            audit, problem = _parse(AuditRecord, entry.content)
            if audit is None:
                self.oddities.add("types-json", entry.path, problem)
            else:
                self.beside.audits.append(audit)
        elif (content := self._document(entry)) is not None:
            name, preemptions = document
            if name == "flags":  # absl writes sixty flags, most of them unset
                content = {
                    key: value
                    for key, value in content.items()
                    if value is not None and value is not False and value != ""
                }
            known = trial.documents.get(name)
            if known is None or preemptions < known[0]:
                trial.documents[name] = preemptions, content

    def _is_kept(self, key: TrialKey, name: str) -> bool:
        if name in _ALWAYS or self.columns(key, name):
            return True
        # Without targets, the metric is in the meta data, which may come later.
        targets = self.competition.targets
        known = targets is not None and name == targets.column(key.workload)
        return known or (targets is None and name.startswith("validation/"))

    def _look_beside(self, entry: FoundFile, place: Place) -> None:
        """Read an entry inside a study but outside its trials: one of our files, or a stray."""
        inner = place.inner
        if not inner or inner[-1].startswith(".") or (len(inner) == 1 and place.cell):
            return
        if place.cell and len(inner) == 2 and inner[1].endswith(".log"):
            return  # the output of AlgoPerf's launcher
        if place.cell is None or len(inner) != 2 or inner[1] not in _OF_STUDIES:
            what = "not <workload>_<framework>" if place.cell is None else "not a trial"
            self.oddities.add("files-stray", place.path, what)
        elif entry.content is not None and inner[1] == records.STUDY_FILE:
            self.beside.studies[place.cell], problem = _parse(StudyRecord, entry.content)
            if problem:
                self.oddities.add("files-study", entry.path, problem)
        elif entry.content is not None:
            try:
                self.beside.identities[place.cell] = parse_identity(entry.content)
            except ValueError as error:
                self.oddities.add("files-study", entry.path, str(error))

    def _document(self, entry: FoundFile, rule: str = "types-json") -> Mapping[str, Any] | None:
        document, wrong = read_document(entry.content or b"")
        if document is None:
            self.oddities.add(rule, entry.path, wrong)
        return document

    def _look_outside(self, entry: FoundFile) -> None:
        if entry.path.rpartition("/")[2] == records.CAMPAIGN_FILE and entry.content is not None:
            if (campaign := self._document(entry, "files-campaign")) is not None:
                problem = campaign_problem(campaign)
                if problem:
                    self.oddities.add("files-campaign", entry.path, problem)
                else:
                    self.beside.campaign = campaign
        elif len(self.outside) < MAX_TRIALS:
            self.outside[entry.path] = None

    def _note_strays(self) -> None:
        """Note entries outside of all studies, except the campaign's own files."""
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
            if path.rpartition("/")[0] not in stray:  # else its folder was noted already
                self.oddities.add("files-stray", path, "in no study")
            stray.add(path)


def _parse(model: type[_M], content: bytes) -> tuple[_M | None, str]:
    """Return a record and ``""``, or ``None`` and the fault."""
    try:
        return model.model_validate_json(content), ""
    except pydantic.ValidationError as error:
        return None, describe_invalid(error)
