"""The runner: one trial, run to its end or its next pause, whatever happens on the way.

With a budget in steps or gradient evaluations nothing here depends on a clock: a trial that was
killed and goes on from its checkpoint gives the numbers of an unbroken one.
"""

import traceback
from collections.abc import Callable
from pathlib import Path

from metaopt.bench import records
from metaopt.bench.contract.return_values import ContractError
from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.records import Status, TrialRecord
from metaopt.bench.records.failures import describe, describe_with_place
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.clock import Clock, SystemClock
from metaopt.bench.trial.plan import TrialPlan
from metaopt.bench.trial.trial import ShouldStop, Trial

DEFAULT_CHECKPOINT_SECONDS = 10.0
_DIED = (
    "The process that ran this trial died twice: a fault in compiled code, or no memory. The cost "
    "is that of the last checkpoint."
)


@pinned_randomness()
def run_trial(
    plan: TrialPlan,
    directory: Path,
    *,
    clock: Clock | None = None,
    checkpoint_seconds: float = DEFAULT_CHECKPOINT_SECONDS,
    on_progress: Callable[[float], None] | None = None,
    stall_seconds: float | None = None,
    should_stop: ShouldStop | None = None,
    recorder: Recorder | None = None,
) -> TrialRecord:
    """Run a trial to its end or its next pause, or go on with it where a killed process left it.

    Args:
        plan: What to run.
        directory: The trial's folder. A trial there that has come as far is returned as it is.
        clock: Where seconds come from; the machine's by default.
        checkpoint_seconds: At least this long between checkpoints; written at evaluations.
        on_progress: Told the cost so far, in the budget's currency, about twice a second.
        stall_seconds: After so long without a step the trial is recorded as stalled and **the
            process ends**, with exit code 1: nothing else stops code that does not return. By
            default it is waited for.
        should_stop: Asked after every evaluation that did not end the trial, with all rows so far,
            whether to prune it.
        recorder: Records what an audit of the trial needs.

    Returns:
        The record that was written to ``run.json``. Whatever the submission does wrong is in its
        status.

    Raises:
        ValueError: The folder holds an unfinished trial of another plan.
    """
    found = find_finished(plan, directory)
    if found is not None:
        return found
    trial = Trial(
        plan,
        directory,
        clock or SystemClock(),
        checkpoint_seconds,
        on_progress,
        should_stop,
        recorder,
    )
    trial.check_progress()
    with trial.watch_for_stalls(stall_seconds):
        try:
            trial.set_up()
            if trial.died:
                raise ProcessDiedError(_DIED)
            status, error, cause = trial.run(), None, None
        except (Exception, SystemExit) as exception:
            trial.watch.abandon_segment()
            status, error = _failure(exception), traceback.format_exc()
            cause = _cause(exception, plan.submission.folder)
    return trial.finish(status, error, cause)


def find_finished(plan: TrialPlan, directory: Path) -> TrialRecord | None:
    """Return the record of a trial that has come as far as ``plan`` says, if it is there."""
    path = directory / records.RUN_FILE
    if not path.exists():
        return None
    record = records.read_trial(path)
    return record if max(1, len(record.segments)) > len(plan.segments) else None


class ProcessDiedError(Exception):
    """The process that ran a trial died twice."""


def _cause(exception: BaseException, folder: Path) -> str:
    if isinstance(
        exception, ContractError | ProcessDiedError
    ):  # raised here: says what it is about
        return describe(exception)
    return describe_with_place(exception, folder)


def _failure(exception: BaseException) -> Status:
    if isinstance(exception, ContractError):
        return "invalid"
    if isinstance(exception, MemoryError) or "RESOURCE_EXHAUSTED" in str(exception):
        return "out_of_memory"
    return "crashed"
