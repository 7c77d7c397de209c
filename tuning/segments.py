"""The segments of a study: a tuner's answers as parts of numbered trials, from pause to pause.

A trial that pauses runs in several segments; between them other trials have theirs. The state here
follows from the records alone, so a resumed study comes to the same segments.
"""

import dataclasses
from fractions import Fraction
from typing import Any

from metaopt.bench.contract.tuner import Proposal
from metaopt.bench.records import Cost, Segment, TrialRecord


@dataclasses.dataclass(frozen=True)
class NextSegment:
    """A segment to run: a trial, to its end or its next pause.

    Attributes:
        trial: The trial's number, from 1.
        point: The tuner's proposal; ``None`` without a tuner.
        pause_at: The trial's cost at which the segment pauses; ``None``: it runs to the end.
        before: The segments of the trial that have run.
    """

    trial: int
    point: dict[str, Any] | None
    pause_at: float | None = None
    before: tuple[Segment, ...] = ()

    @property
    def start(self) -> Cost:
        """The cost of the trial before this segment."""
        return self.before[-1].end if self.before else Cost()


class SegmentQueue:
    """Numbers new trials, and keeps the paused ones.

    Args:
        trial_budget: The budget of a trial; a tuner's proposals are shares of it.
    """

    def __init__(self, trial_budget: float) -> None:
        self.trials = 0
        self._trial_budget = trial_budget
        self._paused: dict[int, NextSegment] = {}  # by trial: its last segment, and what ran

    def next(self, answer: dict[str, Any] | Proposal | None) -> NextSegment:
        """Return the segment that a tuner's answer asks for; without a tuner the next trial.

        Raises:
            ValueError: The tuner resumes a trial that is not paused, or up to a budget that the
                trial has reached.
        """
        if not isinstance(answer, Proposal):
            self.trials += 1
            return NextSegment(self.trials, answer)
        pause_at = None
        if answer.budget < 1:  # exactly, where both are exact
            pause_at = float(Fraction(answer.budget) * Fraction(self._trial_budget))
        if answer.resume is None:
            self.trials += 1
            return NextSegment(self.trials, answer.point, pause_at)
        if answer.resume not in self._paused:
            raise ValueError(
                f"The tuner resumes trial {answer.resume}; only {sorted(self._paused)} are paused."
            )
        last = self._paused.pop(answer.resume)
        assert last.pause_at is not None
        if pause_at is not None and pause_at <= last.pause_at:
            raise ValueError(
                f"The tuner resumes trial {last.trial} up to {pause_at:g}, but it has paused at "
                f"{last.pause_at:g} already."
            )
        return dataclasses.replace(last, pause_at=pause_at)

    def take(self, segment: NextSegment, record: TrialRecord) -> Segment:
        """Return a segment as it ran, and keep its trial if that is paused.

        Args:
            segment: The segment that was run, now or before the study was resumed.
            record: The record of its trial, which may hold later segments as well.
        """
        index = len(segment.before)
        ran = record.segments[index]
        if index < len(record.segments) - 1 or record.status == "paused":
            before = (*segment.before, ran)
            self._paused[segment.trial] = dataclasses.replace(segment, before=before)
        return ran
