"""The folder layout of logs, AlgoPerf's and ours: find the trial of a path.

<anything>/<submission>[-YYYY-MM-DD-HH-MM-SS]/study_<j>/<workload>_<framework>/trial_<i>/<file>
"""

import functools
import re
from typing import NamedTuple

from metaopt.bench import records
from metaopt.bench.records.audit import AUDIT_FILE

FRAMEWORKS = ("jax", "pytorch")

_STUDY = re.compile(r"study_([0-9]{1,9})")
_WORKLOAD = re.compile(r"(.+)_(jax|pytorch)")
_TRIAL = re.compile(r"trial_([0-9]{1,9})")
_TIMESTAMP = re.compile(r"-\d{4}(-\d{2}){5}$")
_NUMBERED = re.compile(r"(flags|meta_data)_(\d{1,9})\.json")
_IN_A_TRIAL = re.compile(
    r"(eval_measurements\.csv|measurements\.csv|(hparams|run|audit)\.json|(flags|meta_data)_\d+\.json"
    r"|events\.out\.tfevents\..*|checkpoint.*|\..*)"
)


StudyKey = tuple[str, str, str, int]  # submission, workload, framework, study


class TrialKey(NamedTuple):
    """The identity of a trial; trials are sorted by it."""

    submission: str
    workload: str
    framework: str
    study: int
    trial: int


class Place(NamedTuple):
    """The position of a path in the layout."""

    root: str  # the path before the submission, may be ""
    inner: tuple[str, ...]  # the parts after the study
    cell: StudyKey | None
    trial: int | None
    path: str  # the trial's folder; without a trial, the first part outside the layout

    @property
    def key(self) -> TrialKey | None:
        """The trial that the path belongs to; ``None`` without one."""
        return None if self.cell is None or self.trial is None else TrialKey(*self.cell, self.trial)

    @property
    def file(self) -> str:
        """The path within the trial; empty for its folder."""
        return "/".join(self.inner[2:])


@functools.lru_cache(maxsize=1024)
def locate(path: str) -> Place | None:
    """Return the place of ``path``; ``None`` if no part of it is a study.

    Examples:
        >>> place = locate("logs/adamw-2026-01-01-00-00-00/study_2/wmt_jax/trial_3/hparams.json")
        >>> place.key
        TrialKey(submission='adamw', workload='wmt', framework='jax', study=2, trial=3)
        >>> place.root, place.file
        ('logs', 'hparams.json')
        >>> place = locate("adamw/study_1/trial_1/hparams.json")  # a workload is missing
        >>> place.key, place.path
        (None, 'adamw/study_1/trial_1')
    """
    parts = path.split("/")
    for at, part in enumerate(parts):
        if at and part.startswith("study_") and _STUDY.fullmatch(part):
            break
    else:
        return None
    inner = tuple(parts[at + 1 :])
    workload = _WORKLOAD.fullmatch(inner[0]) if inner else None
    trial = _TRIAL.fullmatch(inner[1]) if len(inner) > 1 else None
    cell = None
    if workload:
        submission = _TIMESTAMP.sub("", parts[at - 1])
        cell = submission, workload[1], workload[2], int(parts[at].removeprefix("study_"))
    return Place(
        "/".join(parts[: at - 1]),
        inner,
        cell,
        int(trial[1]) if trial and cell else None,
        "/".join(parts[: at + (3 if cell else 2)]),
    )


def parse_document_name(file: str) -> tuple[str, int] | None:
    """Return the kind of a trial's JSON document and the number of preemptions before it.

    Examples:
        >>> parse_document_name("meta_data_2.json"), parse_document_name("a.json")
        (('meta_data', 2), None)
    """
    if file in (records.HPARAMS_FILE, records.RUN_FILE, AUDIT_FILE):
        return file.removesuffix(".json"), 0
    match = _NUMBERED.fullmatch(file)
    return (match[1], int(match[2])) if match else None


def is_known_file(file: str) -> bool:
    """Return whether our runner or AlgoPerf's writes such a file into a trial's folder."""
    return _IN_A_TRIAL.match(file) is not None
