"""The tuner protocol: who proposes hyperparameters, and what it is told.

A tuner is asked for a point, the referee runs the trial, and the tuner is told one number to
minimise. A study that is resumed asks and tells a new tuner everything once more, in order: from
the same seed it must propose the same points again.

That is a :class:`Teller`, and all that most tuners need. A tuner may also answer with a
:class:`Proposal`, to pause trials and to resume them; as an :class:`Observer` it sees an
:class:`Outcome` instead of one number; as a :class:`Stopper` it ends trials while they run.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from metaopt.bench.measure.targets import Target
from metaopt.bench.records import (
    FAILURES,
    BudgetRecord,
    Status,
    TrialRecord,
    best_value,
    metric_of,
    row_cost,
)

FAILURE_VALUE = 3.0
WORST_LOSS = 1e100  # beyond every number of 32 bits, and sums of them are finite


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A new trial, or one that goes on; to the end of its budget or to a pause before.

    Attributes:
        point: The hyperparameters of a new trial. New trials are numbered 1, 2, ... as they come.
        resume: Instead of a point, the number of a paused trial. It goes on from its checkpoint.
        budget: Share of the trial's budget, in (0, 1], that the trial will have spent when it
            pauses, counted from its start. A ``Fraction`` is met exactly.
    """

    point: dict[str, Any] | None = None
    resume: int | None = None
    budget: Fraction | float = 1

    def __post_init__(self) -> None:
        """Check the parts."""
        if (self.point is None) == (self.resume is None):
            raise ValueError(
                f"A proposal has a `point` or the number of a trial to `resume`; got "
                f"{self.point!r} and {self.resume!r}."
            )
        if not 0 < self.budget <= 1:  # also catches NaN
            raise ValueError(f"A proposal's `budget` is a share in (0, 1], got {self.budget}.")


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


class _Proposer(Protocol):
    """Proposes points one after another."""

    def ask(self) -> dict[str, Any] | Proposal | None:
        """Return the next point or proposal, or ``None`` when there is none left."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return name, version and every argument, as JSON data for the records."""
        ...


class Teller(_Proposer, Protocol):
    """A tuner that is told one number for each trial."""

    def tell(self, value: float) -> None:
        """Take the value of what was asked for last; lower is better, always finite."""
        ...


@runtime_checkable
class Observer(_Proposer, Protocol):
    """A tuner that sees more of a trial than one number."""

    def observe(self, outcome: Outcome) -> None:
        """Take the outcome of what was asked for last."""
        ...


Tuner = Teller | Observer


@runtime_checkable
class Stopper(Protocol):
    """A tuner that may end trials while they run."""

    def should_stop(self, curve: Sequence[Reading]) -> bool:
        """Return whether the running trial ends here, as ``"pruned"``, after its last evaluation.

        A trial that goes on from a checkpoint is not asked about again where it went on before, so
        the answer must not change what the tuner proposes later; the outcome may.
        """
        ...


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
    return 1.0 + record.target.target().distance(record.best)


def outcome_at(record: TrialRecord, segment: int, rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return how a trial with segments had gone when one of them, from 0, was over.

    Args:
        record: Of the trial, which may have come further.
        segment: Which of its segments; anything if it has none.
        rows: The trial's evaluations.
    """
    target = record.target.target()
    if record.segments:
        count = record.segments[segment].evaluations
        rows = rows[:count]  # the trial may be at work on its next segment
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
