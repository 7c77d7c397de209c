"""Is the comparison complete and fair: failures, missing studies, unequal budgets, targets."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable

from analysis.logs.logs import Logs
from metaopt.bench.records import ERRORS, FAILURES, StudyRecord, TrialRecord

_EARLY = {
    "grid_exhausted": "its grid was exhausted",
    "failures": "its trials cost nothing",
}


@dataclasses.dataclass(frozen=True)
class Failures:
    """The failures of a contender on a workload."""

    contender: str
    workload: str
    trials: int  # of all its studies
    statuses: Counter[str]  # of the trials that failed
    steps: int  # of all its trials
    cause: str | None  # of the first error, or else of the first divergence

    @property
    def is_broken(self) -> bool:
        """Whether it never took a step, or every trial ended with an error."""
        return not self.steps or sum(self.statuses[error] for error in ERRORS) == self.trials

    def __str__(self) -> str:
        listed = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self.statuses.items())
        plural = "s" if self.trials > 1 else ""
        what = f"{listed or 'none failed'} of {self.trials} trial{plural}"
        if not self.steps:
            what += ", without a step"
        cause = f": {self.cause}" if self.cause else ""
        return f"{self.contender} on {self.workload}: {what}{cause}"


def find_failures(logs: Logs) -> list[Failures]:
    """Return the failures of each contender on each workload where some trial failed."""
    groups: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for trial in logs.trials:
        groups[trial.record.contender, trial.record.workload].append(trial.record)
    found = []
    for (contender, workload), records in sorted(groups.items()):
        failed = [record for record in records if record.status in FAILURES]
        steps = sum(record.ledger.cost.steps for record in records)
        if failed or not steps:
            failed.sort(key=lambda record: record.status not in ERRORS)
            cause = next((r.cause or _last_line(r.error) for r in failed), None)
            statuses = Counter(record.status for record in failed)
            found.append(Failures(contender, workload, len(records), statuses, steps, cause))
    return found


def _last_line(error: str | None) -> str | None:
    """Return what records without a cause say of their failure."""
    return error.strip().split("\n")[-1] if error and error.strip() else None


def missing_studies(logs: Logs) -> list[str]:
    """Return what a complete comparison would have and this one does not."""
    finished = {(s.contender, s.workload, s.study) for s in logs.studies}
    return [
        f"{contender} on {workload}, study {study}"
        for contender in logs.contenders
        for workload in logs.workloads
        for study in range(1, logs.study_count + 1)
        if (contender, workload, study) not in finished
    ]


def early_ends(logs: Logs) -> list[str]:
    """Name, one sentence per contender and reason, the studies that ended before their budget."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    totals: dict[str, int] = defaultdict(int)
    for study in logs.studies:
        totals[study.contender] += 1
        if study.ended != "budget" and not _spent_all(study):
            groups[study.contender, study.ended].append(_share(study))
    sentences = []
    for (contender, ended), shares in sorted(groups.items()):
        low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
        spent = low if low == high else f"{low} to {high}"
        sentences.append(
            f"{contender}: {_EARLY.get(ended, ended)} in {len(shares)} of {totals[contender]} "
            f"studies, {spent} of the budget spent"
        )
    return sentences


def partial_data(logs: Logs) -> list[str]:
    """Name the workloads that ran on a part of their data set."""
    parts = {
        (trial.record.workload, ", ".join(sorted(trial.record.data.get("files", {}))))
        for trial in logs.trials
        if trial.record.data is not None and trial.record.data.get("whole") is False
    }
    return [f"{workload}: {files}" for workload, files in sorted(parts)]


def fixed_by_hand(logs: Logs) -> list[str]:
    """Name the variants that ran, with what they fix; values that nobody's budget paid for."""
    contenders = set(logs.contenders)
    sentences = []
    for name, variant in sorted((logs.campaign or {}).get("variants", {}).items()):
        if name in contenders:
            values = sorted(variant["hyperparameters"].items())
            listed = ", ".join(f"{key} {value}" for key, value in values)
            sentences.append(f"{name}: {variant['of']} with {listed}")
    return sentences


