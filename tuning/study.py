"""A study: one full repetition of a contender on a workload, under one budget.

The loop is plain: ask, run, record, tell. Nothing but the trials' records is stored. A study that
was killed asks a new tuner everything once more, finds what ran of its trials on disk, tells their
values, and so comes to the point where it was, with the tuner in the state that it had.

The tuner's own seconds are spent as the trials' are. What it took since the turn before, to take
its outcome and to decide, goes on the ledger with the next turn; a turn that was begun keeps the
seconds that it was begun with.
"""

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.contract.tuner import Observer, Stopper, Tuner
from metaopt.bench.measure.seeds import derive_seed
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import Cost, StudyEnd, StudyRecord, TrialRecord
from metaopt.bench.records.audit import AUDIT_FILE
from metaopt.bench.records.identity import Identity, digest_of
from metaopt.bench.records.outcomes import Reading, outcome_at, read_curve
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import write_audit
from metaopt.bench.trial.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.trial.clock import SystemClock
from metaopt.bench.trial.plan import TrialPlan
from metaopt.bench.trial.progress import find_tuner_seconds
from metaopt.bench.trial.runner import find_finished, run_trial
from tuning.contenders import Contender
from tuning.identities import claim_study
from tuning.turns import Turn, Turns

_FAILED_TRIALS = 10  # so many trials in a row that took no step end a study
_ROUNDING = 1e-9  # of the budget: what sums of fractions may leave over


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """What a study runs."""

    campaign: str
    campaign_seed: int
    contender: Contender
    workload: Any
    study: int  # from 1
    limits: records.BudgetRecord
    target: Target
    test_target: Target | None
    stop_at_target: bool = True
    identity: Identity = dataclasses.field(default_factory=dict)
    audited: bool = False  # one of its trials is


