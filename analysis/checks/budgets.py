"""Rules on budgets of time, on numbers of studies and trials, and on our ledgers."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from analysis.checks.rules import rule
from analysis.logs.logs import Logs, Trial
from analysis.logs.official_records import BUDGET_KEY, WHOLE
from analysis.wording import counted
from metaopt.bench.measure.budget import CURRENCIES
from metaopt.bench.records import Cost, StudyRecord, algoperf_name

_ROUNDING = 1e-6


@rule(
    "budgets-hit",
    "targets are met within the budget of time",
    means="AlgoPerf's budget is a limit: a hit beyond it counts as missed under the strict rules. "
    "The official scorer does not check.",
    fix="Nothing: the target counts as missed.",
)
def late_hits(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find hits of AlgoPerf's trials beyond the budget."""
    for where, record in _official(logs):
        if record.reached is not None and record.reached.cost.seconds > record.budget.trial:
            seconds, budget = record.reached.cost.seconds, record.budget.trial
            yield where, f"meets its target after {seconds:,.0f} s, its budget is {budget:,.0f}"


@rule(
    "budgets-time",
    "no evaluation is beyond the budget of time",
    severity="note",
    means="The runner checks the budget when it evaluates, so a run may overshoot.",
    fix="Nothing, if the target was not met there.",
)
def late_evaluations(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find evaluations of AlgoPerf's trials beyond the budget."""
    for where, record in _official(logs):
        last, budget = record.ledger.cost.seconds, record.budget.trial
        if last > budget:
            yield where, f"last evaluated after {last:,.0f} s, its budget is {budget:,.0f}"


@rule(
    "trials-broke-off",
    "every trial ran to its target or its end",
    means=f"The trial neither met its target nor used {WHOLE:.0%} of its budget or its step hint: "
    "it was killed, or crashed later. Its target counts as missed.",
    fix="Run the trial again, or accept the miss.",
)
def trials_that_broke_off(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find AlgoPerf's trials that ended early."""
    for trial in logs.trials:
        if broke_off(trial):
            yield trial.where, f"ended {_share(trial.record)}, without its target"


def broke_off(trial: Trial) -> bool:
    """Return whether a trial broke off; false if its metric is missing."""
    record = trial.record
    return record.status == "broke_off" and record.target.metric in trial.rows.header


def _share(record: Any) -> str:
    cost, parts = record.ledger.cost, []
    if record.budget.trial < float("inf"):
        parts.append(f"after {cost.seconds / record.budget.trial:.0%} of its budget")
    if record.step_hint:
        parts.append(f"after {cost.steps / record.step_hint:.0%} of its step hint")
    return " and ".join(parts)


@rule(
    "budgets-equal",
    "all trials on a workload have the same budget of time",
    means="Some submissions had more time than others.",
    fix="Run all of them under one version of the benchmark.",
)
def unequal_time(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find workloads with different budgets in their meta data."""
    for workload, trials in logs.grouped(lambda key: key.workload).items():
        found = Counter(trial.document("meta_data").get(BUDGET_KEY) for trial in trials)
        found.pop(None, None)
        if len(found) > 1:
            listed = ", ".join(f"{budget} s ({counted(count, 'trial')})" for budget, count in
                               sorted(found.items(), key=lambda entry: -entry[1]))  # fmt: skip
            yield workload, f"{BUDGET_KEY} differs: {listed}"


@rule(
    "budgets-studies",
    "every submission has all studies on its workloads",
    means="A missing study counts as missed under the strict rules; the official scorer takes the "
    "median of the others.",
    fix="Run the missing studies; --studies sets how many there should be.",
)
def wrong_study_counts(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find too few or too many studies of a submission on a workload."""
    groups = logs.grouped(lambda key: (key.submission, key.workload, key.framework))
    counts = {cell: {trial.key.study for trial in trials} for cell, trials in groups.items()}
    if logs.campaign is not None:  # contenders and workloads without any trial break files-campaign
        names = {name for name, _, _ in counts}
        ran = {workload for _, workload, _ in counts}
        for contender in names & set(logs.campaign["contenders"]):
            for workload in ran & set(map(algoperf_name, logs.campaign["workloads"])):
                counts.setdefault((contender, workload, "jax"), set())
    planned = None if logs.campaign is None else logs.campaign["studies"]
    due = planned or logs.study_count
    for (submission, workload, _), studies in sorted(counts.items()):
        if due and len(studies) != due:
            listed = f" ({', '.join(map(str, sorted(studies)))})" if studies else ""
            yield f"{submission} on {workload}", f"{len(studies)} of {due} studies{listed}"


@rule(
    "budgets-trials",
    "every study has its trials, numbered from 1",
    means="Fewer trials are less tuning than the others had, more are more.",
    fix="Run the missing trials; --trials sets how many there should be.",
)
def wrong_trial_counts(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find studies with too few or too many trials, or with gaps."""
    most: dict[str, int] = {}
    asked, groups = asked_trials(logs), logs.grouped(lambda key: key[:4])
    for (submission, *_), trials in groups.items():
        most[submission] = max(most.get(submission, 0), len(trials))
    for (submission, workload, _, study), trials in groups.items():
        numbers = sorted(trial.key.trial for trial in trials)
        # Our studies have as many trials as their budget allows.
        due = asked.get(submission) or (len(trials) if logs.is_ours else most[submission])
        if numbers != list(range(1, due + 1)):
            where = f"{submission} on {workload}, study {study}"
            yield where, f"trials found: {', '.join(map(str, numbers))}; due: 1 to {due}"


@rule(
    "budgets-spent",
    "our studies on a workload spent the same budget",
    means="The contenders are not compared at equal budgets.",
    fix="Run the campaign's command again, to its end and under one budget.",
)
def unequal_spending(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find budgets, or spent amounts, that differ by more than one evaluation period.

    A study that ended early for a reason other than its budget is not counted here, because it
    could have spent the same.
    """
    budgets: dict[str, set[tuple[float, str]]] = {}
    for study in logs.studies:
        budget = study.budget
        budgets.setdefault(study.workload, set()).add((budget.study, budget.currency))
        if study.spent_all or (study.ended != "budget" and spent_share(study) < 1):
            continue
        spent = study.spent.amount(budget.currency)
        where = f"{study.contender} on {study.workload}, study {study.study}"
        yield where, f"spent {spent:,.6g} of {budget.study:,.6g}"
    for workload, amounts in sorted(budgets.items()):
        if len(amounts) > 1:
            listed = ", ".join(f"{amount:,.6g} {unit}" for amount, unit in sorted(amounts))
            yield workload, f"budgets of a study differ: {listed}"


@rule(
    "budgets-ledger",
    "our ledgers add up",
    means="The amount that a study spent is not the sum of its trials and its tuner: a record was "
    "changed or is missing.",
    fix="Run the campaign's command again in an empty folder.",
)
def wrong_ledgers(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find our studies whose total is not the sum of their parts."""
    if not logs.is_ours:
        return
    by_cell = {(s.contender, algoperf_name(s.workload), s.study): s for s in logs.studies}
    for (name, workload, _, number), trials in logs.grouped(lambda key: key[:4]).items():
        if any(trial.record is None for trial in trials):
            continue
        segments = [(part, trial.where) for trial in trials for part in trial.record.segments]
        total, deciding = Cost(), 0.0
        # In the order in which they ran: between two segments of a trial, other trials had theirs.
        for segment, where in sorted(
            segments, key=lambda pair: (*_amounts(pair[0].spent_before), *_amounts(pair[0].cost))
        ):
            deciding += segment.tuner_seconds
            total += Cost(seconds=segment.tuner_seconds)
            if _apart(total, segment.spent_before):
                yield f"{where}/run.json", "the amount that its study spent before is not the sum"
            total += segment.cost
        study = by_cell.get((name, workload, number))
        if study is None:
            continue
        total += Cost(seconds=study.tuner_seconds - deciding)  # after the last trial
        if _apart(total, study.spent):
            where = f"{name} on {workload}, study {number}"
            yield where, "the amount that the study spent is not the sum of its trials and tuner"


def asked_trials(logs: Logs) -> dict[str, int]:
    """Return each submission's required number of trials per study, if options or a file set it.

    Otherwise the result is empty, and the rules compare the studies with each other.
    """
    asked = logs.competition
    if logs.is_ours or not (asked.trials or asked.ruleset or logs.due_studies):
        return {}
    limits = {
        "external": asked.limits("external").trials,
        "self-tuning": asked.limits("self").trials,
    }
    return {trial.key.submission: limits[trial.record.ruleset] for trial in logs.trials}


def spent_share(study: StudyRecord) -> float:
    """Return the spent share of the budget."""
    return study.spent.amount(study.budget.currency) / study.budget.study


def _official(logs: Logs) -> Iterator[tuple[str, Any]]:
    for trial in () if logs.is_ours else logs.trials:
        yield trial.where, trial.record


def _amounts(cost: Cost) -> list[float]:
    return [cost.amount(unit) for unit in CURRENCIES]


def _apart(one: Cost, other: Cost) -> bool:
    pairs = [(one.amount(unit), other.amount(unit)) for unit in CURRENCIES]
    return any(abs(a - b) > _ROUNDING * max(1.0, abs(a), abs(b)) for a, b in pairs)
