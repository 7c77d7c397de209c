"""Rules on targets: known, equal for all trials, and reached as the records claim."""

import dataclasses
from collections.abc import Iterator

from analysis.checks.rules import rule
from analysis.logs.logs import Logs
from analysis.logs.official_records import logged_target
from analysis.logs.trial_files import SECONDS, STEP, Evaluations, first_hit
from analysis.scoring.costs import COST_COLUMNS
from analysis.wording import counted
from metaopt.bench.measure.targets import Target, load_targets
from metaopt.bench.records import TrialRecord


@rule(
    "targets-known",
    "every workload has a target",
    means="The workload cannot be scored; it is left out.",
    fix="Add it to the file of --targets, or remove its logs.",
)
def without_target(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find workloads of our logs without a target in the file; the reader notes AlgoPerf's."""
    targets = logs.competition.targets
    if logs.is_ours and targets is not None:
        for workload in sorted({trial.key.workload for trial in logs.all_trials}):
            if workload not in targets.metrics:
                yield workload, f"no target; there are {sorted(targets.metrics)}"


@rule(
    "targets-agree",
    "all trials on a workload have the same target",
    means="The runs are not of one benchmark. Scores compare all of them with one target.",
    fix="Run all of them under one version; give the targets of that version.",
)
def differing_targets(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find workloads with different targets in their trials or in the targets' file."""
    official = logs.competition.targets
    for workload, trials in logs.grouped(lambda key: key.workload).items():
        found: dict[Target, int] = {}
        for trial in trials:
            if logs.is_ours:
                told = trial.record.target if trial.record else None
            else:
                told = logged_target(trial.document("meta_data"))
            if told is not None:
                found[told] = found.get(told, 0) + 1
        if official is not None and workload in official.metrics:
            stated = official.target(workload)  # in a file without versions
            if not any(dataclasses.replace(t, version=stated.version) == stated for t in found):
                found[stated] = 0
        if len(found) > 1:
            versions = len({target.version for target in found}) > 1
            listed = ", ".join(
                f"{target.metric} {target.value:g}{f' of version {target.version}' * versions} "
                f"({counted(count, 'trial') if count else 'file'})"
                for target, count in sorted(found.items(), key=lambda entry: -entry[1])
            )
            yield workload, f"targets differ: {listed}"


@rule(
    "targets-frozen",
    "our targets are those that ship with the project",
    severity="note",
    strict="error",
    means="The costs are to a target of the campaign's own.",
    fix="Nothing, unless the runs are for the leaderboard: then remove the campaign's targets.",
)
def changed_targets(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find workloads of our logs whose target is not the frozen one."""
    frozen = load_targets()
    trials = logs.trials if logs.is_ours else ()
    found = {(trial.record.workload, trial.record.target) for trial in trials}
    for workload, target in sorted(found, key=str):
        now = frozen[workload].validation if workload in frozen else None
        if target != now:
            version = f" of version {now.version}" if now else ""
            said = f"its target, {target.metric} {target.value:g}, is not the frozen one{version}"
            yield workload, said


@rule(
    "targets-reached",
    "our records and evaluations agree on the hit",
    means="The record or the evaluations were changed.",
    fix="Run the campaign's command again in an empty folder.",
)
def wrong_hits(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find records and evaluations that disagree on the hit."""
    for trial in logs.trials if logs.is_ours else ():
        record = trial.record
        if trial.evaluations is None:
            if record.reached is not None:
                yield trial.where, "the record has a hit, but there are no evaluations"
            continue
        hit = first_hit(trial.evaluations.column(record.target.metric), record.target)
        told = None if record.reached is None else record.reached.evaluation
        if told is None and hit is not None and _is_beyond(record, trial.evaluations, hit):
            continue  # a hit beyond the budget is none
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


def _is_beyond(record: TrialRecord, rows: Evaluations, row: int) -> bool:
    """Return whether a row of the evaluations cost more than the trial was allowed to spend."""
    currency, last = record.budget.currency, record.segments[-1]
    left = record.budget.study - (last.spent_before - last.start).amount(currency)
    allowance = min(record.budget.trial, left)
    return rows.column(COST_COLUMNS[currency])[row] > allowance * (1 + 1e-12)
