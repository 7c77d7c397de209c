"""Rules on budgets: of time, of studies and trials, and our ledgers."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from analysis.checks.fairness import find_unequal_budgets
from analysis.checks.subject import LogSubject, log_rule, ruleset_of
from analysis.logs.files import SECONDS
from analysis.logs.trial_logs import LoggedTrial
from analysis.scoring.outcomes import BUDGET_KEY, first_hit
from metaopt.bench.budget import CURRENCIES
from metaopt.bench.records import Cost, Stretch, StudyRecord

_LARGEST_SELF_FACTOR = 3.0  # of v0.5; later versions have 1.5
_ROUNDING = 1e-6


def _allowed_seconds(subject: LogSubject, trial: LoggedTrial) -> float | None:
    """Return a trial's budget of time; ``None`` if its logs do not say, or it is in other units."""
    budget = trial.document("meta_data").get(BUDGET_KEY)
    if subject.is_ours or isinstance(budget, bool):
        return None
    if not isinstance(budget, int | float) or not budget > 0:
        return None
    if subject.demands is not None:
        return budget * subject.demands.budget_factor
    return budget * (1.0 if ruleset_of(trial) == "external" else _LARGEST_SELF_FACTOR)


def _late_hits(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        target, budget = subject.target(trial), _allowed_seconds(subject, trial)
        if target is None or budget is None or trial.evaluations is None:
            continue
        hit = first_hit(trial.evaluations.column(target.metric), target)
        if hit is not None and (seconds := trial.evaluations.column(SECONDS)[hit]) > budget:
            yield (
                trial.where,
                f"meets its target after {seconds:,.0f} s, its budget is {budget:,.0f}",
            )


def _late_evaluations(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        budget = _allowed_seconds(subject, trial)
        if budget is None or trial.evaluations is None or not trial.evaluations.rows:
            continue
        last = float(np.fmax.reduce(trial.evaluations.column(SECONDS)))
        if last > budget:
            yield trial.where, f"last evaluated after {last:,.0f} s, its budget is {budget:,.0f}"


def _unequal_time(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for workload, trials in subject.grouped(lambda key: key.workload).items():
        found = Counter(trial.document("meta_data").get(BUDGET_KEY) for trial in trials)
        found.pop(None, None)
        if len(found) > 1:
            listed = ", ".join(f"{budget} s ({count} trials)" for budget, count in
                               sorted(found.items(), key=lambda entry: -entry[1]))  # fmt: skip
            yield workload, f"{BUDGET_KEY} differs: {listed}"


def _wrong_study_counts(subject: LogSubject) -> Iterator[tuple[str, str]]:
    groups = subject.grouped(lambda key: (key.submission, key.workload, key.framework))
    counts = {cell: {trial.key.study for trial in trials} for cell, trials in groups.items()}
    planned = (subject.logs.campaign or {}).get("studies")
    due = max(map(len, counts.values()))
    if subject.demands is not None:
        due = subject.demands.studies
    elif isinstance(planned, int):
        due = planned
    for (submission, workload, _), studies in counts.items():
        if len(studies) != due:
            listed = ", ".join(map(str, sorted(studies)))
            yield f"{submission} on {workload}", f"{len(studies)} of {due} studies ({listed})"


def _wrong_trial_counts(subject: LogSubject) -> Iterator[tuple[str, str]]:
    most: dict[str, int] = {}
    groups = subject.grouped(lambda key: key[:4])
    for (submission, *_), trials in groups.items():
        most[submission] = max(most.get(submission, 0), len(trials))
    for (submission, workload, _, study), trials in groups.items():
        numbers = sorted(trial.key.trial for trial in trials)
        if subject.demands is not None:
            due = subject.demands.trials
        else:  # ours run as many as the budget buys
            due = len(trials) if subject.is_ours else most[submission]
        if numbers != list(range(1, due + 1)):
            where = f"{submission} on {workload}, study {study}"
            yield where, f"trials {', '.join(map(str, numbers))} are there, not 1 to {due}"


def _unequal_spending(subject: LogSubject) -> Iterator[tuple[str, str]]:
    studies = subject.studies.values()
    yield from find_unequal_budgets(study for study in studies if isinstance(study, StudyRecord))


def _wrong_ledgers(subject: LogSubject) -> Iterator[tuple[str, str]]:
    cells: dict[tuple[str, str, str, int], list[tuple[Stretch, str]]] = {}
    unknown = {trial.key[:4] for trial in subject.trials if subject.record(trial) is None}
    for trial, record in subject.records:
        if trial.key[:4] not in unknown:
            where = f"{trial.where}/run.json"
            cells.setdefault(trial.key[:4], []).extend((part, where) for part in record.stretches)
    for cell, stretches in cells.items():
        total = deciding = Cost()
        # In the order in which they ran: between two stretches of a trial others had theirs.
        by_time = sorted(stretches, key=lambda s: (*_amounts(s[0][0]), *_amounts(s[0][1])))
        for part, where in by_time:
            deciding += part.deciding
            total += part.deciding
            if _apart(total, part.spent_before):
                yield where, "what its study spent before is not the sum of it"
            total += part.cost
        study = subject.studies.get(cell)
        if not isinstance(study, StudyRecord):
            continue
        if study.schema_version >= 2:  # with what the tuner did after the last trial
            total += Cost(seconds=study.tuner_seconds) - deciding
        if _apart(total, study.spent):
            where = f"{cell[0]} on {cell[1]}, study {cell[3]}"
            yield where, "what the study spent is not the sum of its trials and its tuner"


def _amounts(cost: Cost) -> list[float]:
    return [cost.amount(unit) for unit in CURRENCIES]


def _apart(one: Cost, other: Cost) -> bool:
    pairs = [(one.amount(unit), other.amount(unit)) for unit in CURRENCIES]
    return any(abs(a - b) > _ROUNDING * max(1.0, abs(a), abs(b)) for a, b in pairs)


RULES = (
    log_rule(
        "budgets-hit",
        "targets are met within the budget of time",
        _late_hits,
        means="AlgoPerf's budget is a limit: a hit beyond it is a miss under the strict rules. The "
        "official scorer does not look.",
        mend="Nothing: it is a miss.",
    ),
    log_rule(
        "budgets-time",
        "no evaluation is beyond the budget of time",
        _late_evaluations,
        severity="note",
        means="The runner looks at the budget when it evaluates, so a run may overshoot.",
        mend="Nothing, if the target was not met there.",
    ),
    log_rule(
        "budgets-equal",
        "all trials on a workload have the same budget of time",
        _unequal_time,
        means="Some of the submissions had more time than others.",
        mend="Run all of them under one version of the benchmark.",
    ),
    log_rule(
        "budgets-studies",
        "every submission has all studies on its workloads",
        _wrong_study_counts,
        means="A missing study is a miss under the strict rules; the official scorer takes the "
        "median of those that are there.",
        mend="Run the missing studies; say with --studies how many there should be.",
    ),
    log_rule(
        "budgets-trials",
        "every study has its trials, numbered from 1",
        _wrong_trial_counts,
        means="Fewer trials are less tuning than the others had, more are more.",
        mend="Run the missing trials; say with --trials how many there should be.",
    ),
    log_rule(
        "budgets-spent",
        "our studies on a workload spent the same budget",
        _unequal_spending,
        means="The contenders are not compared at equal budgets.",
        mend="Run the campaign's command again, to its end and under one budget.",
    ),
    log_rule(
        "budgets-ledger",
        "our ledgers add up",
        _wrong_ledgers,
        means="What a study spent is not what its trials and its tuner cost: a record was changed "
        "or is missing.",
        mend="Run the campaign's command again in an empty folder.",
    ),
)
