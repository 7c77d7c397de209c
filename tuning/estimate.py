"""The time of a campaign, estimated from a few measured steps before anything is spent.

    seconds of a study = compilation + budget * seconds per unit + evaluations * seconds of one

All three times are measured in a study of a few steps with the campaign's contender. The estimate
leaves out additional evaluations (trials that end early make room for others), studies of the tuner
`long` that end at their target, the tuner's time, and the memory bandwidth that parallel processes
share.
"""

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from analysis.report.table import CellFormat, Column, Table, number_format
from analysis.report.tables.score_tables import unit_name
from metaopt.bench import records
from metaopt.bench.measure.budget import Budget, Currency
from metaopt.bench.records import ERRORS, FAILURES, Cost, TrialRecord
from tuning.campaign import Campaign
from tuning.studies import StudyKey, plan_study
from tuning.study import StudyPlan, run_study

_EVALUATIONS = 4
_STEPS = 3.0  # of a gradient evaluation each, between them


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The trials and the time of one contender's studies on one workload."""

    key: StudyKey
    trials: str  # in a study
    budget: Budget  # of a study
    studies: int
    unit_seconds: float  # of one unit of the budget, without compilation
    compilation_seconds: float  # tracing included
    evaluations: int  # in a study
    evaluation_seconds: float  # of one
    failures: str | None = None  # of some trials: how many, and the cause of the first

    @property
    def study_seconds(self) -> float:
        """The time of one study."""
        training = self.budget.amount * self.unit_seconds + self.compilation_seconds
        if self.budget.currency == "seconds":
            training = self.budget.amount
        return training + self.evaluations * self.evaluation_seconds


def list_probes(campaign: Campaign) -> list[StudyKey]:
    """Return the studies to measure: the first one of every contender on every workload."""
    return [
        StudyKey(contender, workload, 1)
        for workload in campaign.workloads
        for contender in sorted(campaign.contenders_by_name)
    ]


def probe_all(campaign: Campaign, keys: Iterable[StudyKey]) -> list[Estimate]:
    """Measure a few steps of each study, see :func:`probe`.

    Raises:
        ValueError: Some studies cannot run; the message has the failure of each.
    """
    estimates, problems = [], []
    for key in keys:
        try:
            estimates.append(probe(campaign, key))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return estimates


def probe(campaign: Campaign, key: StudyKey) -> Estimate:
    """Measure a few steps of one study, in a temporary folder.

    Raises:
        ValueError: Every trial ended with an error, or none took a step; the message has the first
            failure.
    """
    plan = plan_study(campaign, key)
    limits, in_seconds = plan.limits, plan.limits.currency == "seconds"
    # The probe measures the seconds of one unit of the budget. For a budget in seconds it counts
    # steps, because the time to compile the first step is unknown.
    period = _STEPS if in_seconds else min(limits.eval_period, _STEPS)
    few = records.BudgetRecord(
        currency="steps" if in_seconds else limits.currency,
        study=_EVALUATIONS * period,
        trial=_EVALUATIONS * period,
        eval_period=period,
    )
    small = dataclasses.replace(plan, limits=few, stop_at_target=False)
    with tempfile.TemporaryDirectory() as folder:
        run_study(small, Path(folder), stall_seconds=campaign.stall_seconds)
        found = [(records.read_trial(p), p.parent) for p in Path(folder).rglob(records.RUN_FILE)]
        trials, folders = zip(*sorted(found, key=lambda pair: pair[0].trial), strict=True)
        failures = _check_trials(key, trials)
        evaluated = [seconds for trial in folders for seconds in _evaluation_seconds(trial)]
        units = [seconds for trial in folders for seconds in _unit_seconds(trial, few.currency)]
    cost = sum((trial.ledger.cost for trial in trials), Cost())
    # The first steps trace and compile, so they are left out.
    unit = float(np.median(units[1:] or units))
    compiling = max(0.0, cost.seconds - unit * cost.amount(few.currency))
    largest_step = 0.0 if in_seconds else max(trial.ledger.largest_step for trial in trials)
    count, budget = _trials_of(plan)
    return Estimate(
        key=key,
        trials=count,
        budget=Budget(budget, limits.currency),
        studies=campaign.studies,
        unit_seconds=1.0 if in_seconds else unit,
        compilation_seconds=compiling,
        evaluations=math.ceil(budget / max(limits.eval_period, largest_step)),
        evaluation_seconds=float(np.median(evaluated[1:] or evaluated)),  # the first compiles
        failures=failures,
    )