def only_random(logs: Logs) -> list[str]:
    """Name the tuners whose model chose no point in some studies, which ended before it began.

    The first points are random ones, as many as ``n_startup_trials`` in the tuner's record says.
    """
    startup: dict[str, int] = {}
    sizes: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    for trial in logs.trials:
        record = trial.record
        count = (record.tuner or {}).get("n_startup_trials")
        if isinstance(count, int):
            startup[record.contender] = count
            sizes[record.contender][record.workload, record.study] += 1
    sentences = []
    for contender, studies in sorted(sizes.items()):
        random = [count for count in studies.values() if count <= startup[contender]]
        if random:
            low, high = min(random), max(random)
            trials = (
                f"{low} trial{'s' if low > 1 else ''}" if low == high else f"{low} to {high} trials"
            )
            sentences.append(
                f"{contender}: {len(random)} of {len(studies)} studies, of {trials}; its model "
                f"begins with trial {startup[contender] + 1}"
            )
    return sentences


def equality_of_budgets(logs: Logs) -> str:
    """Say how equal the spent budgets are, where :func:`unequal_budgets` finds nothing.

    This is about the studies that spent their budget. Those of :func:`early_ends` are left out.
    """
    spent = [study for study in logs.studies if study.ended == "budget" or _spent_all(study)]
    if not spent:
        return "No study spent its budget"
    beyond = max((gap for s in spent if (gap := _gap(s)) > s.budget.eval_period), default=0.0)
    if not beyond:
        return "Spent budgets are equal to within one evaluation period"
    return (
        "Spent budgets are equal to within one evaluation period or the dearest step, its "
        f"compilation included, which is {beyond:,.3g} of them at most"
    )


def never_evaluated(logs: Logs) -> list[str]:
    """Name the studies in which no trial came to an evaluation: their budget was too small."""
    seen: dict[tuple[str, str, int], bool] = {}
    for trial in logs.trials:
        record = trial.record
        key = record.contender, record.workload, record.study
        evaluated = record.best is not None or record.status in FAILURES
        seen[key] = seen.get(key, False) or evaluated
    return [
        f"{contender} on {workload}, study {study}"
        for (contender, workload, study), evaluated in sorted(seen.items())
        if not evaluated
    ]


def unequal_budgets(logs: Logs) -> list[str]:
    """Say where budgets, or what was spent of them, differ by more than one evaluation period.

    A study that ended before its budget for a reason of its own is not unequal but early, see
    :func:`early_ends`: it could have spent the same.
    """
    return [f"{where}: {what}" for where, what in find_unequal_budgets(logs.studies)]


def find_unequal_budgets(studies: Iterable[StudyRecord]) -> list[tuple[str, str]]:
    """Return what :func:`unequal_budgets` says, as ``(where, what)``."""
    found: list[tuple[str, str]] = []
    budgets: dict[str, set[tuple[float, str]]] = defaultdict(set)
    for study in studies:
        budget = study.budget
        budgets[study.workload].add((budget.study, budget.currency))
        if _spent_all(study) or (study.ended != "budget" and _share(study) < 1):
            continue
        spent = study.spent.amount(budget.currency)
        where = f"{study.contender} on {study.workload}, study {study.study}"
        found.append((where, f"spent {spent:,.6g} of {budget.study:,.6g}"))
    for workload, amounts in sorted(budgets.items()):
        if len(amounts) > 1:
            listed = ", ".join(f"{amount:,.6g} {unit}" for amount, unit in sorted(amounts))
            found.append((workload, f"budgets of a study differ: {listed}"))
    return found


def differing_targets(logs: Logs) -> list[str]:
    """Say on which workloads not all trials aimed at the same target."""
    targets: dict[str, set[tuple[str, float, str]]] = defaultdict(set)
    for trial in logs.trials:
        target = trial.record.target
        targets[trial.record.workload].add((target.metric, target.value, target.better))
    return [
        f"{workload}: targets differ: "
        + ", ".join(f"{metric} {value:g}" for metric, value, _ in sorted(found))
        for workload, found in sorted(targets.items())
        if len(found) > 1
    ]


def _share(study: StudyRecord) -> float:
    return study.spent.amount(study.budget.currency) / study.budget.study


def _gap(study: StudyRecord) -> float:
    return abs(study.spent.amount(study.budget.currency) - study.budget.study)


def _spent_all(study: StudyRecord) -> bool:
    return _gap(study) <= study.tolerance
