"""Bandits: many trials get a small budget, and the best continue from their checkpoints.

    eta      reduction: one in eta trials continues from a rung to the next
    R        a trial's whole budget
    rung k   the share eta^(k - s) of R, k = 0 .. s: 1/27, 1/9, 1/3 and 1 of it

A rung compares trials by their validation metric at that rung. A failure is worse than every number
and never continues. New points are those of the tuner ``random`` with the same seed. Both tuners
promote: a trial that continues costs only the difference to its next rung.
"""

from collections import deque
from fractions import Fraction
from typing import Any, NamedTuple

from metaopt.bench.contract.spaces import SearchSpace
from metaopt.bench.contract.tuner import Proposal
from metaopt.bench.records.outcomes import Outcome
from tuning.tuners.samplers import make_random

ETA = 3
RUNGS = 4  # the smallest is 1/27 of a trial's budget


def rung_share(rung: int, rungs: int = RUNGS) -> Fraction:
    """Return the share of a trial's budget that it has spent at a rung, from 0 on."""
    return Fraction(1, ETA ** (rungs - 1 - rung))


class _Bandit:
    """Draws new points and describes the tuner."""

    def __init__(self, name: str, space: SearchSpace, seed: int) -> None:
        self._name = name
        self._draws = make_random(space, seed)

    def _draw(self, rung: int) -> Proposal:
        return Proposal(point=self._draws.ask(), budget=rung_share(rung))

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {
            "name": self._name,
            "reduction": ETA,
            "rungs": [str(rung_share(rung)) for rung in range(RUNGS)],
            "points": self._draws.describe(),
        }


class AshaTuner(_Bandit):
    """Asynchronous successive halving, with promotion.

    The next trial is the best one that is in the best third of its rung and was not promoted yet,
    from the highest such rung. If there is none, a new trial starts.

    Reference: Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar, `A System for Massively
    Parallel Hyperparameter Tuning <https://arxiv.org/abs/1810.05934>`_, 2020, Algorithm 2.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__("asha", space, seed)
        self._losses: list[dict[int, float]] = [{} for _ in range(RUNGS)]  # by trial
        self._waiting: list[set[int]] = [set() for _ in range(RUNGS)]  # that could be promoted
        self._asked = 0  # rung of the last proposal

    def ask(self) -> Proposal:
        """Return a promotion if there is one, else a new trial."""
        for rung in reversed(range(RUNGS - 1)):
            trial = self._promotable(rung)
            if trial is not None:
                self._waiting[rung].remove(trial)
                self._asked = rung + 1
                return Proposal(resume=trial, budget=rung_share(rung + 1))
        self._asked = 0
        return self._draw(0)

    def observe(self, outcome: Outcome) -> None:
        """Put the trial on its rung."""
        self._losses[self._asked][outcome.trial] = outcome.loss
        if outcome.status == "paused":
            self._waiting[self._asked].add(outcome.trial)

    def _promotable(self, rung: int) -> int | None:
        losses = self._losses[rung]
        best = sorted(losses, key=lambda trial: (losses[trial], trial))[: len(losses) // ETA]
        return next((trial for trial in best if trial in self._waiting[rung]), None)


class HyperbandTuner(_Bandit):
    """Hyperband: brackets of successive halving, from many short trials to few long ones.

    Brackets and their rungs run one after another. After the last bracket the first one starts
    again with new points. A trial that met its target keeps its place among the best and is done.

    Reference: Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar, `Hyperband: A Novel Bandit-Based
    Approach to Hyperparameter Optimization <https://jmlr.org/papers/v18/16-558.html>`_, 2018,
    Algorithm 1.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__("hyperband", space, seed)
        self._brackets: deque[list[BracketRung]] = deque()
        self._rungs: deque[BracketRung] = deque()  # of the current bracket, from the current rung
        self._queue: deque[int | None] = deque()  # trials to continue; None is a new one
        self._outcomes: list[Outcome] = []  # at the current rung

    def ask(self) -> Proposal:
        """Return the next trial of the current rung, or the first of the next rung."""
        while not self._queue:
            self._next_rung()
        rung, trial = self._rungs[0].rung, self._queue.popleft()
        return (
            self._draw(rung) if trial is None else Proposal(resume=trial, budget=rung_share(rung))
        )

    def observe(self, outcome: Outcome) -> None:
        """Put the trial on the current rung."""
        self._outcomes.append(outcome)

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        table = [[rung.trials for rung in bracket] for bracket in hyperband_brackets(RUNGS - 1)]
        return {**super().describe(), "brackets": table}

    def _next_rung(self) -> None:
        if self._rungs:
            self._rungs.popleft()
        if not self._rungs:
            if not self._brackets:
                self._brackets.extend(hyperband_brackets(RUNGS - 1))
            self._rungs.extend(self._brackets.popleft())
            self._outcomes = []
            self._queue.extend([None] * self._rungs[0].trials)
            return
        best = sorted(self._outcomes, key=lambda outcome: (outcome.loss, outcome.trial))
        best = best[: self._rungs[0].trials]
        self._queue.extend(outcome.trial for outcome in best if outcome.status == "paused")
        self._outcomes = [outcome for outcome in best if outcome.status in ("target", "completed")]


class BracketRung(NamedTuple):
    """The number of trials that run to a rung."""

    rung: int
    trials: int


def hyperband_brackets(highest: int, eta: int = ETA) -> list[list[BracketRung]]:
    r"""Return Hyperband's brackets, as in the paper's Algorithm 1.

    With :math:`s_{max}` = ``highest``, bracket :math:`s = s_{max}, \dots, 0` starts with
    :math:`n = \lceil \frac{s_{max} + 1}{s + 1} \eta^s \rceil` trials at rung :math:`s_{max} - s`,
    and of them :math:`\lfloor n \eta^{-i} \rfloor` come to its i-th rung after that.

    Examples:
        >>> [[rung.trials for rung in bracket] for bracket in hyperband_brackets(3)]
        [[27, 9, 3, 1], [12, 4, 1], [6, 2], [4]]
    """
    brackets = []
    for s in range(highest, -1, -1):
        start = -(-(highest + 1) * eta**s // (s + 1))  # rounded up
        brackets.append([BracketRung(highest - s + i, start // eta**i) for i in range(s + 1)])
    return brackets
