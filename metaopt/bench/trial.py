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
from metaopt.bench.algoperf_files import write_algoperf_files
from metaopt.bench.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.checkpoints import load_checkpoint, save_checkpoint
from metaopt.bench.clock import Clock, Stopwatch
from metaopt.bench.contract import (
    ContractError,
    as_namedtuple,
    ask_batch_size,
    expect_state,
    expect_triple,
    signature_of,
)
from metaopt.bench.environment import describe_environment, utc_now
from metaopt.bench.evaluations import EvaluationLog, as_numbers
from metaopt.bench.failures import describe_divergence, describe_stall, not_finite
from metaopt.bench.meter import Meter
from metaopt.bench.plan import TrialPlan, fingerprint
from metaopt.bench.progress import read_progress_of, write_progress
from metaopt.bench.records import Cost, Status, TrialRecord
from metaopt.bench.results import make_record
from metaopt.bench.rng import step_keys, trial_keys
from metaopt.bench.spec import TrainingCompleteError
from metaopt.bench.stalls import StallWatch, no_beat
from metaopt.bench.train_state import fresh_train_state

PROGRESS_SECONDS = 0.5  # between two words on how far it is
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
    ) -> None:
        self.plan = plan
        self.directory = directory
        self.watch = Stopwatch(clock)
        self.checkpoint_seconds = checkpoint_seconds
        self.on_progress = on_progress
        self.should_stop = should_stop
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
        self.together = 1  # how many trials train in one compiled step
        self._together_before = 1  # in earlier segments
        self.before: dict[str, Any] = {}  # what a killed process left in the progress file
        self._beat: Callable[[], None] = no_beat
        # One entry more than AlgoPerf's: what is spent of the budget, in its currency.
        self._train_state = fresh_train_state() | {"budget_fraction": 0.0}

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

    @property
    def most_together(self) -> int:
        """How many trials trained in one compiled step with this one, itself included, at most."""
        return max(self.together, self._together_before)

    # Set-up, free of charge.

    def set_up(self) -> None:
        """Build queue, parameters and optimizer state; restore a checkpoint if there is one."""
        self.build()
        if self.plan.hyperparameters is not None:
            records.write_json(self.directory / records.HPARAMS_FILE, self.plan.hyperparameters)
        self._restore()
        self.save_progress()
        self._last_checkpoint = self._last_progress = self.watch.clock.now()

    def build(self) -> None:
        """Build queue, parameters and optimizer state as they are at the start; touch no file."""
        plan, workload = self.plan, self.plan.workload
        self.hyperparameters = as_namedtuple(plan.hyperparameters)
        self.batch_size = ask_batch_size(self.module, workload)
        self.meter.reference_batch_size = getattr(workload, "reference_batch_size", self.batch_size)
        streams = trial_keys(plan.seeds.trial)
        self.steps_key = streams.steps
        self.keys = step_keys(streams.steps)
        self.queue: Any = workload._build_input_queue(
            streams.data, "train", data_dir="", global_batch_size=self.batch_size
        )
        self.params, self.model_state = workload.init_model_fn(streams.model)
        self._signature = signature_of(self.params)
        self.optimizer_state = self.module.init_optimizer_state(
            workload, self.params, self.model_state, self.hyperparameters, streams.optimizer
        )
        expect_state(self.optimizer_state, "init_optimizer_state")
        extra = {"train_state": MappingProxyType(self._train_state)}
        self._extra_arguments = extra if plan.submission.wants_train_state else {}
        self._types = workload.model_params_types
        self._eval_results: list[tuple[int, dict[str, Any]]] = []

    def check_progress(self) -> None:
        """Read what a killed process left behind, and see that it ran the same trial."""
        self.before = read_progress_of(self.plan, self.directory)

    def _restore(self) -> None:
        before = self.before
        trees, facts = self._load_checkpoint()
        if facts:
            self.params, self.model_state = trees["params"], trees["model_state"]
            self.optimizer_state = (trees["optimizer_state"], *self.optimizer_state[1:])
            self.queue.seek(facts.pop("queue_position"))
            for name, seconds in facts.pop("watch").items():
                setattr(self.watch, name, seconds)
            self.meter.restore(facts.pop("meter"))
            self.started_at = facts.pop("started_at")
            self.preemptions = facts.pop("preemptions", 0)
            self.lost_seconds = facts.pop("lost_seconds", 0.0)
            self._together_before = facts.pop("together", 1)
            self._eval_results = [(row["global_step"], dict(row)) for row in self.log.rows]
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
            trees, facts = load_checkpoint(path, self._trees())
            self.log.restore(facts.pop("rows"))
            return trees, facts
        except (ValueError, TypeError, KeyError):
            # Of another version of the submission, say. From its start the trial comes to the same
            # numbers; what is lost goes on the ledger.
            return {}, {}

    # The loop.

    def run(self) -> Status:
        """Train and evaluate until one of the ends, or the pause."""
        next_evaluation = self.next_evaluation()
        while not self.is_at_pause():
            self.watch.start_segment()
            self._train_until(min(next_evaluation, self.plan.allowance))
            over_time = (
                self.plan.currency == "seconds" and self.meter.spent() >= self.plan.allowance
            )
            if not over_time:  # with a budget in seconds there is no evaluation beyond it
                row = self._evaluate()
                status = self.verdict(row)
                if status is not None:
                    return status
            if self.complete:
                return "completed"
            if (status := self.end_of_budget()) is not None:
                return status
            if not self.is_at_pause():
                if self.should_stop is not None and self.should_stop(self.log.rows):
                    return "pruned"
                self._maybe_checkpoint()
                next_evaluation = self.next_evaluation()
        self.write_checkpoint()
        return "paused"

    def end_of_budget(self) -> Status | None:
        """Return which budget the trial has spent, if it has."""
        if self.meter.spent() < self.plan.allowance:
            return None
        return "trial_budget" if self.plan.allowance >= self.plan.trial_budget else "study_budget"

    def is_at_pause(self) -> bool:
        """Return whether the trial has come to its next rung."""
        return self.plan.pause_at is not None and self.meter.spent() >= self.plan.pause_at

    def _train_until(self, stop: float) -> None:
        """Take steps until ``stop`` is spent (at least one), then wait for the device."""
        plan, module, meter, extra = self.plan, self.module, self.meter, self._extra_arguments
        workload, hyperparameters = plan.workload, self.hyperparameters
        optimizer_state, params, model_state = self.optimizer_state, self.params, self.model_state
        in_seconds = plan.currency == "seconds"
        until_sync = synced = self._until_sync(None, 0)
        while True:
            self._beat()
            step, before = meter.steps, meter.spent()
            running = self.watch.running(), self.watch.compiled()
            select_key, update_key, prepare_key, eval_key = self.keys(step)
            batch = module.data_selection(
                workload, self.queue, optimizer_state, params, model_state, hyperparameters, step,
                select_key,
            )  # fmt: skip
            if extra:
                self._train_state["budget_fraction"] = before / plan.horizon
                self._train_state["accumulated_submission_time"] = running[0]
                self._train_state["last_step_end_time"] = time.time()
            try:
                returned = module.update_params(
                    workload=workload,
                    current_param_container=params,
                    current_params_types=self._types,
                    model_state=model_state,
                    hyperparameters=hyperparameters,
                    batch=batch,
                    loss_type=workload.loss_type,
                    optimizer_state=optimizer_state,
                    eval_results=self._eval_results,
                    global_step=step,
                    rng=update_key,
                    **extra,
                )
            except TrainingCompleteError:
                self.complete = True
                break
            optimizer_state, params, model_state = expect_triple(returned, "update_params")
            if in_seconds:  # a clock that runs ahead of the device would end late
                until_sync -= 1
                if until_sync <= 0:
                    jax.block_until_ready((params, model_state))
                    until_sync = synced = self._until_sync(running[0], synced)
            meter.count_step(optimizer_state, batch, running)
            meter.note_largest(before)
            if meter.spent() >= stop:
                break
        self._evaluation_keys = prepare_key, eval_key
        self.optimizer_state, self.params, self.model_state = optimizer_state, params, model_state
        if hasattr(module, "prepare_for_eval"):
            returned = module.prepare_for_eval(
                workload=workload,
                current_param_container=params,
                current_params_types=self._types,
                model_state=model_state,
                hyperparameters=hyperparameters,
                loss_type=workload.loss_type,
                optimizer_state=optimizer_state,
                eval_results=self._eval_results,
                global_step=meter.steps,
                rng=prepare_key,
            )
            self.optimizer_state, self.params, self.model_state = expect_triple(
                returned, "prepare_for_eval"
            )
            meter.count_preparation(self.optimizer_state)
        expect_state(self.optimizer_state, "update_params")
        self.watch.end_segment((self.params, self.model_state, self.optimizer_state[0]))
        if signature_of(self.params) != self._signature:
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

    def next_evaluation(self) -> float:
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
                self.params,
                self.model_state,
                self._evaluation_keys[1],
                "",
                "",
                self.meter.steps,
            )
        row = self.note(metrics)
        now = watch.clock.now()
        if now - self._last_progress >= PROGRESS_SECONDS:
            with watch.measure("logging"):
                self.save_progress()
            self._last_progress = now
            if self.on_progress is not None:
                self.on_progress(self.meter.cost(watch.training).amount(plan.currency))
        return row

    def note(self, metrics: dict[str, Any]) -> dict[str, Any]:
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
        self._eval_results.append((self.meter.steps, dict(row)))
        self._update_train_state(row)
        return row

    def _update_train_state(self, row: dict[str, Any]) -> None:
        plan, state = self.plan, self._train_state
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

    def verdict(self, row: dict[str, Any]) -> Status | None:
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

    def _trees(self) -> dict[str, Any]:
        return {
            "params": self.params,
            "model_state": self.model_state,
            "optimizer_state": self.optimizer_state[0],
        }

    def _maybe_checkpoint(self) -> None:
        if self.watch.clock.now() - self._last_checkpoint >= self.checkpoint_seconds:
            self.write_checkpoint()

    def write_checkpoint(self) -> None:
        """Keep everything that the trial goes on from."""
        with self.watch.measure("logging"):
            self.log.flush()
            save_checkpoint(self.directory / CHECKPOINT_FILE, self._trees(), self._facts())
        self._last_checkpoint = self.watch.clock.now()

    def _facts(self) -> dict[str, Any]:
        seconds = ("training", "compilation", "evaluation", "logging")
        return {
            "rows": len(self.log.rows),
            "started_at": self.started_at,
            "preemptions": self.preemptions,
            "lost_seconds": self.lost_seconds,
            "together": self.most_together,
            "meter": self.meter.facts(),
            "watch": {name: getattr(self.watch, name) for name in seconds},
            "queue_position": self.queue.position,
        }

    def save_progress(self) -> None:
        """Leave behind what a killed process would otherwise take with it."""
        progress = {
            "training_seconds": self.watch.training,
            "lost_seconds": self.lost_seconds,
            "preemptions": self.preemptions,
            "together": self.together,
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
