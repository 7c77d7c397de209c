"""Rules on pairing: what is compared differs in the contender and in nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

from analysis.checks.subject import LogSubject, log_rule
from metaopt.bench.identity import (
    CODE_PARTS,
    FILE,
    WORKLOAD_PARTS,
    Identity,
    differences,
    digest_of,
    listed,
)
from metaopt.bench.records import TrialRecord


def _mixed_frameworks(subject: LogSubject) -> Iterator[tuple[str, str]]:
    groups = subject.grouped(lambda key: (key.submission, key.workload))
    for (submission, workload), trials in groups.items():
        found = sorted({trial.key.framework for trial in trials})
        if len(found) > 1:
            yield f"{submission} on {workload}", f"logs of {' and '.join(found)}"


def _unpaired(subject: LogSubject) -> Iterator[tuple[str, str]]:
    first: dict[tuple[str, int, int] | str, tuple[int, str]] = {}
    for trial, record in subject.records:
        place = record.workload, record.study, record.trial
        for name, group, seed in (
            ("seed", place, record.seeds.trial),
            ("the campaign's seed", record.workload, record.seeds.campaign),
        ):
            known, where = first.setdefault(group, (seed, trial.where))
            if seed != known:
                yield f"{trial.where}/run.json", f"{name} {seed}, but that of {where} is {known}"
                break


def _differing(
    of: Callable[[TrialRecord], Any], terms: Callable[[TrialRecord], dict[str, Any]]
) -> Callable[[LogSubject], Iterator[tuple[str, str]]]:
    """Return what finds the first trial of each group whose terms are not the group's first."""

    def find(subject: LogSubject) -> Iterator[tuple[str, str]]:
        first: dict[Any, tuple[dict[str, Any], str]] = {}
        said: set[tuple[Any, str]] = set()
        for trial, record in subject.records:
            group, found = of(record), terms(record)
            known, where = first.setdefault(group, (found, trial.where))
            for name, value in found.items():
                if value != known[name] and (group, name) not in said:
                    said.add((group, name))
                    yield trial.where, f"{name} is {value}, that of {where} is {known[name]}"

    return find


def _several_versions(subject: LogSubject) -> Iterator[tuple[str, str]]:
    first: dict[tuple[str, ...], tuple[TrialRecord, str, Identity | None]] = {}
    said: set[tuple[tuple[str, ...], str]] = set()
    for trial, record in subject.records:
        identity = subject.identity(trial)
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


def _several_workloads(subject: LogSubject) -> Iterator[tuple[str, str]]:
    first: dict[str, tuple[Identity, str]] = {}
    said: set[tuple[str, str]] = set()
    for trial, record in subject.records:
        if (identity := subject.identity(trial)) is None:
            continue
        known, where = first.setdefault(record.workload, (identity, trial.where))
        names = differences(known, identity, WORKLOAD_PARTS)
        if names and (record.contender, record.workload) not in said:
            said.add((record.contender, record.workload))
            yield trial.where, f"another {listed(names)} than {where}"


def _changed_since(subject: LogSubject) -> Iterator[tuple[str, str]]:
    first: dict[str, tuple[str, str]] = {}
    said: dict[str, set[str]] = {}
    for trial, record in subject.records:
        identity = subject.identity(trial) or {}
        for part in CODE_PARTS:
            for name, digest in identity.get(part, {}).items():
                known, where = first.setdefault(name, (digest, trial.where))
                if digest != known and record.contender not in said.setdefault(name, set()):
                    said[name].add(record.contender)
                    yield trial.where, f"another {name} than {where}"


def _terms_of_workload(record: TrialRecord) -> dict[str, Any]:
    return {
        "step_hint": record.step_hint,
        "reference_batch_size": record.reference_batch_size,
        "eval_period": record.budget.eval_period,
        "currency": record.budget.currency,
        "data": record.data,
    }


RULES = (
    log_rule(
        "pairing-frameworks",
        "a submission has one framework on a workload",
        _mixed_frameworks,
        means="The official scorer stops; under our rules the dearer one counts.",
        mend="Take the logs of one of them out, or give the other another name.",
    ),
    log_rule(
        "pairing-seeds",
        "trial i of study k has the same seed for all contenders of ours",
        _unpaired,
        means="The contenders did not start from the same parameters and data order: differences "
        "are not paired.",
        mend="Run all contenders in one campaign.",
    ),
    log_rule(
        "pairing-terms",
        "our trials on a workload have the same step hint, batch of reference, schedule and data",
        _differing(lambda record: record.workload, _terms_of_workload),
        means="The trials are not of one experiment, or their gradient evaluations differ in size.",
        mend="Run all contenders in one campaign.",
    ),
    log_rule(
        "pairing-code",
        "a contender of ours on a workload is one version of all that decides its results",
        _several_versions,
        means="A file was changed between its trials: they are not of one contender.",
        mend="Run the contender again in an empty folder.",
    ),
    log_rule(
        "pairing-workload",
        "all trials of ours on a workload have the same workload, data, targets and settings",
        _several_workloads,
        means="The contenders did not solve the same problem: their costs do not compare.",
        mend="Run all contenders again in an empty folder.",
    ),
    log_rule(
        "pairing-kit",
        "what contenders of ours have in common is of one version",
        _changed_since,
        severity="note",
        means="A submission, the kit or a tuner was changed after some contenders were finished.",
        mend="Run all contenders again in an empty folder, if the change matters.",
    ),
)
