"""The files of a trial that has ended or paused; its record is written last."""

from contextlib import suppress
from typing import Any

from metaopt.bench import records
from metaopt.bench.records import Cost, Ledger, Segment, Status, TrialRecord
from metaopt.bench.records.algoperf_files import write_algoperf_files
from metaopt.bench.records.failures import describe_divergence
from metaopt.bench.records.redaction import redact
from metaopt.bench.trial.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.trial.environment import describe_environment
from metaopt.bench.trial.progress import end_segment
from metaopt.bench.trial.state import TrialState


def finish(
    state: TrialState, status: Status, error: str | None = None, cause: str | None = None
) -> TrialRecord:
    """Write the trial's files, ``run.json`` last, and return its record.

    Args:
        state: The trial.
        status: How it ended, or ``"paused"``.
        error: The traceback, if something was raised.
        cause: Why it failed, on one line; found here if it diverged.
    """
    settings = state.plan.settings
    if status == "diverged":
        cause = describe_divergence(state.log.rows[-1])
    cost = _charged_cost(state)
    with state.watch.measure("logging"):
        state.log.flush()
        environment = describe_environment()
        write_algoperf_files(
            state.directory,
            workload=state.plan.workload,
            submission=settings.submission,
            ruleset=settings.ruleset,
            seed=settings.seeds.trial,
            batch_size=state.meter.batch_size,
            environment=environment,
        )
    record = _make_record(state, status, error, cause, cost, environment)
    records.write_json(state.directory / records.RUN_FILE, record)
    if status != "paused":
        (state.directory / CHECKPOINT_FILE).unlink(missing_ok=True)
    end_segment(state.directory)
    return record


def _charged_cost(state: TrialState) -> Cost:
    cost, segments = state.cost, state.plan.segments
    if not segments or segments[-1].end.steps <= cost.steps:
        return cost
    # It failed on the way back to where it had paused: what was paid and seen there stays.
    with suppress(ValueError):
        state.log.restore(segments[-1].evaluations)
    return segments[-1].end


def _make_record(
    state: TrialState,
    status: Status,
    error: str | None,
    cause: str | None,
    cost: Cost,
    environment: dict[str, Any],
) -> TrialRecord:
    plan, settings, watch, meter = state.plan, state.plan.settings, state.watch, state.meter
    reached = records.find_reached(state.log.rows, settings.target)
    if reached and reached.cost.amount(plan.currency) > plan.allowance:
        reached = None
    segment = Segment(
        rung=plan.pause_at,
        spent_before=plan.spent_before,
        start=plan.start,
        end=cost,
        evaluations=len(state.log.rows),
        tuner_seconds=plan.tuner_seconds,
    )
    segments = (*plan.segments, segment)
    return TrialRecord(
        **dict(settings),
        batch_size=meter.batch_size,
        reference_batch_size=meter.reference_batch_size,
        step_hint=plan.workload.step_hint,
        status=status,
        cause=cause and redact(cause),
        error=error and redact(error),
        ledger=Ledger(
            cost=cost,
            examples=meter.examples,
            declared=meter.report is not None,
            compilation_seconds=watch.compilation,
            evaluation_seconds=watch.evaluation,
            logging_seconds=watch.logging,
            tuner_seconds=sum(segment.tuner_seconds for segment in segments),
            largest_step=meter.largest_step,
            restarts=meter.restarts,
        ),
        segments=segments,
        reached=reached,
        best=records.best_value(state.log.rows, settings.target),
        preemptions=state.preemptions,
        environment=environment,
        started_at=state.started_at,
        data=_describe_data(plan.workload),
        data_restored=getattr(state.queue, "restores", "exact"),
    )


def _describe_data(workload: Any) -> dict[str, Any] | None:
    """Return the workload's description of its data; ``None`` if it has none that can be read."""
    if not hasattr(workload, "describe_data"):
        return None
    try:
        return workload.describe_data()
    except (OSError, ValueError):  # the trial has crashed on the same error, and its record says so
        return None
