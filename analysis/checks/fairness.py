"""Warnings about a comparison: failures, missing runs, unequal budgets, targets, audits.

Facts that a rule finds are taken from the rule, see
:func:`analysis.checks.validation.problem_sentences`.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable

from analysis.checks.budgets import asked_trials, broke_off, spent_share
from analysis.checks.validation import problem_sentences
from analysis.logs.audits import audit_findings, unaudited_pairs
from analysis.logs.logs import Logs, Trial
from analysis.scoring.scores import ScoringRules, tied_studies
from analysis.wording import counted
from metaopt.bench.records import ERRORS, FAILURES

_EARLY = {
    "grid_exhausted": "its grid was exhausted",
    "failures": "its trials cost nothing",
    "target": "its one trial met the target",
    "completed": "its one trial was done",
    "trial_failed": "its one trial failed",
}


@dataclasses.dataclass(frozen=True)
class ScoreWarning:
    """A warning above a table of scores.

    Attributes:
        title: The kind of problem, as a phrase.
        entries: The problems, one sentence each, without a full stop.
        serious: Whether the problem can decide the order of the table.
    """

    title: str
    entries: tuple[str, ...]
    serious: bool


def warnings_of(logs: Logs, rules: ScoringRules = "strict") -> list[ScoreWarning]:
    """Return the warnings for the tables and reports of logs, the serious ones first.

    Args:
        logs: The logs, ours or AlgoPerf's.
        rules: The rules of the scores.
    """
    failures = find_failures(logs)
    broken = [one for one in failures if one.is_broken]
    audits = list(logs.audits)
    pairs = logs.by_pair.keys()
    found: list[tuple[str, Iterable[str], bool]] = [
        ("Never took a step", (str(one) for one in broken if not one.steps), True),
        ("Every trial failed", (str(one) for one in broken if one.steps), True),
        ("Audit failed", audit_findings(audits, failed=True), True),
        ("Missing studies", missing_studies(logs), True),
        ("Missing trials", () if logs.is_ours else problem_sentences("budgets-trials", logs), True),
        ("Workloads without logs", unlogged_workloads(logs), True),
        ("Trials that broke off", broken_off_counts(logs), True),
        ("Never evaluated, the budget is too small", never_evaluated(logs), True),
        ("Not comparable", problem_sentences("targets-agree", logs), True),
        ("Spent budgets are not equal", problem_sentences("budgets-spent", logs), True),
        (
            "Failed trials, counted as missed",
            (str(one) for one in failures if not one.is_broken),
            False,
        ),
        ("Fewer trials than the ruleset has", fewer_trials(logs), False),
        ("Trials and studies that do not count", ignored_trials(logs), False),
        ("Ties in the evaluation index", tied_studies(logs) if rules == "algoperf" else (), False),
        ("Unknown budgets", unknown_budgets(logs), False),
        ("Unknown version", unknown_version(logs), False),
        ("Not audited", unaudited_pairs(pairs, audits), False),
        ("Noted by audits", audit_findings(audits, failed=False), False),
        ("Ended before the budget was spent", early_ends(logs), False),
        (
            "Effectively random search: the study ended during the tuner's random start-up trials",
            random_only_studies(logs),
            False,
        ),
        ("On a part of the data set", problem_sentences("environment-data", logs), False),
    ]
    warnings = [ScoreWarning(title, tuple(entries), serious) for title, entries, serious in found]
    return [warning for warning in warnings if warning.entries]


@dataclasses.dataclass(frozen=True)
class Failures:
    """The failures of a contender on a workload.

    Attributes:
        contender: The name of the contender.
        workload: The name of the workload.
        trials: The number of trials in all studies.
        statuses: The number of failed trials by status.
        steps: The sum of the steps of all trials.
        cause: The cause of the first error, or else of the first divergence.
        is_broken: Whether no trial took a step, or every trial ended with an error. In AlgoPerf's
            logs: whether no trial of the contender has an evaluation on any workload.
    """

    contender: str
    workload: str
    trials: int
    statuses: Counter[str]
    steps: float
    cause: str | None
    is_broken: bool

    def __str__(self) -> str:
        counts = [f"{count} {name.replace('_', ' ')}" for name, count in self.statuses.items()]
        if counts:  # "3 of 5 trials crashed, 1 diverged"
            number, _, status = counts[0].partition(" ")
            counts[0] = f"{number} of {counted(self.trials, 'trial')} {status}"
        what = ", ".join(counts) or f"none of {counted(self.trials, 'trial')} failed"
        if not self.steps:
            what += ", without a step"
        cause = f": {self.cause}" if self.cause else ""
        return f"{self.contender} on {self.workload}: {what}{cause}"


def find_failures(logs: Logs) -> list[Failures]:
    """Return the failures of each contender on each workload where some trial failed."""
    evaluated = {trial.record.contender for trial in logs.trials if trial.rows.rows}
    found = []
    for (contender, workload), trials in sorted(logs.by_pair.items()):
        records = [trial.record for trial in trials]
        failed = [record for record in records if record.status in FAILURES]
        steps = sum(map(_steps, trials))
        if failed or not steps:
            failed.sort(key=lambda record: record.status not in ERRORS)
            cause = next((record.cause for record in failed), None)
            statuses = Counter(record.status for record in failed)
            all_errors = sum(statuses[error] for error in ERRORS) == len(records)
            is_broken = not steps or all_errors if logs.is_ours else contender not in evaluated
            found.append(
                Failures(contender, workload, len(records), statuses, steps, cause, is_broken)
            )
    return found


def _steps(trial: Trial) -> float:
    steps = trial.record.ledger.cost.steps
    return 0 if math.isnan(steps) else steps  # NaN: AlgoPerf's trial has no evaluations


def missing_studies(logs: Logs) -> list[str]:
    """Return the studies that are missing from a complete comparison."""
    if logs.is_ours:
        finished = {(s.contender, s.workload, s.study) for s in logs.studies}
        return [
            f"{contender} on {workload}, study {study}"
            for contender in logs.contenders
            for workload in logs.workloads
            for study in range(1, logs.study_count + 1)
            if (contender, workload, study) not in finished
        ]
    due = logs.study_count
    absent = [
        f"{contender} on {workload}: none of {due} studies"
        for contender in logs.contenders
        for workload in logs.workloads
        if workload in _base(logs) and not logs.of(contender, workload)
    ]
    few = [
        f"{name} on {workload}: {len(studies)} of {due} studies"
        for name, workload, studies in _studies(logs)
        if len(studies) < due
    ]
    return [*absent, *few]


def unlogged_workloads(logs: Logs) -> list[str]:
    """Return the base workloads of the targets' file that have no logs."""
    return [f"{name}, which gives no score" for name in _base(logs) if name not in logs.workloads]


