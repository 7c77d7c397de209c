"""The tuner protocol: how hyperparameters are proposed, and the outcomes that a tuner is told.

A tuner is asked for a point, the referee runs the trial, and the tuner is told one number to
minimise. A study that is resumed asks and tells a new tuner everything again, in order, so the same
seed must give the same points.

This is a :class:`Teller`, which suffices for most tuners. Three additions are optional: a tuner may
answer with a :class:`Proposal` to pause and resume trials; an :class:`Observer` sees an
:class:`Outcome` instead of one number; a :class:`Stopper` ends trials while they run.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from metaopt.bench.contract.spaces import Point
from metaopt.bench.records.outcomes import Outcome, Reading


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A new or a resumed trial, which runs to the end of its budget or to a pause before.

    Attributes:
        point: The hyperparameters of a new trial. New trials are numbered 1, 2, ... in order.
        resume: The number of a paused trial, instead of a point. It continues from its checkpoint.
        budget: The share of the trial's budget, in (0, 1], at which the trial pauses, counted from
            its start. A ``Fraction`` is met exactly.
    """

    point: Point | None = None
    resume: int | None = None
    budget: Fraction | float = 1

    def __post_init__(self) -> None:
        """Check the parts."""
        if (self.point is None) == (self.resume is None):
            raise ValueError(
                f"A proposal has either a `point` or the number of a trial to `resume`, got "
                f"{self.point!r} and {self.resume!r}."
            )
        if not 0 < self.budget <= 1:  # also catches NaN
            raise ValueError(f"A proposal's `budget` must be a share in (0, 1], got {self.budget}.")


class _Proposer(Protocol):
    """Proposes points one after another."""

    def ask(self) -> Point | Proposal | None:
        """Return the next point or proposal, or ``None`` when there is none left."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return name, version and every argument, as JSON data for the records."""
        ...


class Teller(_Proposer, Protocol):
    """A tuner that is told one number for each trial."""

    def tell(self, value: float) -> None:
        """Take the value of the last proposal: lower is better, always finite."""
        ...


@runtime_checkable
class Observer(_Proposer, Protocol):
    """A tuner that sees more of a trial than one number."""

    def observe(self, outcome: Outcome) -> None:
        """Take the outcome of the last proposal."""
        ...


Tuner = Teller | Observer


@runtime_checkable
class Stopper(Protocol):
    """A tuner that may end trials while they run."""

    def should_stop(self, curve: Sequence[Reading]) -> bool:
        """Return whether the running trial ends after its last evaluation, as ``"pruned"``.

        After a resume from a checkpoint this is not called again for earlier evaluations. So only
        the outcome, and not this call, may change later proposals.
        """
        ...
