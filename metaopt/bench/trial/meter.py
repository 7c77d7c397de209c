"""The meter: the cost of a trial so far, in every currency, and its episode and phase."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from metaopt.bench.contract.return_values import ContractError
from metaopt.bench.measure.budget import Currency
from metaopt.bench.records import Cost
from metaopt.bench.trial.clock import Stopwatch

_FREE_STEPS = 1000  # so many in a row that cost nothing: the submission's count stands still

Report = Callable[[Any], dict[str, Any]]


@dataclasses.dataclass
class Meter:
    """Counts steps, examples and gradient evaluations; seconds are the stopwatch's.

    Attributes:
        currency: The currency of the trial's budgets.
        report: The submission's own count, if it declares one. Otherwise each step declares one
            pass over a batch.
        has_episodes: Whether the submission tunes itself: only then do episodes restart a run.
        episode_start: The cost at the restart of the present episode.
        largest_step: The cost of the most expensive step so far, in the budget's currency.
        restarts: How often the submission went back to a better point by its own count, as of the
            last evaluation.
    """

    watch: Stopwatch
    currency: Currency
    report: Report | None
    has_episodes: bool
    batch_size: int = 0  # 0: not known yet
    reference_batch_size: int = 1
    steps: int = 0
    examples: int = 0  # drawn from the queue
    declared: float = 0.0  # gradient evaluations
    episode: int = 0
    phase: str = "training"
    episode_start: Cost = dataclasses.field(default_factory=Cost)
    episode_start_compilation: float = 0.0
    largest_step: float = 0.0
    free_steps: int = 0
    restarts: int = 0
    declared_restarts: Any = 0  # by the last step; on the device, maybe, and steps do not wait

    @property
    def gradients(self) -> float:
        """The gradient evaluations charged: declared, or drawn where that is more."""
        drawn = self.drawn
        return drawn if drawn > self.declared else self.declared

    @property
    def drawn(self) -> float:
        """The examples drawn from the queue, in gradient evaluations."""
        return self.examples / self.reference_batch_size

    def __post_init__(self) -> None:
        """Find out whether the submission may restart, and report it."""
        self.counts_episodes = self.has_episodes and self.report is not None
        self._before = self._seconds_before = self._compilation_before = 0.0

    def count_batch(self) -> None:
        """Count a batch that the submission draws from its queue."""
        self.examples += self.batch_size

    def spent(self) -> float:
        """Return the cost so far in the budget's currency, without waiting for the device."""
        if self.currency == "gradient_evaluations":
            return self.gradients
        if self.currency == "steps":
            return self.steps
        return self.watch.running()

    def begin_step(self) -> None:
        """Note what has been spent when a step begins, without waiting for the device.

        The clock is only read for submissions whose steps may begin an episode.
        """
        self._before = self.gradients
        if self.counts_episodes:
            self._seconds_before = self.watch.running()
            self._compilation_before = self.watch.compiled()

    def cost(self, seconds: float) -> Cost:
        """Return the cost so far in all currencies."""
        return Cost(steps=self.steps, gradient_evaluations=self.gradients, seconds=seconds)

    def count_step(self, optimizer_state: Any) -> None:
        """Put the step that has begun on the ledger.

        Args:
            optimizer_state: After the step; the submission's report reads it.

        Raises:
            ContractError: The report is not one, or its count goes back or stands still.
        """
        if self.report is None:
            self.steps += 1
            self.declared = self.steps * self.batch_size / self.reference_batch_size
            return
        episode = self._read(optimizer_state)
        stood_still = self.gradients == self._before
        self.free_steps = self.free_steps + 1 if stood_still else 0
        if self.free_steps == _FREE_STEPS:
            raise ContractError(f"report() counted no gradient evaluation in {_FREE_STEPS} steps.")
        # It restarts before its step, so the new episode began where this step did.
        if episode != self.episode and self.counts_episodes:
            self.episode = episode
            self.episode_start = Cost(
                steps=self.steps,
                gradient_evaluations=self._before,
                seconds=self._seconds_before,
            )
            self.episode_start_compilation = self._compilation_before
        self.steps += 1

    def count_preparation(self, optimizer_state: Any) -> None:
        """Charge the cost that the submission declares at set-up or before an evaluation."""
        if self.report is not None:
            self._read(optimizer_state)

    def note_largest(self, cost: float) -> None:
        """Remember the cost of a step, in the budget's currency, if no step cost more."""
        if cost > self.largest_step:
            self.largest_step = cost

    def _read(self, optimizer_state: Any) -> int:
        """Take the count and the phase that the submission declares; return the episode."""
        assert self.report is not None
        said = self.report(optimizer_state)
        try:
            gradients, episode = float(said["gradient_evaluations"]), int(said["episode"])
            self.phase = str(said["phase"])
            self.declared_restarts = said.get("restarts", 0)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ContractError(
                "report() must return numbers for 'gradient_evaluations' and 'episode', and a "
                f"'phase'; got {said!r} ({error!r})."
            ) from None
        if not self.declared <= gradients < math.inf:  # also catches NaN
            raise ContractError(
                f"report() must give a cumulative number of gradient evaluations, "
                f"got {gradients} after {self.declared}."
            )
        self.declared = gradients
        return episode

    def columns(self) -> dict[str, Any]:
        """Return the columns of an evaluation row for cost, episode and phase."""
        start = self.episode_start
        return {
            "global_step": self.steps,
            "gradient_evaluations": self.gradients,
            "episode": self.episode,
            "phase": self.phase,
            "episode_start_steps": start.steps,
            "episode_start_gradient_evaluations": start.gradient_evaluations,
            "episode_start_seconds": start.seconds,
            "episode_start_compilation_seconds": self.episode_start_compilation,
        }

    def read_restarts(self) -> None:
        """Wait for the last step, and take the number of restarts that it declared.

        Raises:
            ContractError: It is no number, or went back.
        """
        try:
            count = int(self.declared_restarts)
        except (TypeError, ValueError, OverflowError) as error:
            said = self.declared_restarts
            raise ContractError(
                f"report() must give 'restarts' as a number, got {said!r} ({error!r})."
            ) from None
        if count < self.restarts:
            raise ContractError(
                f"report() must give a cumulative number of 'restarts', got {count} after "
                f"{self.restarts}."
            )
        self.restarts = count

    def facts(self) -> dict[str, Any]:
        """Return the meter's part of a checkpoint, as JSON data."""
        counts = {name: getattr(self, name) for name in _FACTS}
        return {**counts, "episode_start": self.episode_start.model_dump()}

    def restore(self, facts: dict[str, Any]) -> None:
        """Continue from the facts that :meth:`facts` returned."""
        for name in _FACTS:
            setattr(self, name, facts[name])
        self.declared_restarts = self.restarts
        self.episode_start = Cost(**facts["episode_start"])


_FACTS = (
    "batch_size", "reference_batch_size", "steps", "examples", "declared", "episode", "phase",
    "episode_start_compilation", "largest_step", "free_steps", "restarts",
)  # fmt: skip
