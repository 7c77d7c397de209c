"""The median stopping rule on top of random search."""

import statistics
from collections.abc import Sequence
from typing import Any

from metaopt.bench.contract.spaces import Point, SearchSpace
from metaopt.bench.records.outcomes import Outcome, Reading
from tuning.tuners.samplers import make_random

FIRST_TRIALS = 5  # must complete before any trial is stopped
WARM_UP = 1 / 9  # share of a trial's budget before which no trial is stopped


class MedianTuner:
    """Random points; a trial is stopped when it is worse than half of the earlier trials.

    It is stopped at the share t of its budget if its best loss so far is above the median, over the
    completed trials, of the mean of their losses up to t. Stopped and failed trials do not count.
    Points are those of the tuner ``random`` with the same seed.

    Reference: Golovin, Solnik, Moitra, Kochanski, Karro, Sculley, `Google Vizier: A Service for
    Black-Box Optimization <https://doi.org/10.1145/3097983.3098043>`_, 2017, section 3.2.2.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._draws = make_random(space, seed)
        self._completed: list[tuple[Reading, ...]] = []

    def ask(self) -> Point:
        """Return the next point."""
        return self._draws.ask()

    def should_stop(self, curve: Sequence[Reading]) -> bool:
        """Return whether the running trial is worse than half of the completed trials."""
        share = curve[-1].share
        if len(self._completed) < FIRST_TRIALS or share < WARM_UP:
            return False
        means = [
            statistics.fmean(seen)
            for other in self._completed
            if (seen := [reading.loss for reading in other if reading.share <= share])
        ]
        return bool(means) and min(reading.loss for reading in curve) > statistics.median(means)

    def observe(self, outcome: Outcome) -> None:
        """Keep the curve of a completed trial, for comparison with later ones."""
        if outcome.status in ("target", "trial_budget", "completed"):
            self._completed.append(outcome.curve)

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {
            "name": "median",
            "first_trials": FIRST_TRIALS,
            "warm_up": WARM_UP,
            "points": self._draws.describe(),
        }