def broken_off_counts(logs: Logs) -> list[str]:
    """Return the number of trials that broke off, by contender and workload."""
    return _counted(logs, broke_off, "broke off")


def ignored_trials(logs: Logs) -> list[str]:
    """Return the trials and studies beyond the ruleset's numbers, which do not count."""
    if logs.is_ours:
        return []
    due = logs.study_count
    studies = [
        f"{name} on {workload}: the last {len(studies) - due} of {len(studies)} studies"
        for name, workload, studies in _studies(logs)
        if len(studies) > due
    ]
    trials = _counted(logs, lambda trial: not trial.record.counts, "are beyond the ruleset's")
    return [*studies, *trials]


def fewer_trials(logs: Logs) -> list[str]:
    """Return the submissions whose studies all have fewer trials than the ruleset allows.

    This is for logs without a targets' file; with one, the rule budgets-trials finds them.
    """
    if logs.is_ours or asked_trials(logs):
        return []
    most: dict[str, int] = {}
    due: dict[str, int] = {}
    for trial in logs.trials:
        name, record = trial.record.contender, trial.record
        ruleset = "external" if record.ruleset == "external" else "self"
        due[name] = logs.competition.limits(ruleset).trials
        most[name] = max(most.get(name, 0), record.trial)
    return [f"{name}: {count} of {due[name]}" for name, count in most.items() if count < due[name]]


def unknown_budgets(logs: Logs) -> list[str]:
    """Return the number of trials without a budget in their logs, by contender and workload."""
    return _counted(logs, lambda trial: math.isinf(trial.record.budget.trial), "have no budget")


def unknown_version(logs: Logs) -> list[str]:
    """Return what was assumed of a version's budgets where nothing says which version it is."""
    competition = logs.competition
    version = competition.targets.version if competition.targets else ""
    if logs.is_ours or version or competition.budget_factor is not None:
        return []
    if all(trial.record.ruleset == "external" for trial in logs.trials):
        return []
    factor = competition.limits("self").budget_factor
    return [
        f"self-tuning runs may take {factor:g} times the external time, as in v0.6 of AlgoPerf; in "
        "v0.5 it was 3 times. Add --targets of the version, or --budget-factor"
    ]


