"""Whose turn it is: a tuner's answers as runs of numbered trials, from pause to pause.

A trial that pauses runs in several segments; between them others have their turns. What is kept
here comes from the records alone, so that a study that is resumed gets to the same turns.
"""

import dataclasses
from fractions import Fraction
from typing import Any

from metaopt.bench.contract.tuner import Proposal
from metaopt.bench.records import Cost, Segment, Stretch, TrialRecord


@dataclasses.dataclass(frozen=True)
class Turn:
    """One run of a trial, to its end or its next pause.

    Attributes:
        trial: Its number, from 1.
        point: What was proposed for it; ``None`` without a tuner.
        pause_at: Its cost at which it pauses; ``None``: it runs to its end.
        segments: What ran of it before.
    """

    trial: int
    point: dict[str, Any] | None
    pause_at: float | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def start(self) -> Cost:
        """What the trial has cost before."""
        return self.segments[-1].end if self.segments else Cost()


class Turns:
    """The turns of a study.

    Args:
        trial_budget: Of which a tuner's proposals are shares.
    """

    def __init__(self, trial_budget: float) -> None:
        self.trials = 0
        self._trial_budget = trial_budget
        self._paused: dict[int, Turn] = {}  # the last turn of each trial that can go on

    def next(self, answer: dict[str, Any] | Proposal | None) -> Turn:
        """Return the turn that a tuner's answer asks for; without a tuner the next trial's.

        Raises:
            ValueError: It asks for a trial that cannot go on, or not further than it is.
        """
        if not isinstance(answer, Proposal):
            self.trials += 1
            return Turn(self.trials, answer)
        pause_at = None
        if answer.budget < 1:  # exactly, where both are exact
            pause_at = float(Fraction(answer.budget) * Fraction(self._trial_budget))
        if answer.resume is None:
            self.trials += 1
            return Turn(self.trials, answer.point, pause_at)
        if answer.resume not in self._paused:
            raise ValueError(
                f"The tuner resumes trial {answer.resume}; only {sorted(self._paused)} are paused."
            )
        before = self._paused.pop(answer.resume)
        assert before.pause_at is not None
        if pause_at is not None and pause_at <= before.pause_at:
            raise ValueError(
                f"The tuner resumes trial {before.trial} up to {pause_at:g}, but it has paused at "
                f"{before.pause_at:g} already."
            )
        return dataclasses.replace(before, pause_at=pause_at)

    def take(self, turn: Turn, record: TrialRecord) -> Stretch:
        """Keep how a turn went.

        Args:
            turn: That was run, now or before the study was resumed.
            record: Of its trial, which may have gone on since.

        Returns:
            The turn on the study's ledger.
        """
        index = len(turn.segments)
        if record.segments and (index < len(record.segments) - 1 or record.status == "paused"):
            segments = (*turn.segments, record.segments[index])
            self._paused[turn.trial] = dataclasses.replace(turn, segments=segments)
        return record.stretches[index]
