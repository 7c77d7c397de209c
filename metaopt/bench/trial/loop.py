"""The training loop of a trial: one submission on one workload, in AlgoPerf's order of calls.

step             data_selection, update_params             timed
evaluation       when due: prepare_for_eval (timed), eval_model (not timed), a row (not timed)
end              target met, budget spent, submission done, stopped by its tuner, or failure
pause            at a rung of its tuner: a checkpoint stays, and a later call continues from it
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from metaopt.bench import records
from metaopt.bench.contract.facade import CountedQueue
from metaopt.bench.contract.return_values import (
    ContractError,
    expect_state,
    signature_of,
)
from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.records import Status
from metaopt.bench.records.failures import not_finite
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.resuming import Checkpointer
from metaopt.bench.trial.state import TrialState

_PROGRESS_SECONDS = 0.5  # between two calls of `on_progress`
_SYNCS = 10  # in an evaluation period of a budget in seconds, at least

OnProgress = Callable[[float], None]
ShouldStop = Callable[[Sequence[Mapping[str, Any]]], bool]


class TrialLoop:
    """Trains and evaluates a trial until it ends or pauses.

    Args:
        state: The trial, built and restored.
        checkpointer: Saves it.
        beat: Called at every step and evaluation.
        on_progress: Called with the cost so far at evaluations, at most twice a second.
        should_stop: Asked after each evaluation whether to prune the trial.
        recorder: Records what an audit of the trial needs.
    """

    def __init__(
        self,
        state: TrialState,
        checkpointer: Checkpointer,
        *,
        beat: Callable[[], None],
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._state = state
        self._plan = state.plan
        self._budget = state.plan.settings.budget
        self._meter = state.meter
        self._watch = state.watch
        self._checkpointer = checkpointer
        self._beat = beat
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._recorder = recorder
        self._in_seconds = state.plan.currency == "seconds"
        self._last_progress = state.watch.clock.now()
        self._queue = CountedQueue(state.queue, self._on_batch)
        if recorder is not None:
            recorder.attach(state, from_its_start=state.meter.steps == 0)

    def run(self) -> Status:
        """Train and evaluate; return how the trial ended, or ``"paused"``."""
        status = self._run()
        if self._recorder is not None:
            self._recorder.end(self._state.trees)
        return status

    def _run(self) -> Status:
        next_evaluation = self._next_evaluation()
        while not self._is_at_pause():
            self._watch.start_segment()
            self._train_until(min(next_evaluation, self._plan.allowance))
            over_time = self._in_seconds and self._meter.spent() >= self._plan.allowance
            if not over_time:  # with a budget in seconds there is no evaluation beyond it
                row = self._evaluate()
                if self._recorder is not None:
                    self._recorder.after_evaluation()
                status = self._verdict(row)
                if status is not None:
                    return status
            if self._state.complete:
                return "completed"
            if (status := self._end_of_budget()) is not None:
                return status
            if not self._is_at_pause():
                if self._should_stop is not None and self._should_stop(self._state.log.rows):
                    return "pruned"
                self._checkpointer.save_if_due()
                next_evaluation = self._next_evaluation()
        self._checkpointer.save()
        return "paused"

    def _end_of_budget(self) -> Status | None:
        """Return which budget the trial has spent, if it has."""
        allowance = self._plan.allowance
        if self._meter.spent() < allowance:
            return None
        return "trial_budget" if allowance >= self._budget.trial else "study_budget"

    def _is_at_pause(self) -> bool:
        """Return whether the trial has come to its next rung."""
        return self._plan.pause_at is not None and self._meter.spent() >= self._plan.pause_at

    def _next_evaluation(self) -> float:
        """Return the cost at which the next evaluation is due: a multiple of the period, a rung."""
        if self._in_seconds and not self._state.log.rows:
            return 0.0  # AlgoPerf evaluates after the first step
        spent = self._watch.training if self._in_seconds else self._meter.spent()
        period = self._budget.eval_period
        multiple = (math.floor(spent / period * (1 + 1e-12)) + 1) * period
        return min([multiple, *(rung for rung in self._plan.rungs if rung > spent)])

    # Training.

    def _on_batch(self, batch: Any) -> None:
        self._meter.count_batch()
        if self._recorder is not None:
            self._recorder.on_batch(batch)

    def _train_until(self, stop: float) -> None:
        """Take steps until ``stop`` is spent (at least one), then wait for the device."""
        state, meter, recorder = self._state, self._meter, self._recorder
        bound, train_state = state.bound, state.train_state
        until_sync = synced = 1
        trees, spent = state.trees, meter.spent()
        while True:
            self._beat()
            if recorder is not None:
                recorder.before_step(trees)
            step = meter.steps
            meter.begin_step()
            if bound.wants_train_state:
                train_state["budget_fraction"] = spent / self._plan.horizon
                train_state["accumulated_submission_time"] = self._watch.running()
                train_state["last_step_end_time"] = time.time()
            select_key, update_key, prepare_key, eval_key = state.keys(step)
            batch = bound.select(self._queue, trees, step, select_key)
            try:
                trees = bound.update(
                    batch, trees, step, update_key, state.eval_results, state.shown_train_state
                )
            except TrainingCompleteError:
                state.complete = True
                break
            if self._in_seconds:  # a clock that runs ahead of the device would end late
                until_sync -= 1
                if until_sync <= 0:
                    jax.block_until_ready(trees[1:])
                    until_sync = synced = self._until_sync(spent, synced, stop)
            episode = meter.episode
            meter.count_step(trees[0])
            before, spent = spent, meter.spent()
            meter.note_largest(spent - before)
            if recorder is not None:
                recorder.after_step(trees, restarted=meter.episode != episode)
            if spent >= stop:
                break
        self._evaluation_key = eval_key
        if recorder is not None:
            recorder.before_evaluation(trees, step)
        if bound.prepares:
            spent = meter.spent()
            trees = bound.prepare(trees, meter.steps, prepare_key, state.eval_results)
            meter.count_preparation(trees[0])
            meter.note_largest(meter.spent() - spent)
        expect_state(trees[0], "update_params")
        state.expect_savable(trees[0], "update_params")
        state.trees = trees
        self._watch.end_segment((trees[0][0], *trees[1:]))
        if signature_of(trees[1]) != state.signature:
            raise ContractError("update_params changed the structure, shapes or dtypes of params.")

    def _until_sync(self, since: float, steps: int, stop: float) -> int:
        """Return the number of steps to queue before waiting for the device; small at first.

        Args:
            since: The submission's time when the last step before this wait began, in seconds.
            steps: The number of steps queued.
            stop: The submission's time at which training stops.
        """
        now = self._watch.running()
        last = max(now - since, 1e-9)  # of the last step and the queued ones
        most = min(self._budget.eval_period / _SYNCS, stop - now)
        return max(1, min(2 * steps, int(most / last)))

    # Evaluation.

    def _evaluate(self) -> dict[str, Any]:
        workload, watch = self._plan.workload, self._watch
        self._beat()
        with watch.measure("evaluation"):
            metrics = workload.eval_model(
                workload.eval_batch_size,
                *self._state.trees[1:],
                self._evaluation_key,
                "",
                "",
                self._meter.steps,
            )
        row = self._state.add_row(metrics)
        now = watch.clock.now()
        if self._on_progress is not None and now - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now
            self._on_progress(self._state.cost.amount(self._plan.currency))
        return row

    def _verdict(self, row: dict[str, Any]) -> Status | None:
        """Return how an evaluation ends the trial, if it does."""
        settings = self._plan.settings
        value = row.get(settings.target.metric)
        if value is None:
            raise ContractError(
                f"The workload reports no {settings.target.metric!r}, only "
                f"{sorted(name for name in row if '/' in name)}."
            )
        within = records.row_cost(row).amount(self._plan.currency) <= self._plan.allowance
        if settings.stop_at_target and within and settings.target.is_met(value):
            return "target"
        # What learns over episodes may recover from a bad one: only a deployed run has diverged.
        if self._meter.phase != "learning" and not_finite(row):
            return "diverged"
        return None
