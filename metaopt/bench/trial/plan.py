"""What a trial is to run."""

import dataclasses
from typing import Any

from metaopt.bench.contract.loading import Submission
from metaopt.bench.measure.budget import Currency
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import Cost, Seeds, Segment


@dataclasses.dataclass(frozen=True)
class TrialPlan:
    """Everything that decides a trial's numbers, and its place in the campaign.

    Attributes:
        currency: Of every budget here.
        allowance: What this trial may spend: the smaller of the trial's budget and what is left of
            the study's.
        eval_period: Cost between evaluations.
        target: The validation target that ends the trial.
        spent_before: What the study had spent when the trial began, with its tuner's decision.
        tuner_seconds: What the tuner took to decide on this turn of the trial.
        stop_at_target: If not, the trial trains on; where it met the target is recorded all the
            same.
        pause_at: The trial's cost at which it is to pause, with a checkpoint to go on from.
        segments: What ran of it before: it goes on behind them.
        digest: Of what else decides its numbers, see :mod:`metaopt.bench.records.identity`.
        search_space: What its tuner searches, in AlgoPerf's form, for the record.
    """

    campaign: str
    contender: str
    submission: Submission
    space: str | None
    tuner: dict[str, Any] | None
    workload: Any
    study: int
    trial: int
    seeds: Seeds
    hyperparameters: dict[str, Any] | None
    currency: Currency
    study_budget: float
    trial_budget: float
    allowance: float
    eval_period: float
    target: Target
    test_target: Target | None
    spent_before: Cost = Cost()  # noqa: RUF009 (immutable)
    tuner_seconds: float = 0.0
    stop_at_target: bool = True
    pause_at: float | None = None
    segments: tuple[Segment, ...] = ()
    digest: str = ""
    search_space: Any = None

    @property
    def rungs(self) -> tuple[float, ...]:
        """Costs at which this trial is evaluated because it pauses there, or did."""
        return tuple(
            rung for rung in (*(s.rung for s in self.segments), self.pause_at) if rung is not None
        )

    @property
    def horizon(self) -> float:
        """The budget that the submission is told a share of.

        Not the next rung: what a submission does must not depend on where its trial pauses.
        """
        return self.trial_budget if self.rungs else self.allowance


def fingerprint(plan: TrialPlan) -> dict[str, Any]:
    """Return what a trial's numbers depend on, as JSON data."""
    target = plan.target
    return {
        "digest": plan.digest,
        "workload": plan.workload.name,
        "seeds": plan.seeds.model_dump(),
        "hyperparameters": plan.hyperparameters,
        "currency": plan.currency,
        "allowance": plan.allowance,
        "eval_period": plan.eval_period,
        "target": [target.metric, target.value, target.better],
        "stop_at_target": plan.stop_at_target,
        "rungs": [*plan.rungs] or None,
        "segments": len(plan.segments) or None,
    }
