"""The state of a running trial: its clock and counters, its rows, its arrays and random streams."""

import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from metaopt.bench import records
from metaopt.bench.contract.bound_submission import BoundSubmission, Trees
from metaopt.bench.contract.facade import Facade
from metaopt.bench.contract.return_values import (
    as_namedtuple,
    ask_batch_size,
    expect_savable,
    signature_of,
)
from metaopt.bench.contract.rng import TrialKeys, step_keys, trial_keys
from metaopt.bench.contract.train_state import fresh_train_state
from metaopt.bench.trial.clock import Clock, Stopwatch
from metaopt.bench.trial.environment import utc_now
from metaopt.bench.trial.evaluation_log import EvaluationLog, as_numbers
from metaopt.bench.trial.meter import Meter
from metaopt.bench.trial.plan import TrialPlan


class TrialState:
    """The state of one running trial. The attributes without a value here are set by :meth:`build`.

    Attributes:
        plan: The plan of the trial.
        directory: The trial's folder.
        watch: Its seconds by purpose.
        meter: What it has spent.
        log: Its evaluation rows.
        eval_results: The rows that the submission sees, with their steps.
        train_state: AlgoPerf's, and ``budget_fraction``, the spent share of the budget.
        shown_train_state: The same, read-only.
        complete: Whether the submission has said that it is done.
        preemptions: How often a killed trial was resumed.
        bound: The submission with everything that stays the same during the trial.
        streams: Its random streams.
        keys: A function from a step to its four random keys.
        queue: The workload's queue of training batches.
        trees: Optimizer state, parameters and model state.
        signature: The structure, shapes and dtypes of the parameters.
        set_up_charged: Gradient evaluations charged for ``init_optimizer_state``.
    """

    bound: BoundSubmission
    streams: TrialKeys
    keys: Callable[[int], Any]
    trees: Trees
    signature: Any
    set_up_charged: float

    def __init__(self, plan: TrialPlan, directory: Path, clock: Clock) -> None:
        self.plan = plan
        self.directory = directory
        self.watch = Stopwatch(clock)
        self.meter = Meter(
            watch=self.watch,
            currency=plan.currency,
            report=getattr(plan.submission.module, "report", None),
            has_episodes=plan.submission.ruleset == "self-tuning",
        )
        self.log = EvaluationLog(directory / records.EVAL_FILE)
        self.eval_results: list[tuple[int, dict[str, Any]]] = []
        self.train_state: dict[str, Any] = fresh_train_state() | {"budget_fraction": 0.0}
        self.shown_train_state = MappingProxyType(self.train_state)
        self.queue: Any = None
        self.started_at = utc_now()
        self.preemptions = 0
        self.complete = False

    def build(self) -> None:
        """Build queue, parameters and optimizer state as they are at the start; touch no file.

        ``init_optimizer_state`` is on the clock, and what it declares is charged.
        """
        workload, module, meter = self.plan.workload, self.plan.submission.module, self.meter
        settings = self.plan.settings
        meter.batch_size = ask_batch_size(module, workload)
        self.bound = BoundSubmission(
            module=module,
            workload=Facade(workload, meter.batch_size, settings.stretched_step_hint),
            hyperparameters=as_namedtuple(settings.hyperparameters),
            wants_train_state=self.plan.submission.wants_train_state,
        )
        meter.reference_batch_size = self.bound.workload.reference_batch_size
        self.streams = trial_keys(settings.seeds.trial)
        self.keys = step_keys(self.streams.steps)
        self.queue = workload._build_input_queue(
            self.streams.data, "train", data_dir="", global_batch_size=meter.batch_size
        )
        params, model_state = workload.init_model_fn(self.streams.model)
        self.signature = signature_of(params)
        self.watch.start_segment()
        optimizer_state = self.bound.init(params, model_state, self.streams.optimizer)
        self.watch.end_segment(optimizer_state[0])
        self._template = jax.tree.map(lambda _: 0, optimizer_state[0])
        self._saved_form = None
        self.expect_savable(optimizer_state, "init_optimizer_state")
        self.trees = optimizer_state, params, model_state
        meter.count_preparation(optimizer_state)
        meter.note_largest(meter.spent())
        self.set_up_charged = meter.gradients

    def expect_savable(self, optimizer_state: Any, by: str) -> None:
        """Check an optimizer state, see :func:`~return_values.expect_savable`, if its form is new.

        At every evaluation, so that no verdict depends on when checkpoints are written.
        """
        leaves, structure = jax.tree.flatten(optimizer_state[0])
        form = (
            structure,
            [(type(leaf), np.shape(leaf), getattr(leaf, "dtype", None)) for leaf in leaves],
        )
        if form != self._saved_form:
            expect_savable(optimizer_state, by, self._template)
            self._saved_form = form

    @property
    def cost(self) -> records.Cost:
        """What the trial has cost so far."""
        return self.meter.cost(self.watch.training)

    def add_row(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Add an evaluation row, and return it: the metrics, and what was spent so far."""
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
        self._show(row)
        return row

    def show_rows(self) -> None:
        """Show the submission all rows of the log, after a checkpoint was restored."""
        for row in self.log.rows:
            self._show(row)

    def _show(self, row: dict[str, Any]) -> None:
        # A copy: a submission that writes into it changes no measurement.
        self.eval_results.append((row["global_step"], dict(row)))
        plan, state = self.plan, self.train_state
        targets = ("validation", plan.settings.target), ("test", plan.settings.test_target)
        for name, target in targets:
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
