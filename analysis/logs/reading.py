"""Read a campaign's logs. Logs are strangers' files: every oddity is noted, none is fatal."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.logs.memory import load_tar
from analysis.logs.sources import open_source
from metaopt.bench import identity, records
from metaopt.bench.identity import Identity, digest_of, read_identity
from metaopt.bench.records import StudyRecord, TrialRecord

_STUDY = re.compile(r"study_([0-9]{1,9})")
_TRIAL = re.compile(r"trial_([0-9]{1,9})")
_KNOWN_FILES = frozenset({records.CAMPAIGN_FILE, records.STUDY_FILE, identity.FILE, "report"})


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial's record and where its evaluations are."""

    record: TrialRecord
    folder: Path


@dataclasses.dataclass(frozen=True)
class Logs:
    """Everything that was found, in an order that does not depend on the file system."""

    trials: tuple[Trial, ...]
    studies: tuple[StudyRecord, ...]
    campaign: dict[str, Any] | None
    notes: tuple[str, ...]
    # What decided the trials' results, by their digests. Older logs have none.
    identities: Mapping[str, Identity] = dataclasses.field(default_factory=dict)

    @property
    def contenders(self) -> list[str]:
        """Names of those who ran or should have."""
        planned = self.campaign["contenders"] if self.campaign else []
        return sorted({*planned, *(trial.record.contender for trial in self.trials)})

    @property
    def workloads(self) -> list[str]:
        """Names of the workloads, in the campaign's order if there is one."""
        planned = self.campaign["workloads"] if self.campaign else []
        found = sorted({trial.record.workload for trial in self.trials} - set(planned))
        return [*planned, *found]

    @property
    def study_count(self) -> int:
        """How many studies each contender should have on each workload."""
        planned = self.campaign["studies"] if self.campaign else 0
        return max([planned, *(trial.record.study for trial in self.trials)])

    def identity(self, record: TrialRecord) -> Identity | None:
        """Return what decided a trial's result; ``None`` if its study does not say."""
        return self.identities.get(record.digest)

    def of(self, contender: str, workload: str) -> list[Trial]:
        """Return one contender's trials on one workload, study by study."""
        return [
            trial
            for trial in self.trials
            if (trial.record.contender, trial.record.workload) == (contender, workload)
        ]


def read_logs(path: Path, within: str | None = None) -> Logs:
    """Read an output folder, the ``logs`` folder in it, or a tar of either.

    Args:
        path: The folder or tar.
        within: A path inside.

    Raises:
        ValueError: There is no such folder, or no finished trial in it.
    """
    notes: list[str] = []
    source = open_source(path, within)
    folder = load_tar(path, within, notes) if source.is_tar else path / source.within
    root = folder if (folder / "logs").is_dir() or folder.name != "logs" else folder.parent
    logs = root / "logs" if (root / "logs").is_dir() else root
    campaign = _read_campaign(root / records.CAMPAIGN_FILE, notes)
    trials: list[Trial] = []
    studies: list[StudyRecord] = []
    identities: dict[str, Identity] = {}
    for folder in _workload_folders(logs, notes):
        trials += _read_trials(folder, logs, notes)
        try:
            found = read_identity(folder)
        except (OSError, ValueError) as error:
            notes.append(str(error))
        else:
            identities |= {} if found is None else {digest_of(found): found}
        file = folder / records.STUDY_FILE
        if not file.exists():
            notes.append(f"{folder.relative_to(logs)}: unfinished study (no {file.name})")
            continue
        try:
            studies.append(records.read_study(file))
        except (OSError, ValueError) as error:
            notes.append(str(error))
    if not trials:
        raise ValueError(
            f"{path}: no finished trial (<contender>/study_1/<workload>_jax/trial_1) of ours; "
            "AlgoPerf's logs need --targets."
        )
    trials.sort(
        key=lambda t: (t.record.contender, t.record.workload, t.record.study, t.record.trial)
    )
    studies.sort(key=lambda s: (s.contender, s.workload, s.study))
    _compare_counts(trials, studies, notes)
    return Logs(tuple(trials), tuple(studies), campaign, tuple(notes), identities)


def _read_campaign(file: Path, notes: list[str]) -> dict[str, Any] | None:
    if not file.exists():
        notes.append("no campaign.json: what should have run is not known")
        return None
    try:
        campaign = json.loads(file.read_text("utf-8"))
        for key in ("contenders", "workloads"):
            if not all(isinstance(name, str) for name in campaign[key]):
                raise TypeError(f"{key} are not names")
        if not isinstance(campaign["studies"], int):
            raise TypeError("studies is not a number")
        for variant in campaign.get("variants", {}).values():
            if not isinstance(variant["of"], str) or not isinstance(
                variant["hyperparameters"], dict
            ):
                raise TypeError("variants are not contenders with hyperparameters")
        for key, kind in (("file", str), ("toml", str), ("changes", dict)):
            if "source" in campaign and not isinstance(campaign["source"][key], kind):
                raise TypeError(f"{key} of the source is no {kind.__name__}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        notes.append(f"campaign.json cannot be read: {error!r}")
        return None
    return campaign


def _workload_folders(logs: Path, notes: list[str]) -> list[Path]:
    folders = []
    for contender in _folders(logs, logs, notes):
        for study in _folders(contender, logs, notes, _STUDY):
            folders += _folders(study, logs, notes)
    return folders


def _folders(
    folder: Path, logs: Path, notes: list[str], name: re.Pattern[str] | None = None
) -> list[Path]:
    """Return the folders in ``folder`` that have a name of the layout; note what else is there."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _KNOWN_FILES:
            continue
        if path.is_dir() and (name is None or name.fullmatch(path.name)):
            found.append(path)
        else:
            notes.append(f"{path.relative_to(logs)}: stray, ignored")
    return found


def _compare_counts(trials: list[Trial], studies: list[StudyRecord], notes: list[str]) -> None:
    found = Counter((t.record.contender, t.record.workload, t.record.study) for t in trials)
    for study in studies:
        count = found[study.contender, study.workload, study.study]
        if count != study.trials:
            notes.append(
                f"{study.contender} on {study.workload}, study {study.study}: "
                f"{study.trials} trials were run, {count} can be read"
            )


def _read_trials(folder: Path, logs: Path, notes: list[str]) -> list[Trial]:
    trials = []
    for path in _folders(folder, logs, notes, _TRIAL):
        where = path.relative_to(logs)
        if not (path / records.RUN_FILE).exists():
            notes.append(f"{where}: unfinished trial, not counted")
            continue
        try:
            record = records.read_trial(path / records.RUN_FILE)
        except (OSError, ValueError) as error:
            notes.append(str(error))
            continue
        expected = records.trial_directory(
            logs, record.contender, record.study, record.workload, record.trial
        )
        if expected != path:
            notes.append(f"{where}: its record belongs to {expected.relative_to(logs)}, ignored")
            continue
        if record.preemptions:
            plural = "s" if record.preemptions > 1 else ""
            notes.append(f"{where}: preempted {record.preemptions} time{plural}")
        evaluations = path / records.EVAL_FILE
        if record.ledger.cost.steps and not (evaluations.exists() and evaluations.stat().st_size):
            notes.append(f"{where}: {evaluations.name} is missing or empty")
        trials.append(Trial(record, path))
    return trials
