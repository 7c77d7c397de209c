"""The record of a trial, from the runner's state at its end."""

import dataclasses
from typing import TYPE_CHECKING, Any

from metaopt.bench import records
from metaopt.bench.records import Cost, Ledger, Segment, Status, TrialRecord
from metaopt.bench.records.redaction import redact

if TYPE_CHECKING:
    from metaopt.bench.trial.trial import Trial


def make_record(
    trial: "Trial",
    status: Status,
    error: str | None,
    cause: str | None,
    cost: Cost,
    environment: dict[str, Any],
) -> TrialRecord:
    """Return the record of a trial that has come to its end, or to a pause.

    Args:
        trial: What ran.
        status: How it ended.
        error: Its traceback, if something was raised.
        cause: Why it failed, on one line.
        cost: What it is charged.
        environment: Where it ran.
    """
    plan, watch = trial.plan, trial.watch
    segments = _segments(trial, cost)
    reached = records.find_reached(trial.log.rows, plan.target)
    if reached and reached.cost.amount(plan.currency) > plan.allowance:
        reached = None
    return TrialRecord(
        campaign=plan.campaign,
        contender=plan.contender,
        submission=plan.submission.name,
        digest=plan.digest,
        space=plan.space,
        search_space=plan.search_space,
        tuner=plan.tuner,
        ruleset=plan.submission.ruleset,
        workload=plan.workload.name,
        study=plan.study,
        trial=plan.trial,
        seeds=plan.seeds,
        hyperparameters=plan.hyperparameters,
        budget=records.BudgetRecord(
            currency=plan.currency,
            study=plan.study_budget,
            trial=plan.trial_budget,
            eval_period=plan.eval_period,
        ),
        batch_size=trial.batch_size,
        reference_batch_size=trial.meter.reference_batch_size,
        step_hint=plan.workload.step_hint,
        target=records.TargetRecord(**dataclasses.asdict(plan.target)),
        test_target=plan.test_target
        and records.TargetRecord(**dataclasses.asdict(plan.test_target)),
        status=status,
        cause=cause and redact(cause),
        error=error and redact(error),
        ledger=Ledger(
            cost=cost,
            examples=trial.meter.examples,
            declared=trial.meter.report is not None,
            compilation_seconds=watch.compilation,
            evaluation_seconds=watch.evaluation,
            logging_seconds=watch.logging,
            tuner_seconds=sum((s.tuner_seconds for s in plan.segments), plan.tuner_seconds),
            lost_seconds=trial.lost_seconds,
            largest_step=trial.meter.largest_step,
            restarts=trial.meter.restarts,
        ),
        spent_before=segments[0].spent_before if segments else plan.spent_before,
        reached=reached,
        best=records.best_value(trial.log.rows, plan.target),
        preemptions=trial.preemptions,
        environment=environment,
        started_at=trial.started_at,
        stop_at_target=plan.stop_at_target,
        data=_describe_data(plan.workload),
        data_restored=getattr(getattr(trial, "queue", None), "restores", "exact"),
        segments=segments,
        developed_here=plan.workload.name in plan.submission.developed_on,
    )


def _segments(trial: Any, cost: Cost) -> tuple[Segment, ...]:
    """Return the trial's segments with the one that ends now; none without rungs."""
    plan = trial.plan
    if not plan.rungs:
        return ()
    segment = Segment(
        rung=plan.pause_at,
        spent_before=plan.spent_before,
        start=plan.segments[-1].end if plan.segments else Cost(),
        end=cost,
        evaluations=len(trial.log.rows),
        tuner_seconds=plan.tuner_seconds,
    )
    return (*plan.segments, segment)


def _describe_data(workload: Any) -> dict[str, Any] | None:
    """Return what the workload says of its data; nothing if it has none, or none to be read."""
    if not hasattr(workload, "describe_data"):
        return None
    try:
        return workload.describe_data()
    except (OSError, ValueError):  # then the trial has crashed on it, and says so
        return None
