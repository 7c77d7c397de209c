"""A running trial: one submission on one workload, in AlgoPerf's order of calls.

rng streams      as AlgoPerf splits them, from the trial's seed
step             data_selection, update_params             timed
evaluation       when due: prepare_for_eval (timed), eval_model (not timed), records (not timed)
end              target met, budget spent, submission done, stopped by its tuner, or failure
pause            at a rung of its tuner: the checkpoint stays, and a later call goes on from it
"""

import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from metaopt.bench import records
from metaopt.bench.contract.bound_submission import BoundSubmission, Trees
from metaopt.bench.contract.facade import CountedQueue, Facade
from metaopt.bench.contract.return_values import (
    ContractError,
    as_namedtuple,
    ask_batch_size,
    expect_savable,
    expect_state,
    signature_of,
)
from metaopt.bench.contract.rng import step_keys, trial_keys
from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.contract.train_state import fresh_train_state
from metaopt.bench.records import Cost, Status, TrialRecord
from metaopt.bench.records.algoperf_files import write_algoperf_files
from metaopt.bench.records.failures import describe_divergence, describe_stall, not_finite
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.trial.checkpoints import load_checkpoint, save_checkpoint
from metaopt.bench.trial.clock import Clock, Stopwatch
from metaopt.bench.trial.environment import describe_environment, utc_now
from metaopt.bench.trial.evaluation_log import EvaluationLog, as_numbers
from metaopt.bench.trial.meter import Meter
from metaopt.bench.trial.plan import TrialPlan, fingerprint
from metaopt.bench.trial.progress import read_progress_of, write_progress
from metaopt.bench.trial.results import make_record
from metaopt.bench.trial.stalls import StallWatch, no_beat

_PROGRESS_SECONDS = 0.5  # between two words on how far it is
_SYNCS = 10  # in an evaluation period of a budget in seconds, at least

ShouldStop = Callable[[Sequence[Mapping[str, Any]]], bool]


