"""Rules on pairing: what is compared differs in the contender and in nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

from analysis.validation.subject import LogSubject, log_rule
from metaopt.bench.records import TrialRecord


def _mixed_frameworks(subject: LogSubject) -> Iterator[tuple[str, str]]:
    groups = subject.grouped(lambda key: (key.submission, key.workload))
    for (submission, workload), trials in groups.items():
        found = sorted({trial.key.framework for trial in trials})
        if len(found) > 1:
            yield f"{submission} on {workload}", f"logs of {' and '.join(found)}"


def _unpaired(subject: LogSubject) -> Iterator[tuple[str, str]]:
    first: dict[tuple[str, int, int], tuple[int, str]] = {}
    for trial, record in subject.records:
        place = record.workload, record.study, record.trial
        seed, where = first.setdefault(place, (record.seeds.trial, trial.where))
        if seed != record.seeds.trial:
            what = f"seed {record.seeds.trial}, but that of {where} is {seed}"
            yield f"{trial.where}/run.json", what


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
        "a contender of ours is one version of its submission",
        _differing(lambda record: record.contender, lambda record: {"digest": record.digest}),
        means="The submission was changed between its trials.",
        mend="Run the contender again in an empty folder.",
    ),
)
