"""Rules on the environment: known, and one for all that is compared."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from analysis.checks.subject import LogSubject, log_rule
from analysis.logs.trial_logs import LoggedTrial

_NEEDED = ("cpu_model_name", "python_version", "os_platform")
_HARDWARE = ("gpu_model_name", "gpu_count", "cpu_model_name", "cpu_count")


def _unknown(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        meta = trial.documents.get("meta_data")
        if meta is not None and (missing := [name for name in _NEEDED if not meta.get(name)]):
            yield trial.where, f"the meta data has no {', '.join(missing)}"


def _mixed_hardware(subject: LogSubject) -> Iterator[tuple[str, str]]:
    found = Counter(
        " x ".join(str(trial.document("meta_data").get(name) or "none") for name in _HARDWARE)
        for trial in subject.trials
        if "meta_data" in trial.documents
    )
    if len(found) > 1:
        listed = "; ".join(f"{name} ({count} trials)" for name, count in found.most_common())
        yield ".", f"{len(found)} kinds of hardware: {listed}"


def _mixed_software(subject: LogSubject) -> Iterator[tuple[str, str]]:
    groups = subject.grouped(lambda key: (key.submission, key.framework))
    for (submission, framework), trials in groups.items():
        found = Counter(filter(None, (_software(subject, trial) for trial in trials)))
        if len(found) > 1:
            listed = "; ".join(f"{name} ({count} trials)" for name, count in found.most_common())
            yield f"{submission} ({framework})", f"{len(found)} sets of software: {listed}"


def _software(subject: LogSubject, trial: LoggedTrial) -> str:
    if subject.is_ours:
        record = subject.record(trial)
        versions = {} if record is None else _part(record.environment, "software")
    else:
        meta = trial.document("meta_data")
        names = ("python_version", "gpu_driver")
        versions = {name: meta[name] for name in names if meta.get(name)}
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)


def _unclean(subject: LogSubject) -> Iterator[tuple[str, str]]:
    commits: Counter[str] = Counter()
    for trial, record in subject.records:
        git = _part(record.environment, "git")
        commit = git.get("commit")
        commits[str(commit)[:12]] += 1
        if not commit:
            yield trial.where, "the commit is not known"
        elif git.get("dirty"):
            yield trial.where, f"changes on top of commit {str(commit)[:12]}"
    if len(commits) > 1:
        listed = ", ".join(f"{commit} ({count} trials)" for commit, count in commits.most_common())
        yield ".", f"{len(commits)} commits: {listed}"


def _part(environment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = environment.get(name)
    return part if isinstance(part, dict) else {}


RULES = (
    log_rule(
        "environment-known",
        "the meta data say what a trial ran on",
        _unknown,
        means="Its seconds can be compared with nobody's.",
        mend="Copy meta_data_0.json as the runner wrote it.",
    ),
    log_rule(
        "environment-hardware",
        "all trials ran on one kind of hardware",
        _mixed_hardware,
        severity="note",
        means="Seconds of different hardware do not compare; steps and gradient evaluations do.",
        mend="Compare within one kind of hardware, or by --cost steps.",
    ),
    log_rule(
        "environment-software",
        "a submission's trials ran on the same versions",
        _mixed_software,
        severity="note",
        means="Versions differ in speed and in numbers.",
        mend="Run all of them in one environment.",
    ),
    log_rule(
        "environment-commit",
        "our trials ran from one clean commit",
        _unclean,
        severity="note",
        means="A published number is tied to a commit; this one cannot be.",
        mend="Commit, and run the campaign again in an empty folder.",
    ),
)
