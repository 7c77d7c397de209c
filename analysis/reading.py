"""Read a campaign's logs. Logs are strangers' files: every oddity is noted, none is fatal."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.records import StudyRecord, TrialRecord

_STUDY = re.compile(r"study_(\d+)")
_TRIAL = re.compile(r"trial_(\d+)")


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


def read_logs(path: Path) -> Logs:
    """Read an output folder, or the ``logs`` folder in it.

    Raises:
        ValueError: There is no such folder, or no finished trial in it.
    """
    if not path.is_dir():
        raise ValueError(f"No folder {str(path)!r}.")
    root = path if (path / "logs").is_dir() or path.name != "logs" else path.parent
    logs = root / "logs" if (root / "logs").is_dir() else root
    notes: list[str] = []
    campaign = _read_campaign(root / records.CAMPAIGN_FILE, notes)
    trials: list[Trial] = []
    studies: list[StudyRecord] = []
    for folder in _workload_folders(logs, notes):
        trials += _read_trials(folder, logs, notes)
        file = folder / records.STUDY_FILE
        if not file.exists():
            notes.append(f"{folder.relative_to(logs)}: unfinished study (no {file.name})")
            continue
        try:
            studies.append(records.read_study(file))
        except ValueError as error:
            notes.append(str(error))
    if not trials:
        raise ValueError(f"{path}: no finished trial (<contender>/study_1/<workload>_jax/trial_1).")
    trials.sort(
        key=lambda t: (t.record.contender, t.record.workload, t.record.study, t.record.trial)
    )
    studies.sort(key=lambda s: (s.contender, s.workload, s.study))
    return Logs(tuple(trials), tuple(studies), campaign, tuple(notes))


def _read_campaign(file: Path, notes: list[str]) -> dict[str, Any] | None:
    if not file.exists():
        notes.append("no campaign.json: what should have run is not known")
        return None
    try:
        campaign = json.loads(file.read_text("utf-8"))
        _ = campaign["contenders"], campaign["workloads"], campaign["studies"]
    except (ValueError, KeyError, TypeError) as error:
        notes.append(f"campaign.json cannot be read: {error!r}")
        return None
    return campaign


def _workload_folders(logs: Path, notes: list[str]) -> list[Path]:
    folders = []
    for contender in sorted(path for path in logs.iterdir() if path.is_dir()):
        for study in sorted(contender.iterdir()):
            if not _STUDY.fullmatch(study.name) or not study.is_dir():
                notes.append(f"{study.relative_to(logs)}: stray, ignored")
                continue
            folders += sorted(path for path in study.iterdir() if path.is_dir())
    return folders


def _read_trials(folder: Path, logs: Path, notes: list[str]) -> list[Trial]:
    trials = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or not _TRIAL.fullmatch(path.name):
            continue
        where = path.relative_to(logs)
        if not (path / records.RUN_FILE).exists():
            notes.append(f"{where}: unfinished trial, not counted")
            continue
        try:
            record = records.read_trial(path / records.RUN_FILE)
        except ValueError as error:
            notes.append(str(error))
            continue
        expected = records.trial_directory(
            logs, record.contender, record.study, record.workload, record.trial
        )
        if expected != path:
            notes.append(f"{where}: its record belongs to {expected.relative_to(logs)}, ignored")
            continue
        if record.preemptions:
            notes.append(f"{where}: preempted {record.preemptions} times")
        trials.append(Trial(record, path))
    return trials