class Trial:
    """The state of one running trial."""

    def __init__(
        self,
        plan: TrialPlan,
        directory: Path,
        clock: Clock,
        checkpoint_seconds: float,
        on_progress: Callable[[float], None] | None,
        should_stop: ShouldStop | None,
        recorder: Recorder | None = None,
    ) -> None:
        self.plan = plan
        self.directory = directory
        self.watch = Stopwatch(clock)
        self.checkpoint_seconds = checkpoint_seconds
        self.on_progress = on_progress
        self.should_stop = should_stop
        self.recorder = recorder
        self.module = plan.submission.module
        self.meter = Meter(
            watch=self.watch,
            currency=plan.currency,
            report=getattr(self.module, "report", None),
            has_episodes=plan.submission.ruleset == "self-tuning",
        )
        self.batch_size = 0
        self.started_at = utc_now()
        # What a checkpoint holds besides the pytrees and the meter.
        self.log = EvaluationLog(directory / records.EVAL_FILE)
        self.preemptions = 0
        self.lost_seconds = 0.0
        self.complete = False
        self.before: dict[str, Any] = {}  # what a killed process left in the progress file
        self._beat: Callable[[], None] = no_beat
        # One entry more than AlgoPerf's: what is spent of the budget, in its currency.
        self.train_state = fresh_train_state() | {"budget_fraction": 0.0}
        self._shown_train_state = MappingProxyType(self.train_state)

    @property
    def died(self) -> bool:
        """Whether this trial is known to have killed its process."""
        return self.before.get("died", False)

    def watch_for_stalls(self, seconds: float | None) -> AbstractContextManager[Any]:
        """Return what ends the process when no step is taken for ``seconds``, and records it."""
        if seconds is None:
            return nullcontext()

        def end_process(stack: traceback.StackSummary) -> None:
            self.watch.abandon_segment()
            cause = describe_stall(seconds, stack, self.plan.submission.folder)
            record = self.finish("stalled", f"{''.join(stack.format())}{cause}", cause)
            print(f"{self.directory}: {record.status}. {cause}", file=sys.stderr, flush=True)
            os._exit(1)

        stalls = StallWatch(seconds, end_process)
        self._beat = stalls.beat
        return stalls

    # Set-up, free of charge.

    def set_up(self) -> None:
        """Build queue, parameters and optimizer state; restore a checkpoint if there is one."""
        self._build()
        if self.plan.hyperparameters is not None:
            records.write_json(self.directory / records.HPARAMS_FILE, self.plan.hyperparameters)
        self._restore()
        self._save_progress()
        if self.recorder is not None:
            self.recorder.attach(self, from_its_start=self.meter.steps == 0)
        self._last_checkpoint = self._last_progress = self.watch.clock.now()

    def _build(self) -> None:
        """Build queue, parameters and optimizer state as they are at the start; touch no file.

        ``init_optimizer_state`` is on the clock, and what it declares is charged.
        """
        plan, workload = self.plan, self.plan.workload
        self.batch_size = self.meter.batch_size = ask_batch_size(self.module, workload)
        self.bound = BoundSubmission(
            module=self.module,
            workload=Facade(workload, self.batch_size),
            hyperparameters=as_namedtuple(plan.hyperparameters),
            wants_train_state=plan.submission.wants_train_state,
        )
        self.meter.reference_batch_size = self.bound.workload.reference_batch_size
        self.streams = trial_keys(plan.seeds.trial)
        self.keys = step_keys(self.streams.steps)
        self.queue: Any = workload._build_input_queue(
            self.streams.data, "train", data_dir="", global_batch_size=self.batch_size
        )
        self._counted_queue = CountedQueue(self.queue, self._on_batch)
        params, model_state = workload.init_model_fn(self.streams.model)
        self._signature = signature_of(params)
        self.watch.start_segment()
        state = self.bound.init(params, model_state, self.streams.optimizer)
        self.watch.end_segment(state[0])
        expect_savable(state, "init_optimizer_state")
        self.trees: Trees = state, params, model_state
        self.meter.count_preparation(state)
        self.meter.note_largest(0.0)
        self.set_up_charged = self.meter.gradients
        self.eval_results: list[tuple[int, dict[str, Any]]] = []

    def _on_batch(self, batch: Any) -> None:
        self.meter.count_batch()
        if self.recorder is not None:
            self.recorder.on_batch(batch)

    def check_progress(self) -> None:
        """Read what a killed process left behind, and see that it ran the same trial."""
        self.before = read_progress_of(self.plan, self.directory)

    def _restore(self) -> None:
        before = self.before
        trees, facts = self._load_checkpoint()
        if facts:
            state = trees["optimizer_state"], self.trees[0][1]
            self.trees = state, trees["params"], trees["model_state"]
            self.queue.seek(facts.pop("queue_position"))
            for name, seconds in facts.pop("watch").items():
                setattr(self.watch, name, seconds)
            self.meter.restore(facts.pop("meter"))
            self.started_at = facts.pop("started_at")
            self.preemptions = facts.pop("preemptions", 0)
            self.lost_seconds = facts.pop("lost_seconds", 0.0)
            self.eval_results = [(row["global_step"], dict(row)) for row in self.log.rows]
            for row in self.log.rows:
                self._update_train_state(row)
        elif self.plan.segments:  # without its checkpoint it trains again to where it had paused
            self.lost_seconds = self.plan.segments[-1].end.seconds
        if before:
            self.preemptions = before["preemptions"] + 1
            self.lost_seconds = before["lost_seconds"]
            self.lost_seconds += max(0.0, before["training_seconds"] - self.watch.training)

    def _load_checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a checkpoint's trees and facts; nothing if there is none that can be read."""
        path = self.directory / CHECKPOINT_FILE
        if not path.exists():
            return {}, {}
        try:
            trees, facts = load_checkpoint(path, self._trees_by_name())
            self.log.restore(facts.pop("rows"))
            return trees, facts
        except (ValueError, TypeError, KeyError):
            # Of another version of the submission, say. From its start the trial comes to the same
            # numbers; what is lost goes on the ledger.
            return {}, {}

    # The loop.

    def run(self) -> Status:
        """Train and evaluate until one of the ends, or the pause."""
        status = self._run()
        if self.recorder is not None:
            self.recorder.end(self.trees)
        return status

    def _run(self) -> Status:
        next_evaluation = self._next_evaluation()
        while not self._is_at_pause():
            self.watch.start_segment()
            self._train_until(min(next_evaluation, self.plan.allowance))
            over_time = (
                self.plan.currency == "seconds" and self.meter.spent() >= self.plan.allowance
            )
            if not over_time:  # with a budget in seconds there is no evaluation beyond it
                row = self._evaluate()
                status = self._verdict(row)
                if status is not None:
                    return status
            if self.complete:
                return "completed"
            if (status := self._end_of_budget()) is not None:
                return status
            if not self._is_at_pause():
                if self.should_stop is not None and self.should_stop(self.log.rows):
                    return "pruned"
                self._maybe_checkpoint()
                next_evaluation = self._next_evaluation()
        self._write_checkpoint()
        return "paused"

    def _end_of_budget(self) -> Status | None:
        """Return which budget the trial has spent, if it has."""
        if self.meter.spent() < self.plan.allowance:
            return None
        return "trial_budget" if self.plan.allowance >= self.plan.trial_budget else "study_budget"

    def _is_at_pause(self) -> bool:
        """Return whether the trial has come to its next rung."""
        return self.plan.pause_at is not None and self.meter.spent() >= self.plan.pause_at

    def _train_until(self, stop: float) -> None:
        """Take steps until ``stop`` is spent (at least one), then wait for the device."""
        meter, bound, recorder = self.meter, self.bound, self.recorder
        in_seconds = self.plan.currency == "seconds"
        until_sync = synced = self._until_sync(None, 0)
        trees = self.trees
        while True:
            self._beat()
            if recorder is not None:
                recorder.before_step(trees)
            step, spent, before = meter.steps, meter.spent(), meter.before_step()
            select_key, update_key, prepare_key, eval_key = self.keys(step)
            batch = bound.select(self._counted_queue, trees, step, select_key)
            if bound.wants_train_state:
                self.train_state["budget_fraction"] = spent / self.plan.horizon
                self.train_state["accumulated_submission_time"] = before.seconds
                self.train_state["last_step_end_time"] = time.time()
            try:
                trees = bound.update(
                    batch, trees, step, update_key, self.eval_results, self._shown_train_state
                )
            except TrainingCompleteError:
                self.complete = True
                break
            if in_seconds:  # a clock that runs ahead of the device would end late
                until_sync -= 1
                if until_sync <= 0:
                    jax.block_until_ready(trees[1:])
                    until_sync = synced = self._until_sync(before.seconds, synced)
            episode = meter.episode
            meter.count_step(trees[0], before)
            meter.note_largest(spent)
            if recorder is not None:
                recorder.after_step(trees, restarted=meter.episode != episode)
            if meter.spent() >= stop:
                break
        self._evaluation_keys = prepare_key, eval_key
        if recorder is not None:
            recorder.before_evaluation(trees)
        if bound.prepares:
            spent = meter.spent()
            trees = bound.prepare(trees, meter.steps, prepare_key, self.eval_results)
            meter.count_preparation(trees[0])
            meter.note_largest(spent)
        expect_state(trees[0], "update_params")
        if not self.log.rows:  # whether or not the trial is long enough for a checkpoint
            expect_savable(trees[0], "update_params")
        self.trees = trees
        self.watch.end_segment((trees[0][0], *trees[1:]))
        if signature_of(trees[1]) != self._signature:
            raise ContractError("update_params changed the structure, shapes or dtypes of params.")

    def _until_sync(self, since: float | None, steps: int) -> int:
        """Return how many steps may be queued before the device is waited for: few at first.

        Args:
            since: When the last step before this wait began, in seconds of the submission.
            steps: How many steps were queued.
        """
        if since is None:
            return 1
        last = max(self.watch.running() - since, 1e-9)  # of the last step and what was queued
        return max(1, min(2 * steps, int(self.plan.eval_period / _SYNCS / last)))

    def _next_evaluation(self) -> float:
        """Return the cost at which the next evaluation is due: a multiple of the period, a rung."""
        if self.plan.currency == "seconds" and not self.log.rows:
            return 0.0  # AlgoPerf evaluates after the first step
        spent = self.watch.training if self.plan.currency == "seconds" else self.meter.spent()
        period = self.plan.eval_period
        multiple = (math.floor(spent / period * (1 + 1e-12)) + 1) * period
        return min([multiple, *(rung for rung in self.plan.rungs if rung > spent)])

    # Evaluation.

    def _evaluate(self) -> dict[str, Any]:
        plan, watch = self.plan, self.watch
        self._beat()
        with watch.measure("evaluation"):
            metrics = plan.workload.eval_model(
                plan.workload.eval_batch_size,
                *self.trees[1:],
                self._evaluation_keys[1],
                "",
                "",
                self.meter.steps,
            )
        row = self._note(metrics)
        now = watch.clock.now()
        if now - self._last_progress >= _PROGRESS_SECONDS:
            with watch.measure("logging"):
                self._save_progress()
            self._last_progress = now
            if self.on_progress is not None:
                self.on_progress(self.meter.cost(watch.training).amount(plan.currency))
        return row

    def _note(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Add an evaluation row: the metrics, and what was spent so far."""
        watch = self.watch
        self.meter.read_restarts()
        row = {
            **as_numbers(metrics),
            **self.meter.columns(),
            "accumulated_submission_time": watch.training,
            "accumulated_eval_time": watch.evaluation,
            "accumulated_logging_time": watch.logging,
            "score": watch.training,
            "total_duration": watch.training + watch.evaluation + watch.logging,
            "preemption_count": self.preemptions,
            "compilation_seconds": watch.compilation,
        }
        self.log.append(row)
        # The submission's copy: what it writes into it is not what was measured.
        self.eval_results.append((self.meter.steps, dict(row)))
        self._update_train_state(row)
        return row

    def _update_train_state(self, row: dict[str, Any]) -> None:
        plan, state = self.plan, self.train_state
        for name, target in (("validation", plan.target), ("test", plan.test_target)):
            if target is not None and target.is_met(records.metric_of(row, target.metric)):
                state[f"{name}_goal_reached"] = True
        spent = records.row_cost(row).amount(plan.currency)
        state |= {
            "is_time_remaining": spent < plan.allowance,
            "last_eval_time": time.time(),
            "training_complete": self.complete,
            "accumulated_submission_time": row["accumulated_submission_time"],
            "accumulated_eval_time": row["accumulated_eval_time"],
            "accumulated_logging_time": row["accumulated_logging_time"],
        }

    def _verdict(self, row: dict[str, Any]) -> Status | None:
        """Return how an evaluation ends the trial, if it does."""
        value = row.get(self.plan.target.metric)
        if value is None:
            raise ContractError(
                f"The workload reports no {self.plan.target.metric!r}, only "
                f"{sorted(name for name in row if '/' in name)}."
            )
        within = records.row_cost(row).amount(self.plan.currency) <= self.plan.allowance
        if self.plan.stop_at_target and within and self.plan.target.is_met(value):
            return "target"
        # What learns over episodes may recover from a bad one: only a deployed run has diverged.
        if self.meter.phase != "learning" and not_finite(row):
            return "diverged"
        return None

    # Files.

    def _trees_by_name(self) -> dict[str, Any]:
        state, params, model_state = self.trees
        return {"params": params, "model_state": model_state, "optimizer_state": state[0]}

    def _maybe_checkpoint(self) -> None:
        if self.watch.clock.now() - self._last_checkpoint >= self.checkpoint_seconds:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        """Keep everything that the trial goes on from."""
        expect_savable(self.trees[0], "update_params")
        with self.watch.measure("logging"):
            self.log.flush()
            save_checkpoint(self.directory / CHECKPOINT_FILE, self._trees_by_name(), self._facts())
        self._last_checkpoint = self.watch.clock.now()

    def _facts(self) -> dict[str, Any]:
        seconds = ("training", "compilation", "evaluation", "logging")
        return {
            "rows": len(self.log.rows),
            "started_at": self.started_at,
            "preemptions": self.preemptions,
            "lost_seconds": self.lost_seconds,
            "meter": self.meter.facts(),
            "watch": {name: getattr(self.watch, name) for name in seconds},
            "queue_position": self.queue.position,
        }

    def _save_progress(self) -> None:
        """Leave behind what a killed process would otherwise take with it."""
        progress = {
            "training_seconds": self.watch.training,
            "lost_seconds": self.lost_seconds,
            "preemptions": self.preemptions,
            "tuner_seconds": self.plan.tuner_seconds,
            "plan": fingerprint(self.plan),
        }
        write_progress(self.directory, progress)

    def finish(self, status: Status, error: str | None, cause: str | None = None) -> TrialRecord:
        """Write the trial's files, ``run.json`` last, and return its record.

        Args:
            status: How the trial ended.
            error: The traceback, if something was raised.
            cause: Why it failed, on one line; found here if it diverged.
        """
        plan, watch = self.plan, self.watch
        if status == "diverged":
            cause = describe_divergence(self.log.rows[-1])
        cost = self._cost_so_far()
        with watch.measure("logging"):
            self.log.flush()
            environment = describe_environment()
            write_algoperf_files(
                self.directory,
                workload=plan.workload,
                submission=plan.submission.name,
                ruleset=plan.submission.ruleset,
                seed=plan.seeds.trial,
                batch_size=self.batch_size,
                environment=environment,
            )
        record = make_record(self, status, error, cause, cost, environment)
        records.write_json(self.directory / records.RUN_FILE, record)
        if status != "paused":
            (self.directory / CHECKPOINT_FILE).unlink(missing_ok=True)
        write_progress(self.directory, {})
        return record

    def _cost_so_far(self) -> Cost:
        cost, segments = self.meter.cost(self.watch.training), self.plan.segments
        if not segments or segments[-1].end.steps <= cost.steps:
            return cost
        # It failed on the way back to where it had paused: what was paid and seen there stays.
        with suppress(ValueError):
            self.log.restore(segments[-1].evaluations)
        return segments[-1].end
