"""Records of AlgoPerf's trials, from their evaluation rows, flags and meta data.

AlgoPerf's runner writes no record of a trial. :class:`OfficialRecord` has the attributes of our
:class:`~metaopt.bench.records.TrialRecord` that its logs can fill, so that the rest of the analysis
takes both. Gradient evaluations are not known and are NaN.

The logs hold the time of a trial's last evaluation, not of its end. That time is the cost of the
trial. A trial without logs is charged its whole budget.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from analysis.logs.competition import Limits, OfficialTargets, Ruleset
from analysis.logs.logs import Trial
from analysis.logs.oddities import Oddities
from analysis.logs.trial_files import SCORE, SECONDS, STEP, first_hit
from metaopt.bench.measure.budget import Currency
from metaopt.bench.measure.targets import Target

BUDGET_KEY = "workload.max_allowed_runtime_sec"
WHOLE = 0.9  # share of the budget or step hint; a trial that ended below it broke off

OfficialStatus = Literal["target", "trial_budget", "broke_off", "crashed"]


@dataclasses.dataclass(frozen=True)
class Amounts:
    """A cost in the currencies of AlgoPerf's logs."""

    steps: float = 0.0
    seconds: float = 0.0
    gradient_evaluations: float = math.nan

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(self.steps + other.steps, self.seconds + other.seconds)

    def amount(self, currency: Currency) -> float:
        """Return the cost in one currency."""
        return getattr(self, currency)


@dataclasses.dataclass(frozen=True)
class OfficialReached:
    """Where a trial first met its validation target."""

    evaluation: int  # row of eval_measurements.csv, from 0
    cost: Amounts  # of the trial, up to that row

    @property
    def episode_cost(self) -> Amounts:
        """The same cost, because AlgoPerf has no episodes."""
        return self.cost


@dataclasses.dataclass(frozen=True)
class OfficialBudget:
    """A trial's budget of time; inf if its logs do not name it."""

    trial: float
    study: float
    eval_period: float | None
    currency: Currency = "seconds"


@dataclasses.dataclass(frozen=True)
class OfficialLedger:
    """The cost of a trial."""

    cost: Amounts
    declared: bool = False


@dataclasses.dataclass(frozen=True)
class OfficialRecord:
    """One trial of AlgoPerf's runner; the attributes have the meaning of a TrialRecord's."""

    contender: str
    workload: str
    study: int  # the number of the folder, from 0 or 1
    trial: int
    ruleset: Literal["external", "self-tuning"]
    counts: bool  # whether its number is within the ruleset's trials per study
    hyperparameters: Mapping[str, Any] | None
    budget: OfficialBudget
    step_hint: int | None
    target: Target
    test_target: Target | None
    status: OfficialStatus
    cause: str | None
    ledger: OfficialLedger
    spent_before: Amounts
    reached: OfficialReached | None
    best: float | None
    environment: Mapping[str, Any]
    preemptions: int = 0
    segments: tuple[()] = ()
    developed_here: bool = False
    error: None = None

    def spent_at(self, cost: Amounts) -> Amounts:
        """Return the study's cost when this trial's own cost was ``cost``."""
        return self.spent_before + cost


def ruleset_of(flags: Mapping[str, Any]) -> Ruleset | None:
    """Return the ruleset in a trial's flags; ``None`` without one."""
    found = flags.get("tuning_ruleset")
    return found if found in ("external", "self") else None


def logged_target(meta: Mapping[str, Any]) -> Target | None:
    """Return the validation target in a trial's meta data; ``None`` without one."""
    metric, value = (
        meta.get(f"workload.{name}") for name in ("target_metric_name", "validation_target_value")
    )
    if not isinstance(metric, str) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return OfficialTargets((), (), {"": (metric, float(value))}).target("")
    except ValueError:
        return None


def study_records(
    names: tuple[str, str, int],
    trials: Sequence[Trial],
    target: Target,
    ruleset: Ruleset,
    limits: Limits,
    oddities: Oddities,
) -> list[OfficialRecord]:
    """Return the records of one study's trials, in the order of the trials.

    Args:
        names: The submission, the workload, and the study's number.
        trials: The trials, sorted by number.
        target: The validation target.
        ruleset: The ruleset of the submission.
        limits: The limits of the ruleset.
        oddities: The collection that missing columns and costs are added to.
    """
    known = [budget for trial in trials if (budget := _budget(trial)) is not None]
    # A trial without a budget or without logs is charged the study's largest.
    whole = Amounts(math.inf, max(known, default=math.inf) * limits.budget_factor)
    records, spent = [], Amounts()
    due = 1  # the number of the next trial
    for trial in trials:
        number = trial.key.trial
        if number <= limits.trials:
            for _ in range(due, number):
                spent += whole
        due = max(due, number + 1)
        record = _record(names, trial, target, ruleset, limits, spent, oddities)
        records.append(record)
        if record.counts:
            cost = record.ledger.cost
            spent += Amounts(
                whole.steps if math.isnan(cost.steps) else cost.steps,
                whole.seconds if math.isnan(cost.seconds) else cost.seconds,
            )
    return records


