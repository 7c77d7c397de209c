"""Read a folder or tar of logs, AlgoPerf's or ours: every oddity is noted, none is fatal.

One pass over the files, in whatever order they come.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydantic

from analysis.logs.competition import Competition, OfficialTargets, Ruleset
from analysis.logs.files import (
    MAX_DOCUMENT_BYTES,
    MAX_EVALUATION_BYTES,
    NEEDED,
    PREEMPTIONS,
    SCORE,
    SECONDS,
    STEP,
    Evaluations,
    read_document,
    read_evaluations,
)
from analysis.logs.layout import Place, TrialKey, document_of, is_known_file, locate
from analysis.logs.logs import Logs, Trial
from analysis.logs.oddities import Oddities
from analysis.logs.official import Run, logged_target, ruleset_of, study_records
from analysis.logs.sources import Entry, read_entries
from metaopt.bench import identity, records
from metaopt.bench.audits.record import AUDIT_FILE, AuditRecord
from metaopt.bench.identity import Identity, digest_of, parse_identity
from metaopt.bench.records import StudyRecord, TrialRecord, algoperf_name
from metaopt.bench.targets import Target

MAX_TRIALS = 200_000
_ALWAYS = (STEP, SECONDS, SCORE, PREEMPTIONS)

_Cell = tuple[str, str, str, int]  # submission, workload, framework, study
_M = TypeVar("_M", bound=pydantic.BaseModel)
ANYTHING = Competition()
_DOCUMENTS = ("hparams", "flags", "meta_data")
_AROUND = ("report", records.CAMPAIGN_FILE)  # beside a campaign's logs
_OF_STUDIES = (records.STUDY_FILE, identity.FILE)


def all_columns(key: TrialKey, name: str) -> bool:
    """Return true: every column of every trial."""
    return True


def read_logs(
    path: Path,
    within: str | None = None,
    competition: Competition = ANYTHING,
    *,
    columns: Callable[[TrialKey, str], bool] = all_columns,
    uncounted: bool = False,
) -> Logs:
    """Read an output folder of ours, a folder of AlgoPerf's logs, or a tar of either.

    Args:
        path: The folder or tar.
        within: A path inside.
        competition: The rules that AlgoPerf's logs are read by. With targets, logs of ours are read
            as AlgoPerf's too: their own targets and records do not count.
        columns: Which columns of a trial's evaluations are kept. Those of the clocks and of the
            target always are.
        uncounted: Whether logs are read in which no trial counts: none has a valid record, or no
            workload has a target.

    Raises:
        ValueError: There is no trial that counts, there are more than ``MAX_TRIALS``, submissions
            lie under more than one folder, or the flags contradict the ruleset.
    """
    base = path / (within or ".")
    if path.is_dir() and base.name == "logs" and (base.parent / records.CAMPAIGN_FILE).is_file():
        path, within = base.parent, None
    logs = _Reader(path, within, competition, columns).read()
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


class _Reader:
    def __init__(
        self,
        path: Path,
        within: str | None,
        competition: Competition,
        columns: Callable[[TrialKey, str], bool],
    ) -> None:
        self.path, self.within = path, within
        self.competition, self.columns = competition, columns
        self.oddities = Oddities()
        self.pending: dict[str, _Pending] = {}
        self.roots: set[str] = set()
        self.campaign: Mapping[str, Any] | None = None
        self.studies: dict[_Cell, StudyRecord | None] = {}  # None: not valid
        self.identities: dict[_Cell, Identity] = {}
        self.audits: list[AuditRecord] = []
        self.outside: dict[str, None] = {}  # files and folders without a study in their path

    def read(self) -> Logs:
        for entry in read_entries(self.path, self.within, self._limit, self.oddities):
            place = locate(entry.path)
            if place is None:
                self._look_outside(entry)
            elif place.key is None:
                self._look_beside(entry, place)
            else:
                self._look_into(entry, place, place.key)
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
        found = sorted(self.pending.items(), key=lambda entry: (entry[1].key, entry[0]))
        is_ours = any(records.RUN_FILE in trial.files for _, trial in found)
        if is_ours and self.competition.targets is None:
            return self._ours(found)
        return self._official(found)

    def _limit(self, path: str) -> int | None:
        """Return how many bytes of a file are read at most; ``None`` for nothing of it."""
        place, name = locate(path), path.rpartition("/")[2]
        if place is None:
            return MAX_DOCUMENT_BYTES if name == records.CAMPAIGN_FILE else None
        if place.key is None:
            return MAX_DOCUMENT_BYTES if name in _OF_STUDIES else None
        if place.file == records.EVAL_FILE:
            return MAX_EVALUATION_BYTES
        return MAX_DOCUMENT_BYTES if document_of(place.file) else None

    def _look_into(self, entry: Entry, place: Place, key: TrialKey) -> None:
        if place.path not in self.pending:
            if len(self.pending) == MAX_TRIALS:
                raise ValueError(
                    f"{self.path}: more than {MAX_TRIALS:,} trials, which is the limit. Choose a "
                    "part with --within."
                )
            self.pending[place.path] = _Pending(key)
            self.roots.add(place.root)
        if not place.file:
            return
        trial = self.pending[place.path]
        if not is_known_file(place.file):
            self.oddities.add("files-stray", entry.path, "not a file of a trial")
            return
        document = document_of(place.file)
        if entry.is_folder or (document is None and place.file != records.EVAL_FILE):
            return
        trial.files.add(sys.intern(place.file))
        if entry.content is None:
            return
        if document is None:
            trial.evaluations = read_evaluations(
                entry.content, lambda name: self._is_kept(key, name)
            )
            for fault in trial.evaluations.faults:
                self.oddities.add(fault.rule, entry.path, fault.what)
        elif place.file == records.RUN_FILE:
            trial.record, trial.problem = _parse(TrialRecord, entry.content)
        elif place.file == AUDIT_FILE:
            audit, problem = _parse(AuditRecord, entry.content)
            if audit is None:
                self.oddities.add("types-json", entry.path, problem)
            else:
                self.audits.append(audit)
        elif (content := self._document(entry)) is not None:
            name, preemptions = document
            if name == "flags":  # absl writes sixty of them, most of them unset
                unset = (None, False, "")
                content = {k: v for k, v in content.items() if not any(v is u for u in unset)}
            known = trial.documents.get(name)
            if known is None or preemptions < known[0]:
                trial.documents[name] = preemptions, content

    def _is_kept(self, key: TrialKey, name: str) -> bool:
        if name in _ALWAYS or self.columns(key, name):
            return True
        # Without targets, the meta data name the metric, and they may come later.
        targets = self.competition.targets
        known = targets is not None and name == targets.column(key.workload)
        return known or (targets is None and name.startswith("validation/"))

    def _look_beside(self, entry: Entry, place: Place) -> None:
        """Look at what lies in a study but in none of its trials: our files, or strays."""
        inner = place.inner
        if not inner or inner[-1].startswith(".") or (len(inner) == 1 and place.cell):
            return
        if place.cell and len(inner) == 2 and inner[1].endswith(".log"):
            return  # what AlgoPerf's launcher printed
        if place.cell is None or len(inner) != 2 or inner[1] not in _OF_STUDIES:
            what = "not <workload>_<framework>" if place.cell is None else "not a trial"
            self.oddities.add("files-stray", place.path, what)
        elif entry.content is not None and inner[1] == records.STUDY_FILE:
            self.studies[place.cell], problem = _parse(StudyRecord, entry.content)
            if problem:
                self.oddities.add("files-study", entry.path, problem)
        elif entry.content is not None:
            try:
                self.identities[place.cell] = parse_identity(entry.content)
            except ValueError as error:
                self.oddities.add("files-study", entry.path, str(error))

    def _document(self, entry: Entry, rule: str = "types-json") -> Mapping[str, Any] | None:
        document, wrong = read_document(entry.content or b"")
        if document is None:
            self.oddities.add(rule, entry.path, wrong)
        return document

    def _look_outside(self, entry: Entry) -> None:
        if entry.path.rpartition("/")[2] == records.CAMPAIGN_FILE and entry.content is not None:
            if (campaign := self._document(entry, "files-campaign")) is not None:
                problem = _campaign_problem(campaign)
                if problem:
                    self.oddities.add("files-campaign", entry.path, problem)
                else:
                    self.campaign = campaign
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
            if path.rpartition("/")[0] not in stray:  # else it was said of its folder
                self.oddities.add("files-stray", path, "in no study")
            stray.add(path)

    def _ours(self, found: list[tuple[str, _Pending]]) -> Logs:
        trials, unrecorded = [], []
        for where, pending in found:
            problem = pending.problem
            if pending.record is not None:
                problem = _misplaced(pending.record, pending.key)
            trial = _trial(where, pending, None if problem else pending.record)
            if problem:
                self.oddities.add("files-run", where, problem)
                unrecorded.append(trial)
                continue
            trials.append(trial)
            record = trial.record
            self._note_preemptions(where, record.preemptions)
            failed = record.status in records.FAILURES
            if record.ledger.cost.steps and not (failed or trial.rows.rows or trial.rows.faults):
                what = f"{records.EVAL_FILE} is missing or has no rows"
                self.oddities.add("files-evaluations", where, what)
        trials.sort(key=lambda t: _order(t.record))
        self._compare_with_studies(trials, found)
        self._compare_with_campaign(trials)
        studies = [study for study in self.studies.values() if study is not None]
        return Logs(
            self.path,
            True,
            tuple(trials),
            tuple(unrecorded),
            tuple(sorted(studies, key=lambda s: (s.contender, s.workload, s.study))),
            self.campaign,
            {digest_of(one): one for one in self.identities.values()},
            self.identities,
            tuple(sorted(self.audits, key=_order)),
            self.oddities.all(),
            self.competition,
        )

    def _compare_with_studies(self, trials: list[Trial], found: list[tuple[str, _Pending]]) -> None:
        counts = Counter(trial.key[:4] for trial in trials)
        folders = {trial.key[:4]: where.rpartition("/")[0] for where, trial in found}
        for cell, folder in folders.items():
            if cell not in self.studies:
                what = f"no {records.STUDY_FILE}: an unfinished study"
                self.oddities.add("files-study", folder, what)
            elif (study := self.studies[cell]) is not None and study.trials != counts[cell]:
                what = f"{study.trials} trials were run, {counts[cell]} can be read"
                self.oddities.add("files-study", folder, what)

    def _compare_with_campaign(self, trials: list[Trial]) -> None:
        if self.campaign is None:
            if not any(oddity.rule == "files-campaign" for oddity in self.oddities.seen):
                what = f"no {records.CAMPAIGN_FILE}: what should have run is not known"
                self.oddities.add("files-campaign", ".", what)
            return
        for names, of in (("contenders", "contender"), ("workloads", "workload")):
            planned, ran = set(self.campaign[names]), {getattr(t.record, of) for t in trials}
            if missing := sorted(planned - ran):
                what = f"{names} of the campaign that have no trial: {missing}"
                self.oddities.add("files-campaign", ".", what)
            if extra := sorted(ran - planned):
                what = f"{names} that the campaign does not have: {extra}"
                self.oddities.add("files-campaign", ".", what)

    def _official(self, found: list[tuple[str, _Pending]]) -> Logs:
        groups: dict[_Cell, list[tuple[str, _Pending]]] = {}
        for where, pending in found:
            groups.setdefault(pending.key[:4], []).append((where, pending))
        targets = self.competition.targets or _logged_targets(found)
        competition = dataclasses.replace(self.competition, targets=targets)
        # A version is known with the file only; its limits are those of the file.
        limits = {ruleset: self.competition.limits(ruleset) for ruleset in ("external", "self")}
        rulesets = self._rulesets(found)
        trials: list[Trial] = []
        for cell, members in groups.items():
            submission, workload, _, study = cell
            target = _target(targets, workload)
            if target is None:
                trials += [_trial(where, pending, None) for where, pending in members]
                continue
            runs = [
                Run(
                    where,
                    pending.key.trial,
                    pending.evaluations,
                    {name: content for name, (_, content) in pending.documents.items()},
                )
                for where, pending in members
            ]
            for run in runs:
                self._note_columns(run, target)
            ruleset = rulesets[submission]
            derived = study_records(
                (submission, workload, study), runs, target, ruleset, limits[ruleset], self.oddities
            )
            trials += [
                _trial(where, pending, record)
                for (where, pending), record in zip(members, derived, strict=True)
            ]
        unscored = sorted({t.key.workload for t in trials if t.record is None})
        for workload in unscored:
            self.oddities.add("targets-known", workload, "no target: it is left out")
        counted = tuple(trial for trial in trials if trial.record is not None)
        return Logs(
            self.path, False, counted,
            unrecorded=tuple(trial for trial in trials if trial.record is None),
            oddities=self.oddities.all(), competition=competition,
            due_studies=self.competition.limits("external").studies,
        )  # fmt: skip

    def _note_preemptions(self, where: str, count: float) -> None:
        if count > 0:
            times = f"{count:g} time{'s' if count > 1 else ''}"
            self.oddities.add("clocks-preempted", where, f"preempted {times}")

    def _note_columns(self, run: Run, target: Target) -> None:
        if run.evaluations is None or not run.evaluations.rows:
            what = f"{records.EVAL_FILE} {'is missing' if run.evaluations is None else 'is empty'}"
            self.oddities.add("files-evaluations", run.where, f"{what}: a miss")
            return
        preemptions = run.evaluations.column(PREEMPTIONS)
        self._note_preemptions(run.where, float(np.nan_to_num(preemptions).max()))
        header = run.evaluations.header
        file = f"{run.where}/{records.EVAL_FILE}"
        if target.metric not in header:
            self.oddities.add("columns-metric", file, f"no column {target.metric}: a miss")
        if missing := [name for name in NEEDED if name not in header]:
            self.oddities.add("columns-needed", file, f"no columns {missing}")

    def _rulesets(self, found: list[tuple[str, _Pending]]) -> dict[str, Ruleset]:
        """Return each submission's ruleset: the one that its flags name, of two the more frequent.

        Raises:
            ValueError: A submission's flags contradict the ruleset that was asked for.
        """
        asked = self.competition.ruleset
        counts: dict[str, Counter[Ruleset]] = {}
        for _, pending in found:
            mine = counts.setdefault(pending.key.submission, Counter())
            _, flags = pending.documents.get("flags", (0, {}))
            if (ruleset := ruleset_of(flags)) is not None:
                mine[ruleset] += 1
        rulesets: dict[str, Ruleset] = {}
        for submission, mine in counts.items():
            named: Ruleset = mine.most_common(1)[0][0] if mine else asked or "external"
            if asked is not None and named != asked:
                raise ValueError(
                    f"The flags of {submission} say --tuning_ruleset={named}, which contradicts "
                    f"--ruleset {asked}. Leave the option out, or choose a part with --within."
                )
            if len(mine) > 1:
                listed = ", ".join(f"{name} in {n} trials" for name, n in mine.most_common())
                self.oddities.add("files-flags", submission, f"flags of two rulesets: {listed}")
            rulesets[submission] = named
        return rulesets


def _parse(model: type[_M], content: bytes) -> tuple[_M | None, str]:
    """Return a record and ``""``, or ``None`` and what is wrong."""
    try:
        return model.model_validate_json(content), ""
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        return None, f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"


def _misplaced(record: TrialRecord, key: TrialKey) -> str:
    """Return why a record is not that of its folder; nothing if it is."""
    # Our folders carry AlgoPerf's names of its workloads.
    told = record.contender, algoperf_name(record.workload), record.study, record.trial
    if told == (key.submission, key.workload, key.study, key.trial):
        return ""
    return (
        f"its record is of trial {record.trial} of study {record.study} of {record.contender} on "
        f"{record.workload}, ignored"
    )


def _campaign_problem(campaign: Mapping[str, Any]) -> str:
    """Return what is wrong with a ``campaign.json``; nothing if it is one."""
    try:
        for key in ("contenders", "workloads"):
            if not isinstance(campaign[key], list) or not all(
                isinstance(name, str) for name in campaign[key]
            ):
                raise TypeError(f"{key} is no list of names")
        if not isinstance(campaign["studies"], int):
            raise TypeError("studies is no number")
        for variant in campaign.get("variants", {}).values():
            if not isinstance(variant["of"], str) or not isinstance(
                variant["hyperparameters"], dict
            ):
                raise TypeError("variants are not contenders with hyperparameters")
        for key, kind in (("file", str), ("toml", str), ("changes", dict)):
            if "source" in campaign and not isinstance(campaign["source"][key], kind):
                raise TypeError(f"{key} of the source is no {kind.__name__}")
    except (KeyError, TypeError, AttributeError) as error:
        return f"cannot be read: {error!r}"
    return ""


def _logged_targets(found: list[tuple[str, _Pending]]) -> OfficialTargets:
    """Return the targets that the logs' own meta data name; of several the most frequent.

    A workload whose name has another's in it is a variant of that one.
    """
    counts: dict[str, Counter[tuple[str, float]]] = {}
    for _, pending in found:
        _, meta = pending.documents.get("meta_data", (0, {}))
        target = logged_target(meta)
        if target is not None:
            told = target.metric.removeprefix("validation/"), target.value
            counts.setdefault(pending.key.workload, Counter())[told] += 1
    metrics = {name: told.most_common(1)[0][0] for name, told in sorted(counts.items())}
    base = tuple(name for name in metrics if not any(o in name for o in metrics if o != name))
    return OfficialTargets(base, tuple(name for name in metrics if name not in base), metrics)


def _target(targets: OfficialTargets, workload: str) -> Target | None:
    return targets.target(workload) if workload in targets.metrics else None


def _trial(where: str, pending: _Pending, record: Any) -> Trial:
    documents = {name: content for name, (_, content) in pending.documents.items()}
    return Trial(
        pending.key, where, record, pending.evaluations, documents, frozenset(pending.files)
    )


def _order(record: Any) -> tuple[str, str, int, int]:
    return record.contender, record.workload, record.study, record.trial