def _check_trials(key: StudyKey, trials: Sequence[TrialRecord]) -> str | None:
    """Return the failure of some trials of a probe; ``None`` if all succeeded.

    Raises:
        ValueError: Every trial ended with an error, or none took a step.
    """
    errors = [trial for trial in trials if trial.status in ERRORS]
    if len(errors) == len(trials):
        raise ValueError(f"{key}: every trial fails: {errors[0].status}: {errors[0].cause}")
    if not any(trial.ledger.cost.steps for trial in trials):
        raise ValueError(f"{key}: no trial takes a step: {trials[0].status}")
    failed = errors or [trial for trial in trials if trial.status in FAILURES]
    if not failed:
        return None
    return f"{len(failed)} of {len(trials)} trials failed: {failed[0].status}: {failed[0].cause}"


def _trials_of(plan: StudyPlan) -> tuple[str, float]:
    """Return the number of trials of a study, as text, and the amount that they may spend."""
    limits, tuner = plan.limits, plan.contender.make_tuner(seed=0)
    if tuner is None or plan.contender.is_long:
        return "1", limits.study
    count = limits.study / limits.trial
    points = tuner.describe().get("points")  # of a grid
    if isinstance(points, int) and points <= count:
        return str(points), points * limits.trial
    return f"{count:.3g}+", limits.study


def _evaluation_seconds(trial: Path) -> list[float]:
    """Return the seconds of each evaluation of a trial."""
    rows = records.read_evaluations(trial / records.EVAL_FILE)
    return np.diff([0.0, *(row["accumulated_eval_time"] for row in rows)]).tolist()


def estimate_table(estimates: list[Estimate], processes: int) -> Table:
    """Return a row for each contender and workload; the caption has the total time."""
    rows = [
        (
            estimate.key.contender,
            estimate.key.workload,
            f"{estimate.studies} x {estimate.trials}",
            f"{estimate.budget.amount:,.6g} x {1000 * estimate.unit_seconds:.3g}",
            f"{estimate.evaluations:,} x {1000 * estimate.evaluation_seconds:.3g}",
            estimate.compilation_seconds,
            estimate.study_seconds,
        )
        for estimate in estimates
    ]
    total = sum(estimate.studies * estimate.study_seconds for estimate in estimates)
    longest = max(estimate.study_seconds for estimate in estimates)
    caption = (
        f"About {format_duration(max(longest, total / processes))} on {processes} "
        f"process{'es' if processes > 1 else ''}, {format_duration(total)} in total. The campaign "
        "has not run yet. Runs: studies x trials of each (+: more if trials end early or pause). "
        f"Training: the study's {unit_name(estimates[0].budget.currency)} x milliseconds of one. "
        "Evaluations: their number x milliseconds of one."
    )
    names = ("contender", "workload", "runs", "training", "evaluations")
    columns = (
        *map(Column, names), Column("compile s", number_format(".1f")),
        Column("a study", CellFormat(format_duration), "study_seconds"),
    )  # fmt: skip
    return Table(caption, columns, tuple(rows), keys=2)


def format_duration(seconds: float) -> str:
    """Return a duration as text.

    Examples:
        >>> format_duration(42.4), format_duration(754), format_duration(50_000)
        ('42 s', '12 min 34 s', '13 h 53 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _unit_seconds(trial: Path, currency: Currency) -> list[float]:
    """Return the seconds of a unit of the budget, between each two evaluations of a trial."""
    rows = records.read_evaluations(trial / records.EVAL_FILE)
    seconds = np.diff([0.0, *(row["accumulated_submission_time"] for row in rows)])
    units = np.diff([0.0, *(records.row_cost(row).amount(currency) for row in rows)])
    return (seconds / units).tolist()
