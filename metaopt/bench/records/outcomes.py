"""Outcomes: how a trial went, and the number that a tuner minimises. Nothing here needs JAX."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metaopt.bench.measure.targets import Target
from metaopt.bench.records.evaluations import best_value, metric_of, row_cost
from metaopt.bench.records.trials import FAILURES, BudgetRecord, Status, TrialRecord

FAILURE_VALUE = 3.0
WORST_LOSS = 1e100  # larger than every 32-bit number, and sums of it are finite


@dataclasses.dataclass(frozen=True)
class Reading:
    """One evaluation of a trial.

    Attributes:
        share: Share of the trial's budget that was spent.
        loss: The validation metric of the target, its sign turned where higher is better: lower is
            better. Always finite: what is not a number, or larger, is ``WORST_LOSS``.
    """

    share: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the trial that was asked for last has gone, up to its end or its pause.

    Attributes:
        trial: Its number, from 1.
        status: ``"paused"`` if it can be resumed; else why it ended.
        value: The number to minimise, see :func:`value_of`.
        curve: Its evaluations from its start.
    """

    trial: int
    status: Status
    value: float
    curve: tuple[Reading, ...]

    @property
    def loss(self) -> float:
        """The loss at its last evaluation; ``WORST_LOSS`` for a failure, or without any."""
        if self.status in FAILURES or not self.curve:
            return WORST_LOSS
        return self.curve[-1].loss


def value_of(record: TrialRecord) -> float:
    """Return the number a tuner minimises; finite also for a run that diverged.

    The share of the trial's budget that it took to meet the target, at most 1; else 1 plus the
    bounded distance of the best metric from the target, below 2; a failure is 3. (Optuna forgets
    trials whose value is NaN, and proposes the same point again.)
    """
    if record.reached is not None:
        return record.reached.cost.amount(record.budget.currency) / record.budget.trial
    if record.status in FAILURES:
        return FAILURE_VALUE
    return 1.0 + record.target.distance(record.best)


def outcome_at(record: TrialRecord, segment: int, rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return the outcome of a trial as of the end of one of its segments.

    Args:
        record: The record of the trial, which may hold later segments as well.
        segment: The index of the segment.
        rows: The trial's evaluations.
    """
    target = record.target
    count = record.segments[segment].evaluations
    rows = rows[:count]  # the trial may be running its next segment
    if segment < len(record.segments) - 1:
        met = record.reached is not None and record.reached.evaluation < count
        record = record.model_copy(
            update={
                "status": "paused",
                "best": best_value(rows, target),
                "reached": record.reached if met else None,
            }
        )
    curve = tuple(read_curve(rows, target, record.budget))
    return Outcome(record.trial, record.status, value_of(record), curve)


def read_curve(
    rows: Iterable[Mapping[str, Any]], target: Target, budget: BudgetRecord
) -> Iterable[Reading]:
    """Yield what a tuner sees of evaluation rows."""
    sign = 1.0 if target.better == "lower" else -1.0
    for row in rows:
        loss = sign * metric_of(row, target.metric)
        bounded = max(-WORST_LOSS, min(loss, WORST_LOSS)) if math.isfinite(loss) else WORST_LOSS
        yield Reading(row_cost(row).amount(budget.currency) / budget.trial, bounded)
