"""Rules on pairing: compared contenders share seeds, workload, data and settings."""

from collections.abc import Iterator
from typing import Any

from analysis.checks.rules import rule
from analysis.logs.logs import Logs, Trial
from metaopt.bench.records import TrialRecord
from metaopt.bench.records.identity import (
    CODE_PARTS,
    FILE,
    WORKLOAD_PARTS,
    Identity,
    differences,
    digest_of,
    listed,
)


def _records(logs: Logs) -> Iterator[tuple[Trial, TrialRecord]]:
    for trial in logs.trials if logs.is_ours else ():
        yield trial, trial.record


def _identity(logs: Logs, trial: Trial) -> Identity | None:
    return logs.study_identities.get(trial.key[:4])


@rule(
    "pairing-frameworks",
    "a submission has one framework on a workload",
    means="The official scorer stops; under the strict rules the more expensive one counts.",
    fix="Remove the logs of one framework, or give the other one another name.",
)
def mixed_frameworks(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find submissions with logs of two frameworks on a workload."""
    groups = logs.grouped(lambda key: (key.submission, key.workload))
    for (submission, workload), trials in groups.items():
        found = sorted({trial.key.framework for trial in trials})
        if len(found) > 1:
            yield f"{submission} on {workload}", f"logs of {' and '.join(found)}"


@rule(
    "pairing-campaign",
    "our trials are of one campaign",
    severity="note",
    strict="error",
    means="Runs of several campaigns are in one folder: an entry of the leaderboard is of one.",
    fix="Give each campaign its own folder.",
)
def several_campaigns(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find records of several campaigns."""
    if len(names := sorted({record.campaign for _, record in _records(logs)})) > 1:
        yield ".", f"runs of several campaigns: {names}"


@rule(
    "pairing-seeds",
    "trial i of study k has the same seed for all contenders of ours",
    means="The contenders did not start from the same parameters and data order: differences are "
    "not paired.",
    fix="Run all contenders in one campaign.",
)
def unpaired_seeds(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials whose seed differs from another contender's seed for the same trial."""
    first: dict[tuple[str, int, int] | str, tuple[int, str]] = {}
    for trial, record in _records(logs):
        place = record.workload, record.study, record.trial
        for name, group, seed in (
            ("seed", place, record.seeds.trial),
            ("the campaign's seed", record.workload, record.seeds.campaign),
        ):
            known, where = first.setdefault(group, (seed, trial.where))
            if seed != known:
                yield f"{trial.where}/run.json", f"{name} {seed}, but that of {where} is {known}"
                break


def _terms(record: TrialRecord) -> dict[str, Any]:
    return {
        "step_hint": record.step_hint,
        "reference_batch_size": record.reference_batch_size,
        "eval_period": record.budget.eval_period,
        "currency": record.budget.currency,
        "data": record.data,
    }


@rule(
    "pairing-terms",
    "our trials on a workload have the same step hint, reference batch, schedule and data",
    means="The trials are not of one experiment, or their gradient evaluations differ in size.",
    fix="Run all contenders in one campaign.",
)
def differing_terms(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find the first trial on each workload whose terms differ from those of its first trial."""
    first: dict[str, tuple[dict[str, Any], str]] = {}
    said: set[tuple[str, str]] = set()
    for trial, record in _records(logs):
        found = _terms(record)
        known, where = first.setdefault(record.workload, (found, trial.where))
        for name, value in found.items():
            if value != known[name] and (record.workload, name) not in said:
                said.add((record.workload, name))
                yield trial.where, f"{name} is {value}, that of {where} is {known[name]}"


@rule(
    "pairing-code",
    "a contender of ours on a workload is one version of all that decides its results",
    means="A file was changed between its trials: they are not of one contender.",
    fix="Run the contender again in an empty folder.",
)
def several_versions(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials whose digest differs from that of their contender's first trial."""
    first: dict[tuple[str, ...], tuple[TrialRecord, str, Identity | None]] = {}
    said: set[tuple[tuple[str, ...], str]] = set()
    for trial, record in _records(logs):
        identity = _identity(logs, trial)
        if identity is not None and digest_of(identity) != record.digest:
            yield trial.where, f"its digest is not that of its study's {FILE}"
            continue
        groups: list[tuple[str, ...]] = [(record.contender, record.workload)]
        if identity is None:  # the digest is that of the submission, on all workloads
            groups.append((record.contender,))
        for group in groups:
            known, where, before = first.setdefault(group, (record, trial.where, identity))
            if record.digest != known.digest and (group, record.digest) not in said:
                said.add((group, record.digest))
                names = [] if before is None or identity is None else differences(before, identity)
                what = "digest" if not names else listed(names)
                yield trial.where, f"another {what} than {where}"


@rule(
    "pairing-workload",
    "all trials of ours on a workload have the same workload, data, targets and settings",
    means="The contenders did not solve the same problem: their costs do not compare.",
    fix="Run all contenders again in an empty folder.",
)
def several_workloads(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find contenders whose version of a workload differs from the first one's."""
    first: dict[str, tuple[Identity, str]] = {}
    said: set[tuple[str, str]] = set()
    for trial, record in _records(logs):
        if (identity := _identity(logs, trial)) is None:
            continue
        known, where = first.setdefault(record.workload, (identity, trial.where))
        names = differences(known, identity, WORKLOAD_PARTS)
        if names and (record.contender, record.workload) not in said:
            said.add((record.contender, record.workload))
            yield trial.where, f"another {listed(names)} than {where}"


@rule(
    "pairing-kit",
    "files that contenders of ours share are of one version",
    severity="note",
    means="A submission, the kit or a tuner was changed after some contenders were finished.",
    fix="Run all contenders again in an empty folder, if the change matters.",
)
def changed_files(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find contenders whose version of a shared file differs from the first one's."""
    first: dict[str, tuple[str, str]] = {}
    said: dict[str, set[str]] = {}
    for trial, record in _records(logs):
        identity = _identity(logs, trial) or {}
        for part in CODE_PARTS:
            for name, digest in identity.get(part, {}).items():
                known, where = first.setdefault(name, (digest, trial.where))
                if digest != known and record.contender not in said.setdefault(name, set()):
                    said[name].add(record.contender)
                    yield trial.where, f"another {name} than {where}"
