"""Rules on targets: the same for all, and reached where the record says so."""

from collections.abc import Iterator

from analysis.checks.subject import LogSubject, log_rule, logged_target
from analysis.logs.files import SECONDS, STEP
from analysis.scoring.outcomes import first_hit
from metaopt.bench.targets import Target


def _without_target(subject: LogSubject) -> Iterator[tuple[str, str]]:
    if subject.targets is None:
        return
    for workload in sorted(subject.grouped(lambda key: key.workload)):
        if workload not in subject.targets.metrics:
            yield workload, f"no target; there are {sorted(subject.targets.metrics)}"


def _differing(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for workload, trials in subject.grouped(lambda key: key.workload).items():
        found: dict[Target, int] = {}
        for trial in trials:
            record = subject.record(trial)
            told = logged_target(trial) if record is None else record.target.target()
            if told is not None:
                found[told] = found.get(told, 0) + 1
        if subject.targets is not None and workload in subject.targets.metrics:
            found.setdefault(subject.targets.target(workload), 0)
        if len(found) > 1:
            listed = ", ".join(
                f"{target.metric} {target.value:g} ({f'{count} trials' if count else 'file'})"
                for target, count in sorted(found.items(), key=lambda entry: -entry[1])
            )
            yield workload, f"targets differ: {listed}"


def _wrongly_reached(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial, record in subject.records:
        if trial.evaluations is None:
            if record.reached is not None:
                yield trial.where, "the record has a hit, but there are no evaluations"
            continue
        hit = first_hit(trial.evaluations.column(record.target.metric), record.target.target())
        told = None if record.reached is None else record.reached.evaluation
        if told != hit:
            there = "no row meets it" if hit is None else f"row {hit + 1} meets it first"
            said = "no hit" if told is None else f"a hit in row {told + 1}"
            yield trial.where, f"the record says {said} of the target, but {there}"
        elif record.reached is not None and hit is not None:
            cost = record.reached.cost
            for name, value in ((STEP, cost.steps), (SECONDS, cost.seconds),
                                ("gradient_evaluations", cost.gradient_evaluations)):  # fmt: skip
                seen = trial.evaluations.column(name)[hit]
                if abs(seen - value) > 1e-6 * max(1.0, abs(value)):
                    yield trial.where, f"the record's hit costs {name} {value:g}, its row {seen:g}"


RULES = (
    log_rule(
        "targets-known",
        "every workload has a target in the file",
        _without_target,
        means="The workload cannot be scored; it is left out.",
        mend="Add it to the targets, or take its logs out.",
    ),
    log_rule(
        "targets-agree",
        "all trials on a workload aimed at the same target",
        _differing,
        means="The runs are not of one benchmark. Scores hold all of them against one target.",
        mend="Run all of them under one version; give the targets of that version.",
    ),
    log_rule(
        "targets-reached",
        "our records and evaluations agree on the hit",
        _wrongly_reached,
        means="The record or the evaluations were changed.",
        mend="Run the campaign's command again in an empty folder.",
    ),
)
