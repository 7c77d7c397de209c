"""A study: one full repetition of a contender on a workload, under one budget.

The loop is plain: ask, run, record, tell. Nothing but the trials' records is stored. A study that
was killed asks a new tuner everything once more, finds what ran of its trials on disk, tells their
values, and so comes to the point where it was, with the tuner in the state that it had.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.plan import TrialPlan
from metaopt.bench.records import Cost, StudyEnd, StudyRecord, TrialRecord
from metaopt.bench.runner import run_trial
from metaopt.bench.seeds import derive_seed
from metaopt.bench.targets import Target
from metaopt.bench.tuner import Observer, Reading, Stopper, Tuner, outcome_at, read_curve
from tuning.campaign import Limits
from tuning.contenders import Contender
from tuning.turns import Turn, Turns

_FREE_TRIALS = 10  # so many trials in a row that cost nothing end a study: it would never end
_ROUNDING = 1e-9  # of the budget: what sums of fractions may leave over


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """What a study runs."""

    campaign: str
    campaign_seed: int
    contender: Contender
    workload: Any
    study: int  # from 1
    limits: Limits
    target: Target
    test_target: Target | None
    stop_at_target: bool = True


def run_study(
    plan: StudyPlan,
    logs: Path,
    *,
    on_progress: Callable[[float], None] | None = None,
    **trial_options: Any,
) -> StudyRecord:
    """Run a study to its end, or go on with it.

    Args:
        plan: What to run.
        logs: Folder of the campaign's logs.
        on_progress: Told the share of the budget that is spent.
        trial_options: Passed to :func:`~metaopt.bench.runner.run_trial` (clock, checkpoints).

    Returns:
        The record that was written to ``study.json``.

    Raises:
        ValueError: The trials on disk are not those that this plan leads to.
    """
    folder = records.study_directory(logs, plan.contender.name, plan.study, plan.workload.name)
    finished = folder / records.STUDY_FILE
    if finished.exists():
        return records.read_study(finished)
    runner = _Study(plan, folder, on_progress, trial_options)
    record = runner.run()
    for checkpoint in folder.glob(f"trial_*/{CHECKPOINT_FILE}"):  # of trials that nobody resumed
        checkpoint.unlink()
    records.write_json(finished, record)
    return record


class _Study:
    def __init__(
        self,
        plan: StudyPlan,
        folder: Path,
        on_progress: Callable[[float], None] | None,
        trial_options: dict[str, Any],
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.on_progress = on_progress
        self.trial_options = trial_options
        self.spent = Cost()
        self.tuner_seconds = 0.0
        self.largest_step = 0.0
        self.tuner_seed = self._seed("tuner")
        self.tuner: Tuner | None = plan.contender.make_tuner(self.tuner_seed)
        self.description = self.tuner.describe() if self.tuner else None
        self.fixed_batch: int | None = None
        # A self-tuning run is bounded by the study's budget alone. One that ends before it is
        # followed by another from new seeds, as a tuner's trials are: all spend the same.
        self.trial_budget = plan.limits.trial if self.tuner else plan.limits.study
        self.budget = records.BudgetRecord(**dataclasses.asdict(plan.limits))
        self.turns = Turns(self.trial_budget)
        self.workload = plan.workload
        if plan.workload.is_fixed_batch:
            self.fixed_batch = self._seed("fixed_batch")
            self.workload = plan.workload.with_batch_seed(self.fixed_batch)

    def run(self) -> StudyRecord:
        ended = self._run_trials()
        return StudyRecord(
            campaign=self.plan.campaign,
            contender=self.plan.contender.name,
            workload=self.workload.name,
            study=self.plan.study,
            ended=ended,
            trials=self.turns.trials,
            spent=self.spent,
            budget=self.budget,
            tuner_seconds=self.tuner_seconds,
            largest_step=self.largest_step,
        )

    def _run_trials(self) -> StudyEnd:
        limits = self.plan.limits
        free_trials = 0
        while True:
            left = limits.study - self.spent.amount(limits.currency)
            if left <= _ROUNDING * limits.study:
                return "budget"
            start = time.perf_counter()
            answer = self.tuner.ask() if self.tuner else None
            deciding = time.perf_counter() - start
            if self.tuner and answer is None:
                return "grid_exhausted"
            turn = self.turns.next(answer)
            record = self._run_turn(turn, left, deciding)
            cost, deciding = self.turns.take(turn, record)
            self.spent += cost
            self.tuner_seconds += deciding
            self.largest_step = max(self.largest_step, record.ledger.largest_step)
            if self.tuner:
                start = time.perf_counter()
                self._tell(self.tuner, turn, record)
                self.tuner_seconds += time.perf_counter() - start
            if not turn.segments:  # one that goes on may be at its next rung already
                free_trials = free_trials + 1 if cost.amount(limits.currency) == 0 else 0
            if free_trials == _FREE_TRIALS:
                return "failures"

    def _tell(self, tuner: Tuner, turn: Turn, record: TrialRecord) -> None:
        needs_rows = isinstance(tuner, Observer) or record.segments
        rows = (
            records.read_evaluations(self._folder(turn) / records.EVAL_FILE) if needs_rows else []
        )
        outcome = outcome_at(record, len(turn.segments), rows)
        if isinstance(tuner, Observer):
            tuner.observe(outcome)
        else:
            tuner.tell(outcome.value)

    def _folder(self, turn: Turn) -> Path:
        return self.folder / f"trial_{turn.trial}"

    def _run_turn(self, turn: Turn, left: float, tuner_seconds: float) -> TrialRecord:
        plan, limits = self.plan, self.plan.limits
        start = turn.start.amount(limits.currency)
        seeds = records.Seeds(
            campaign=plan.campaign_seed,
            trial=self._seed("trial", turn.trial),
            tuner=self.tuner_seed if self.tuner else None,
            fixed_batch=self.fixed_batch,
        )
        trial = TrialPlan(
            campaign=plan.campaign,
            contender=plan.contender.name,
            submission=plan.contender.submission,
            space=plan.contender.space,
            tuner=self.description,
            workload=self.workload,
            study=plan.study,
            trial=turn.trial,
            seeds=seeds,
            hyperparameters=plan.contender.point(turn.point),
            currency=limits.currency,
            study_budget=limits.study,
            trial_budget=self.trial_budget,
            allowance=min(self.trial_budget, start + left),
            eval_period=limits.eval_period,
            target=plan.target,
            test_target=plan.test_target,
            spent_before=self.spent,
            tuner_seconds=tuner_seconds,
            stop_at_target=plan.stop_at_target,
            pause_at=turn.pause_at,
            segments=turn.segments,
        )
        folder = self._folder(turn)
        record = run_trial(
            trial,
            folder,
            on_progress=lambda cost: self._tell_progress(cost - start),
            should_stop=self._watch(trial) if isinstance(self.tuner, Stopper) else None,
            **self.trial_options,
        )
        self._check_record(record, trial, folder)
        self._tell_progress(record.ledger.cost.amount(limits.currency) - start)
        return record

    def _watch(self, trial: TrialPlan) -> Callable[[Sequence[Mapping[str, Any]]], bool]:
        """Return what asks the tuner, after each evaluation of a trial, whether to stop it."""
        tuner, budget = self.tuner, self.budget
        assert isinstance(tuner, Stopper)
        curve: list[Reading] = []

        def should_stop(rows: Sequence[Mapping[str, Any]]) -> bool:
            start = time.perf_counter()
            curve.extend(read_curve(rows[len(curve) :], trial.target, budget))
            stop = tuner.should_stop(curve)
            self.tuner_seconds += time.perf_counter() - start
            return stop

        return should_stop

    def _check_record(self, record: TrialRecord, trial: TrialPlan, folder: Path) -> None:
        segment = record.segments[len(trial.segments)] if record.segments else None
        found = (
            record.seeds, record.hyperparameters, record.target.target(), record.digest,
            segment and segment.rung,
        )  # fmt: skip
        expected = (
            trial.seeds, trial.hyperparameters, trial.target, trial.submission.digest,
            trial.pause_at,
        )  # fmt: skip
        if found != expected:
            raise ValueError(
                f"{folder} holds another trial than this campaign leads to: {found}, expected "
                f"{expected}. Was it made by another version? Use another output folder."
            )

    def _tell_progress(self, turn_cost: float) -> None:
        if self.on_progress is not None:
            limits = self.plan.limits
            done = self.spent.amount(limits.currency) + turn_cost
            self.on_progress(min(1.0, done / limits.study))

    def _seed(self, purpose: Any, trial: int | None = None) -> int:
        plan = self.plan
        return derive_seed(plan.campaign_seed, plan.workload.name, plan.study, purpose, trial)