def _record(
    names: tuple[str, str, int], trial: Trial, target: Target, ruleset: Ruleset, limits: Limits,
    spent: Amounts, oddities: Oddities,
) -> OfficialRecord:  # fmt: skip
    meta, flags = trial.document("meta_data"), trial.document("flags")
    budget = _budget(trial)
    allowed = math.inf if budget is None else budget * limits.budget_factor
    reached, cost, best = _outcome(trial, target, oddities)
    hints = (flags.get("max_global_steps"), meta.get("workload.step_hint"))
    hint = min((found for value in hints if (found := _positive(value))), default=None)
    cause = None
    if trial.evaluations is None or not trial.evaluations.rows:
        status, cause = "crashed", "no evaluations"
    elif reached is not None:
        status = "target"
    elif cost.seconds >= WHOLE * allowed or (hint and cost.steps >= WHOLE * hint):
        status = "trial_budget"
    elif math.isinf(allowed) and not hint:
        status = "trial_budget"  # neither the budget nor the step hint is known
    else:
        status = "broke_off"
    test = _positive(meta.get("workload.test_target_value"))
    metric = target.metric.removeprefix("validation/")
    period = _positive(meta.get("workload.eval_period_time_sec"))
    hyperparameters = trial.document("hparams")
    return OfficialRecord(
        *names,
        trial=trial.key.trial,
        ruleset="external" if ruleset == "external" else "self-tuning",
        counts=trial.key.trial <= limits.trials,
        hyperparameters=hyperparameters or None,
        budget=OfficialBudget(allowed, allowed * limits.trials, period),
        step_hint=None if hint is None else round(hint),
        target=target,
        test_target=None if test is None else Target(f"test/{metric}", test, target.better),
        status=status,
        cause=cause,
        ledger=OfficialLedger(cost),
        spent_before=spent,
        reached=reached,
        best=best,
        environment=_environment(meta),
    )


def _outcome(
    trial: Trial, target: Target, oddities: Oddities
) -> tuple[OfficialReached | None, Amounts, float | None]:
    """Return the hit, the cost of the trial, and its best value."""
    if trial.evaluations is None or not trial.evaluations.rows:
        return None, Amounts(math.nan, math.nan), None
    values, steps, seconds = (
        trial.evaluations.column(target.metric), trial.evaluations.column(STEP), _seconds(trial),
    )  # fmt: skip
    cost = Amounts(float(np.fmax.reduce(steps)), float(np.fmax.reduce(seconds)))
    finite = values[np.isfinite(values)]
    best = None
    if len(finite):
        best = float(finite.min() if target.better == "lower" else finite.max())
    hit = first_hit(values, target)
    if hit is None:
        return None, cost, best
    if not (math.isfinite(seconds[hit]) and seconds[hit] >= 0):
        what = f"meets its target in row {hit + 1}, which has no time: a miss"
        oddities.add("clocks-numbers", trial.where, what)
        return None, cost, best
    return OfficialReached(hit, Amounts(float(steps[hit]), float(seconds[hit]))), cost, best


def _seconds(trial: Trial) -> np.ndarray:
    """Return the submission's time in each row, from either column that holds it."""
    first, second = (trial.rows.columns.get(name) for name in (SECONDS, SCORE))
    found = first if second is None else second
    return np.full(trial.rows.rows, np.nan) if found is None else found


def _budget(trial: Trial) -> float | None:
    """Return the budget of time in the trial's meta data, before any factor."""
    return _positive(trial.document("meta_data").get(BUDGET_KEY))


def _environment(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the environment in the form of our records; versions of JAX and torch are missing."""
    names = ("cpu_model_name", "cpu_count", "gpu_model_name", "gpu_count", "gpu_driver",
             "python_version", "git_commit_hash")  # fmt: skip
    return _shared_environment(*(str(meta.get(name) or "") for name in names))


@functools.lru_cache
def _shared_environment(
    cpu: str, cpus: str, gpu: str, gpus: str, driver: str, python: str, commit: str
) -> Mapping[str, Any]:
    """Return one shared object for all trials of a machine."""
    count = min(int(gpus), 10_000) if gpus.isdecimal() else 0
    return {
        "hardware": {
            "cpu": cpu or None,
            "cpu_count": int(cpus) if cpus.isdecimal() else None,
            "backend": "gpu" if count else "cpu",
            "devices": [gpu or "unknown"] * count,
            "device_version": driver or None,
        },
        "software": {"python": python or None},
        "git": {"commit": commit or None},
    }


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value > 0 and math.isfinite(value) else None
