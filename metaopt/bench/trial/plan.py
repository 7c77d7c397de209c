"""The plan of a trial: its settings, its code, and the segment to run next."""

import dataclasses
from typing import Any

from metaopt.bench.contract.loading import Submission
from metaopt.bench.measure.budget import Currency
from metaopt.bench.measure.seeds import Purpose, derive_seed
from metaopt.bench.records import Cost, Seeds, Segment, TrialSettings


@dataclasses.dataclass(frozen=True)
class TrialPlan:
    """A trial and its next segment.

    Attributes:
        settings: The facts that the record repeats: names, seeds, point, budgets, targets.
        submission: The loaded submission.
        workload: The workload.
        allowance: The most that the trial may spend, in the budget's currency: the smaller of its
            own budget and what is left of the study's.
        spent_before: What the study had spent when the segment began, the tuner's decision
            included.
        tuner_seconds: What the tuner took to decide on the segment.
        pause_at: The trial's cost at which the segment ends with a pause; ``None``: at its end.
        segments: The segments that have run; the trial continues behind them.
    """

    settings: TrialSettings
    submission: Submission
    workload: Any
    allowance: float
    spent_before: Cost = Cost()  # noqa: RUF009 (immutable)
    tuner_seconds: float = 0.0
    pause_at: float | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def currency(self) -> Currency:
        """The currency of every budget here."""
        return self.settings.budget.currency

    @property
    def start(self) -> Cost:
        """What the trial had cost when its next segment begins."""
        return self.segments[-1].end if self.segments else Cost()

    @property
    def rungs(self) -> tuple[float, ...]:
        """Costs at which this trial is evaluated because it pauses there, or did."""
        return tuple(
            rung for rung in (*(s.rung for s in self.segments), self.pause_at) if rung is not None
        )

    @property
    def horizon(self) -> float:
        """The budget that the submission is told a share of.

        It is not the next rung: what a submission does must not depend on where its trial pauses.
        """
        return self.settings.budget.trial if self.rungs else self.allowance


def plan_trial(
    submission: Submission, workload: Any, *, allowance: float | None = None, **settings: Any
) -> TrialPlan:
    """Return the plan of a new trial.

    Args:
        submission: The loaded submission.
        workload: The workload.
        allowance: The most that the trial may spend; its own budget by default.
        settings: The fields of :class:`~metaopt.bench.records.TrialSettings` that do not follow
            from the submission and the workload.
    """
    about = TrialSettings(
        submission=submission.name,
        ruleset=submission.ruleset,
        workload=workload.name,
        developed_here=workload.name in submission.developed_on,
        **settings,
    )
    return TrialPlan(
        settings=about,
        submission=submission,
        workload=workload,
        allowance=about.budget.trial if allowance is None else allowance,
    )


def derive_seeds(
    campaign_seed: int, workload: Any, study: int, trial: int, *, tuned: bool = False
) -> Seeds:
    """Return the seeds of a trial.

    Args:
        campaign_seed: The campaign's seed.
        workload: The workload; that of a ``_fixed`` one has chosen its batch.
        study: The study's number, from 1.
        trial: The trial's number, from 1.
        tuned: Whether the study has a tuner, which needs a seed as well.
    """

    def derive(purpose: Purpose, number: int | None = None) -> int:
        return derive_seed(campaign_seed, workload.name, study, purpose, number)

    return Seeds(
        campaign=campaign_seed,
        trial=derive("trial", trial),
        tuner=derive("tuner") if tuned else None,
        fixed_batch=getattr(workload, "batch_seed", None),
    )


def fingerprint(plan: TrialPlan) -> dict[str, Any]:
    """Return what a trial's numbers depend on, as JSON data."""
    names = ("digest", "workload", "seeds", "hyperparameters", "target", "stop_at_target")
    return {
        **plan.settings.model_dump(mode="json", include=set(names)),
        "currency": plan.currency,
        "eval_period": plan.settings.budget.eval_period,
        "allowance": plan.allowance,
        "rungs": [*plan.rungs],
        "segments": len(plan.segments),
    }