def _counted(logs: Logs, is_one: Callable[[Trial], bool], what: str) -> list[str]:
    found = []
    for (contender, workload), trials in sorted(logs.by_pair.items()):
        if count := sum(map(is_one, trials)):
            number = f"{count} of {counted(len(trials), 'trial')}"
            found.append(f"{contender} on {workload}: {number} {what}")
    return found


def _base(logs: Logs) -> tuple[str, ...]:
    targets = logs.competition.targets
    return () if logs.is_ours or targets is None else targets.base


def _studies(logs: Logs) -> Iterable[tuple[str, str, set[int]]]:
    """Yield submission, workload and studies of AlgoPerf's logs, for each framework."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for trial in logs.trials:
        found.setdefault(trial.key[:3], set()).add(trial.key.study)
    for (submission, workload, _), studies in sorted(found.items()):
        yield submission, workload, studies


def early_ends(logs: Logs) -> list[str]:
    """Return the studies that ended before their budget, by contender and reason."""
    groups: dict[tuple[str, str], list[float]] = {}
    totals = Counter(study.contender for study in logs.studies)
    for study in logs.studies:
        if study.ended != "budget" and not study.spent_all:
            groups.setdefault((study.contender, study.ended), []).append(spent_share(study))
    return [
        f"{contender}: {_EARLY.get(ended, ended)} in {len(shares)} of {totals[contender]} "
        f"studies, {_range(f'{min(shares):.0%}', f'{max(shares):.0%}')} of the budget spent"
        for (contender, ended), shares in sorted(groups.items())
    ]


def fixed_hyperparameters(logs: Logs) -> list[str]:
    """Return the variants that ran, with the hyperparameters that they fix by hand."""
    contenders = set(logs.contenders)
    found = []
    for name, variant in sorted((logs.campaign or {}).get("variants", {}).items()):
        if name in contenders:
            values = sorted(variant["hyperparameters"].items())
            listed = ", ".join(f"{key} {value}" for key, value in values)
            found.append(f"{name}: {variant['of']} with {listed}")
    return found


def random_only_studies(logs: Logs) -> list[str]:
    """Return the tuners with studies that ended during the random start-up trials.

    The tuner's record has their number as ``n_startup_trials``.
    """
    startup: dict[str, int] = {}
    sizes: dict[str, Counter[tuple[str, int]]] = {}
    for trial in logs.trials if logs.is_ours else ():
        record = trial.record
        count = (record.tuner or {}).get("n_startup_trials")
        if isinstance(count, int):
            startup[record.contender] = count
            sizes.setdefault(record.contender, Counter())[record.workload, record.study] += 1
    found = []
    for contender, studies in sorted(sizes.items()):
        random = [count for count in studies.values() if count <= startup[contender]]
        if random:
            trials = _range(str(min(random)), str(max(random)))
            found.append(
                f"{contender}: {len(random)} of {len(studies)} studies, of {trials} "
                f"trial{'' if max(random) == 1 else 's'}; its model begins with trial "
                f"{startup[contender] + 1}"
            )
    return found


def equality_of_budgets(logs: Logs) -> str:
    """Return a phrase on the equality of the spent budgets.

    Only studies that spent their budget count; those of :func:`early_ends` are left out.
    """
    spent = [study for study in logs.studies if study.ended == "budget" or study.spent_all]
    if not spent:
        return "No study spent its budget"
    if unequal := problem_sentences("budgets-spent", logs):
        return f"Spent budgets are not equal: {counted(len(unequal), 'finding')}"
    gaps = [s.budget_gap for s in spent if s.budget_gap > s.budget.eval_period]
    if not gaps:
        return "Spent budgets are equal to within one evaluation period"
    return (
        "Spent budgets are equal to within one evaluation period or the most expensive step with "
        f"its compilation, which is {max(gaps):,.3g} of them at most"
    )


def never_evaluated(logs: Logs) -> list[str]:
    """Return our studies in which no trial reached an evaluation."""
    seen: dict[tuple[str, str, int], bool] = {}
    for trial in logs.trials if logs.is_ours else ():
        record = trial.record
        key = record.contender, record.workload, record.study
        evaluated = record.best is not None or record.status in FAILURES
        seen[key] = seen.get(key, False) or evaluated
    return [
        f"{contender} on {workload}, study {study}"
        for (contender, workload, study), evaluated in sorted(seen.items())
        if not evaluated
    ]


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
