"""The tuner protocol: who proposes hyperparameters, and what it is told.

A tuner is asked for a point, the referee runs the trial, and the tuner is told one number to
minimise. A study that is resumed asks and tells a new tuner everything once more, in order: from
the same seed it must propose the same points again.
"""

from typing import Any, Protocol

from metaopt.bench.records import FAILURES, TrialRecord

FAILURE_VALUE = 3.0


class Tuner(Protocol):
    """Proposes points one after another."""

    def ask(self) -> dict[str, Any] | None:
        """Return the next point, or ``None`` when there is none left."""
        ...

    def tell(self, value: float) -> None:
        """Take the value of the point that was asked for last; lower is better, always finite."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return name, version and every argument, as JSON data for the records."""
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