@pinned_randomness()
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
        trial_options: Passed to :func:`~metaopt.bench.trial.runner.run_trial` (clock, checkpoints).

    Returns:
        The record that was written to ``study.json``.

    Raises:
        ValueError: The trials on disk are not those that this plan leads to, or ran with another
            version of something; names it.
    """
    folder = records.study_directory(logs, plan.contender.name, plan.study, plan.workload.name)
    finished = folder / records.STUDY_FILE
    if finished.exists():
        return records.read_study(finished)
    claim_study(folder, plan.identity)
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
        self.trials = 0
        self.failed_trials = 0  # in a row, without a step
        self.clock = trial_options.get("clock") or SystemClock()
        self.tuner_seconds = 0.0
        self.deciding = 0.0  # of them, what no turn has on the ledger yet
        self.largest_step = 0.0
        self.largest_decision = 0.0
        self.tuner_seed = self._seed("tuner")
        self.tuner: Tuner | None = plan.contender.make_tuner(self.tuner_seed)
        self.description = self.tuner.describe() if self.tuner else None
        self.digest = digest_of(plan.identity)
        self.search_space = plan.contender.search_space()
        self.fixed_batch: int | None = None
        # A self-tuning run is bounded by the study's budget alone. One that ends before it is
        # followed by another from new seeds, as a tuner's trials are: all spend the same.
        self.trial_budget = plan.limits.trial if self.tuner else plan.limits.study
        self.turns = Turns(self.trial_budget)
        wanted = plan.audited and not any(folder.glob(f"trial_*/{AUDIT_FILE}"))
        self.recorder = Recorder() if wanted else None  # until a trial is audited
        self.audit_position = secrets.SystemRandom().random()  # in the budget; see docs/rules.md
        self.workload = plan.workload
        if plan.workload.is_fixed_batch:
            self.fixed_batch = self._seed("fixed_batch")
            self.workload = plan.workload.with_batch_seed(self.fixed_batch)

    def run(self) -> StudyRecord:
        ended = self._run_trials()
        self._audit()  # what ran last, if the study ended before the position
        self._charge_decision(self.deciding)  # on what came last, and on nothing more
        in_seconds = self.plan.limits.currency == "seconds"
        return StudyRecord(
            campaign=self.plan.campaign,
            contender=self.plan.contender.name,
            workload=self.workload.name,
            study=self.plan.study,
            ended=ended,
            trials=self.trials,
            spent=self.spent,
            budget=self.plan.limits,
            tuner_seconds=self.tuner_seconds,
            largest_step=self.largest_step + (self.largest_decision if in_seconds else 0.0),
        )

    def _run_trials(self) -> StudyEnd:
        limits = self.plan.limits
        while self._left() > 0:
            turn = self._ask()
            if turn is None:
                return "grid_exhausted"
            record = self._run_turn(turn)
            if record is None:  # the decision took what was left
                return "budget"
            self._take(turn, record)
            if self.spent.amount(limits.currency) >= self.audit_position * limits.study:
                self._audit()
            if self.failed_trials == _FAILED_TRIALS:
                return "failures"
        return "budget"

    def _audit(self) -> None:
        """Audit the trial that ran last, if this study is audited and none of its trials was."""
        if self.recorder is None or not self.recorder.all_windows():
            return
        write_audit(self.recorder, self.audit_position, self.trial_options.get("stall_seconds"))
        self.recorder = None

    def _left(self, deciding: float = 0.0) -> float:
        """Return what is left of the budget, also after a decision; 0 where it is rounding."""
        limits = self.plan.limits
        spent = self.spent + Cost(seconds=deciding)
        left = limits.study - spent.amount(limits.currency)
        return 0.0 if left <= _ROUNDING * limits.study else left

    def _ask(self) -> Turn | None:
        """Ask for a turn; ``None`` if there are no more."""
        with self._deciding():
            answer = self.tuner.ask() if self.tuner else None
        if self.tuner and answer is None:
            return None
        turn = self.turns.next(answer)
        begun = find_tuner_seconds(self._folder(turn), len(turn.segments))
        if begun is not None:
            self.deciding = begun
        return turn

    @contextlib.contextmanager
    def _deciding(self) -> Iterator[None]:
        """Count the block's time as the tuner's."""
        start = self.clock.now()
        try:
            yield
        finally:
            self.deciding += self.clock.now() - start

    def _charge_decision(self, seconds: float) -> None:
        self.tuner_seconds += seconds
        self.largest_decision = max(self.largest_decision, seconds)
        self.spent += Cost(seconds=seconds)

    def _take(self, turn: Turn, record: TrialRecord) -> None:
        """Put a turn on the study's ledger and tell the tuner how it went."""
        stretch = self.turns.take(turn, record)
        self._charge_decision(stretch.deciding.seconds)
        self.spent += stretch.cost
        self.trials = max(self.trials, turn.trial)
        self.largest_step = max(self.largest_step, record.ledger.largest_step)
        if self.tuner:
            with self._deciding():
                self._tell(self.tuner, turn, record)
        if not turn.segments:  # one that goes on may be at its next rung already
            self.failed_trials = self.failed_trials + 1 if stretch.cost.steps == 0 else 0

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

    def _plan_of(self, turn: Turn, left: float) -> TrialPlan:
        plan, limits = self.plan, self.plan.limits
        start = turn.start.amount(limits.currency)
        seeds = records.Seeds(
            campaign=plan.campaign_seed,
            trial=self._seed("trial", turn.trial),
            tuner=self.tuner_seed if self.tuner else None,
            fixed_batch=self.fixed_batch,
        )
        return TrialPlan(
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
            spent_before=self.spent + Cost(seconds=self.deciding),
            tuner_seconds=self.deciding,
            stop_at_target=plan.stop_at_target,
            pause_at=turn.pause_at,
            segments=turn.segments,
            digest=self.digest,
            search_space=self.search_space,
        )

    def _run_turn(self, turn: Turn) -> TrialRecord | None:
        """Run one turn; ``None`` if nothing is left for it."""
        left = self._left(self.deciding)
        trial, folder = self._plan_of(turn, left), self._folder(turn)
        if not left and not find_finished(trial, folder):
            return None
        self.deciding = 0.0  # it is on the trial's record now
        start = turn.start.amount(trial.currency)
        record = run_trial(
            trial,
            folder,
            on_progress=lambda cost: self._tell_progress(cost - start),
            should_stop=self._watch(trial) if isinstance(self.tuner, Stopper) else None,
            recorder=self.recorder,
            **self.trial_options,
        )
        self._check_record(record, trial, folder)
        self._tell_progress(record.ledger.cost.amount(trial.currency) - start)
        return record

    def _watch(self, trial: TrialPlan) -> Callable[[Sequence[Mapping[str, Any]]], bool]:
        """Return what asks the tuner, after each evaluation of a trial, whether to stop it."""
        tuner, budget = self.tuner, self.plan.limits
        assert isinstance(tuner, Stopper)
        curve: list[Reading] = []

        def should_stop(rows: Sequence[Mapping[str, Any]]) -> bool:
            with self._deciding():
                curve.extend(read_curve(rows[len(curve) :], trial.target, budget))
                return tuner.should_stop(curve)

        return should_stop

    def _check_record(self, record: TrialRecord, trial: TrialPlan, folder: Path) -> None:
        segment = record.segments[len(trial.segments)] if record.segments else None
        found = (
            record.seeds, record.hyperparameters, record.target.target(), record.digest,
            segment and segment.rung,
        )  # fmt: skip
        expected = (
            trial.seeds, trial.hyperparameters, trial.target, trial.digest,
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
