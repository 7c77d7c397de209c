"""What every trial came to: where it first met its target, at what cost, and what it spent.

Both sets of rules start from these, see :mod:`analysis.scoring.algoperf_rules` and
:mod:`analysis.scoring.strict_rules`; they differ in which trials, studies and hits count.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from analysis.logs.files import SCORE, SECONDS, Column
from analysis.logs.layout import TrialKey
from analysis.logs.official_targets import OfficialTargets
from analysis.logs.trial_logs import LoggedTrial, TrialLogs, read_trial_logs
from analysis.scoring.costs import COLUMNS
from metaopt.bench.budget import Currency
from metaopt.bench.targets import Target

BUDGET_KEY = "workload.max_allowed_runtime_sec"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One trial.

    Attributes:
        key: Which.
        where: Path of its folder.
        evaluation: Row of the first hit, from 0; ``None`` for a miss.
        cost: At the first hit, inf for a miss and for a hit whose cost is not a number.
        spent: At the last evaluation, in the same currency; NaN if nothing was logged.
        hit_seconds: Submission time at the first hit, inf for a miss: what budgets are held
            against.
        budget: Of the trial in seconds, before any factor; ``None`` if its logs do not say.
        logged: Its file of evaluations is there, whatever is in it.
    """

    key: TrialKey
    where: str
    evaluation: int | None
    cost: float
    spent: float
    hit_seconds: float
    budget: float | None
    logged: bool


# (submission, workload) -> (framework, study) -> trials in their order
Studies = Mapping[tuple[str, int], tuple[Outcome, ...]]
Cells = Mapping[tuple[str, str], Studies]


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """All trials of the workloads that have a target."""

    logs: TrialLogs
    targets: OfficialTargets
    currency: Currency
    cells: Cells
    notes: tuple[str, ...]

    @property
    def submissions(self) -> list[str]:
        """Names of the submissions, those without a workload that has a target included."""
        return self.logs.submissions


def read_outcomes(
    path: Path,
    targets: OfficialTargets | Callable[[], OfficialTargets],
    *,
    within: str | None = None,
    currency: Currency = "seconds",
    budgets: bool = False,
) -> Outcomes:
    """Read logs and find every trial's first hit.

    Args:
        path: A folder or tar of logs, see :func:`~analysis.logs.trial_logs.read_trial_logs`.
        targets: The workloads' metrics and targets.
        within: A path inside.
        currency: Of the costs.
        budgets: Whether the trials' budgets are read too: one more file a trial.
    """
    targets = targets if isinstance(targets, OfficialTargets) else targets()
    # Under AlgoPerf's rules the cost is the column `score`, which is the submission time.
    cost = SCORE if currency == "seconds" else COLUMNS[currency]
    clocks = {cost, SECONDS}

    def wanted(key: TrialKey, name: str) -> bool:
        return name in clocks or name == targets.column(key.workload)

    documents = ("meta_data",) if budgets else ()
    logs = read_trial_logs(path, within, columns=wanted, documents=documents)
    cells: dict[tuple[str, str], dict[tuple[str, int], list[Outcome]]] = {}
    notes = [f"{oddity.where}: {oddity.what}" for oddity in logs.oddities]
    without = sorted({t.key.workload for t in logs.trials} - targets.metrics.keys())
    if without:
        notes.append(f"no target for {without}, which are left out")
    for trial in logs.trials:
        key = trial.key
        if key.workload not in targets.metrics:
            continue
        outcome = _outcome(trial, targets.target(key.workload), cost, notes)
        studies = cells.setdefault((key.submission, key.workload), {})
        studies.setdefault((key.framework, key.study), []).append(outcome)
    for (submission, workload), studies in cells.items():
        if len(frameworks := sorted({framework for framework, _ in studies})) > 1:
            notes.append(
                f"{submission} on {workload} has logs of {frameworks}: the dearer one counts"
            )
    evaluated = [trial.evaluations for trial in logs.trials if trial.evaluations is not None]
    if evaluated and not any(cost in evaluations.columns for evaluations in evaluated):
        raise ValueError(f"{path}: no evaluation has a column {cost}: logs without such costs.")
    frozen = {
        cell: {study: tuple(trials) for study, trials in sorted(studies.items())}
        for cell, studies in cells.items()
    }
    return Outcomes(logs, targets, currency, frozen, tuple(notes))


def _outcome(trial: LoggedTrial, target: Target, cost: str, notes: list[str]) -> Outcome:
    budget = trial.document("meta_data").get(BUDGET_KEY)
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget > 0:
        budget = None
    evaluations = trial.evaluations
    hit, hit_cost, spent, hit_seconds = None, math.inf, math.nan, math.inf
    if evaluations is None or not evaluations.rows:
        what = "no evaluations" if trial.files else "empty"
        notes.append(f"{trial.where}: {what}, a miss")
    else:
        for name in (target.metric, cost):
            if name not in evaluations.columns:
                notes.append(f"{trial.where}: no column {name}, a miss")
        hit = first_hit(evaluations.column(target.metric), target)
        costs = evaluations.column(cost)
        spent = float(np.fmax.reduce(costs))
        if hit is not None:
            hit_cost = _or_inf(costs[hit])
            hit_seconds = _or_inf(evaluations.column(SECONDS)[hit])
            if math.isinf(hit_cost):
                notes.append(f"{trial.where}: a hit without a number in {cost}, a miss")
    return Outcome(
        trial.key, trial.where, hit, hit_cost, spent, hit_seconds, budget, evaluations is not None
    )


def first_hit(values: Column, target: Target) -> int | None:
    """Return the row where ``target`` is first met; NaN never meets it."""
    met = np.asarray(target.is_met(values))  # type: ignore[arg-type]  # compares an array as well
    return int(np.argmax(met)) if met.any() else None


def _or_inf(value: float) -> float:
    return float(value) if math.isfinite(value) and value >= 0 else math.inf
