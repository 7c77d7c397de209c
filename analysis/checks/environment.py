"""Rules on the environment: it is recorded, and the same for all compared trials."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from analysis.checks.rules import rule
from analysis.logs.hardware import fingerprints
from analysis.logs.logs import Logs, Trial
from analysis.wording import counted

_NEEDED = ("cpu_model_name", "python_version", "os_platform")
_HARDWARE = ("gpu_model_name", "gpu_count", "cpu_model_name", "cpu_count")


@rule(
    "environment-known",
    "the meta data name the machine of a trial",
    means="Its seconds cannot be compared.",
    fix="Copy meta_data_0.json as the runner wrote it.",
)
def unknown_environment(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find meta data without a processor, a version of Python or a platform."""
    for trial in logs.all_trials:
        meta = trial.documents.get("meta_data")
        if meta is not None and (missing := [name for name in _NEEDED if not meta.get(name)]):
            yield trial.where, f"the meta data has no {', '.join(missing)}"


@rule(
    "environment-hardware",
    "all trials ran on one kind of hardware",
    severity="note",
    means="Seconds of different hardware do not compare; steps and gradient evaluations do.",
    fix="Compare within one kind of hardware, or by --cost steps.",
)
def mixed_hardware(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find logs with several kinds of hardware in the meta data."""
    found = Counter(
        " x ".join(str(trial.document("meta_data").get(name) or "none") for name in _HARDWARE)
        for trial in logs.all_trials
        if "meta_data" in trial.documents
    )
    if len(found) > 1:
        yield ".", f"{len(found)} kinds of hardware: {_counts(found)}"


@rule(
    "environment-machines",
    "a contender of ours ran on one kind of hardware on a workload",
    severity="note",
    strict="error",
    means="Its costs in seconds are of several machines: an entry of the leaderboard is of one.",
    fix="Run the contender again on one machine.",
)
def several_machines(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find our contenders that ran on several kinds of hardware on one workload."""
    found: dict[tuple[str, str], set[str]] = {}
    for trial, one in zip(logs.trials, fingerprints(logs), strict=True) if logs.is_ours else ():
        found.setdefault((trial.record.contender, trial.record.workload), set()).add(one.slug)
    for (contender, workload), slugs in sorted(found.items()):
        if len(slugs) > 1:
            what = f"ran on {len(slugs)} kinds of hardware, {sorted(slugs)}"
            yield f"{contender} on {workload}", what


@rule(
    "environment-software",
    "a submission's trials ran on the same versions",
    severity="note",
    means="Versions differ in speed and in numbers.",
    fix="Run all of them in one environment.",
)
def mixed_software(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find submissions that ran with several sets of software versions."""
    groups = logs.grouped(lambda key: (key.submission, key.framework))
    for (submission, framework), trials in groups.items():
        found = Counter(filter(None, (_software(logs, trial) for trial in trials)))
        if len(found) > 1:
            what = f"{len(found)} sets of software: {_counts(found)}"
            yield f"{submission} ({framework})", what


def _software(logs: Logs, trial: Trial) -> str:
    if logs.is_ours:
        versions = {} if trial.record is None else _part(trial.record.environment, "software")
    else:
        meta = trial.document("meta_data")
        names = ("python_version", "gpu_driver")
        versions = {name: meta[name] for name in names if meta.get(name)}
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)


@rule(
    "environment-commit",
    "our trials ran from a clean commit",
    severity="note",
    strict="error",
    means="The results cannot be tied to a commit.",
    fix="Commit, and run the campaign again in an empty folder.",
)
def uncommitted_changes(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials that ran from a checkout with changes, or without a known commit."""
    for trial in logs.trials if logs.is_ours else ():
        git = _part(trial.record.environment, "git")
        if not isinstance(commit := git.get("commit"), str):
            yield trial.where, "the commit is not known"
        elif git.get("dirty") is not False:
            yield trial.where, f"changes on top of commit {commit[:12]}"


@rule(
    "environment-commits",
    "our trials ran from one commit",
    severity="note",
    means="The results are of several versions of the project.",
    fix="Nothing, if pairing-code and pairing-workload find nothing.",
)
def several_commits(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find logs of ours from several commits."""
    trials = logs.trials if logs.is_ours else ()
    commits = Counter(
        str(_part(trial.record.environment, "git").get("commit"))[:12] for trial in trials
    )
    if len(commits) > 1:
        yield ".", f"{len(commits)} commits: {_counts(commits, ', ')}"


@rule(
    "environment-data",
    "our trials ran on whole data sets",
    severity="note",
    strict="error",
    means="The workload is not the published one.",
    fix="Get the rest of the data, and run the campaign again in an empty folder.",
)
def partial_data(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find workloads that ran on only a part of their data set."""
    parts = {
        (trial.record.workload, ", ".join(sorted(data.get("files", {}))))
        for trial in (logs.trials if logs.is_ours else ())
        if (data := trial.record.data) is not None and data.get("whole") is False
    }
    for workload, files in sorted(parts):
        yield workload, f"on a part of its data set: {files}"


def _counts(found: Counter[str], between: str = "; ") -> str:
    return between.join(
        f"{name} ({counted(count, 'trial')})" for name, count in found.most_common()
    )


def _part(environment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = environment.get(name)
    return part if isinstance(part, dict) else {}
