"""The tuner protocol: who proposes hyperparameters, and what it is told.

A tuner is asked for a point, the referee runs the trial, and the tuner is told one number to
minimise. A study that is resumed asks and tells a new tuner everything once more, in order: from
the same seed it must propose the same points again.

That is a :class:`Teller`, and all that most tuners need. A tuner may also answer with a
:class:`Proposal`, to pause trials and to resume them; as an :class:`Observer` it sees an
:class:`Outcome` instead of one number; as a :class:`Stopper` it ends trials while they run.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from metaopt.bench.records.outcomes import Outcome, Reading


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
