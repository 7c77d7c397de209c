"""The runner: one trial, run to its end or its next pause, and a record whatever happens.

With a budget in steps or gradient evaluations nothing here depends on a clock: a trial that was
killed and resumed gives the numbers of an unbroken one. See :mod:`metaopt.bench.trial.resuming`
for the seconds that a resumed trial is charged.
"""

import traceback
from pathlib import Path

from metaopt.bench import records
from metaopt.bench.contract.return_values import ContractError
from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.records import Status, TrialRecord
from metaopt.bench.records.failures import describe, describe_stall, describe_with_place
from metaopt.bench.records.layout import STALL_FILE
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.clock import Clock, SystemClock
from metaopt.bench.trial.loop import OnProgress, ShouldStop, TrialLoop
from metaopt.bench.trial.plan import TrialPlan
from metaopt.bench.trial.progress import begin_segment
from metaopt.bench.trial.results import finish
from metaopt.bench.trial.resuming import Checkpointer, restore, restore_counters
from metaopt.bench.trial.stalls import read_stall, watch_for_stalls
from metaopt.bench.trial.state import TrialState

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
    on_progress: OnProgress | None = None,
    stall_seconds: float | None = None,
    should_stop: ShouldStop | None = None,
    recorder: Recorder | None = None,
) -> TrialRecord:
    """Run a trial to its end or its next pause; a killed one continues from its checkpoint.

    Args:
        plan: The trial and its next segment.
        directory: The trial's folder. If the segment has run already, its record is returned.
        clock: The source of seconds; the machine's by default.
        checkpoint_seconds: The least time between checkpoints, which are written at evaluations.
            It grows to 30 times the duration of the last write.
        on_progress: Called with the cost so far, in the budget's currency, at most twice a second.
        stall_seconds: The limit for a step or an evaluation. After it **the process ends**, with
            exit code 1, because nothing else stops code that does not return. The next call for
            the trial records it as stalled, at the cost of its last checkpoint. ``None``: no limit.
        should_stop: Called with all rows so far after each evaluation that did not end the trial;
            ``True`` prunes it.
        recorder: Records the windows for an audit of the trial.

    Returns:
        The record that was written to ``run.json``. Its status names what the submission did wrong.

    Raises:
        ValueError: The folder holds an unfinished trial of another plan.
    """
    found = find_finished(plan, directory)
    if found is not None:
        return found
    progress = begin_segment(plan, directory)
    state = TrialState(plan, directory, clock or SystemClock())
    state.started_at, state.preemptions = progress["started_at"], progress["preemptions"]
    if (stall := read_stall(directory / STALL_FILE)) is not None:
        restore_counters(state)
        seconds, stacks = stall
        return finish(
            state, "stalled", stacks, describe_stall(seconds, stacks, plan.submission.folder)
        )
    if progress.get("died"):
        restore_counters(state)
        return finish(state, "crashed", _DIED, _DIED)
    with watch_for_stalls(stall_seconds, directory / STALL_FILE) as beat:
        try:
            if plan.settings.hyperparameters is not None:
                records.write_json(directory / records.HPARAMS_FILE, plan.settings.hyperparameters)
            state.build()
            restore(state)
            loop = TrialLoop(
                state,
                Checkpointer(state, checkpoint_seconds),
                beat=beat,
                on_progress=on_progress,
                should_stop=should_stop,
                recorder=recorder,
            )
            status, error, cause = loop.run(), None, None
        except (Exception, SystemExit) as exception:
            state.watch.abandon_segment()
            status, error = _failure(exception), traceback.format_exc()
            cause = _cause(exception, plan.submission.folder)
    return finish(state, status, error, cause)


def find_finished(plan: TrialPlan, directory: Path) -> TrialRecord | None:
    """Return the record of a trial whose next segment in ``plan`` has run, if it is there."""
    path = directory / records.RUN_FILE
    if not path.exists():
        return None
    record = records.read_trial(path)
    return record if len(record.segments) > len(plan.segments) else None


def _cause(exception: BaseException, folder: Path) -> str:
    if isinstance(exception, ContractError):  # raised by the runner: its message names the function
        return describe(exception)
    return describe_with_place(exception, folder)


def _failure(exception: BaseException) -> Status:
    if isinstance(exception, ContractError):
        return "invalid"
    if isinstance(exception, MemoryError) or "RESOURCE_EXHAUSTED" in str(exception):
        return "out_of_memory"
    return "crashed"
