"""A study: one full repetition of a contender on a workload, under one budget.

The loop is plain: ask, run, record, tell. Only the trials' records are stored. A killed study is
resumed by asking a new tuner everything again: the segments that are on disk are not run again, and
their outcomes bring the tuner to the state that it had.

The tuner's seconds are charged to the study as the trials' are. The seconds between two segments,
to take one outcome and to decide on the next segment, are charged with the next segment. A segment
that was begun before a kill keeps the tuner seconds that it was begun with.
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
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord, Cost, Status, StudyEnd, StudyRecord, TrialRecord
from metaopt.bench.records.audit import AUDIT_FILE
from metaopt.bench.records.identity import Identity, digest_of
from metaopt.bench.records.outcomes import Reading, outcome_at, read_curve
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import write_audit
from metaopt.bench.trial.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.trial.clock import SystemClock
from metaopt.bench.trial.plan import TrialPlan, derive_seeds, plan_trial
from metaopt.bench.trial.progress import find_tuner_seconds
from metaopt.bench.trial.runner import find_finished, run_trial
from tuning.contenders import Contender
from tuning.identities import claim_study
from tuning.segments import NextSegment, SegmentQueue

_FAILED_TRIALS = 10  # so many trials in a row that cost nothing end a study
_ROUNDING = 1e-9  # of the budget: what sums of fractions may leave over
# How the one trial of the tuner `long` ends its study; all others that leave budget are failures.
_ENDS: Mapping[Status, StudyEnd] = {"target": "target", "completed": "completed"}


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """The settings of a study."""

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
    audited: bool = False  # whether to audit one of its trials


@pinned_randomness()
def run_study(
    plan: StudyPlan,
    logs: Path,
    *,
    on_progress: Callable[[float], None] | None = None,
    **trial_options: Any,
) -> StudyRecord:
    """Run a study to its end; a killed one is resumed.

    Args:
        plan: What to run.
        logs: Folder of the campaign's logs.
        on_progress: Called with the share of the budget that is spent.
        trial_options: Passed to :func:`~metaopt.bench.trial.runner.run_trial` (clock, checkpoints).

    Returns:
        The record that was written to ``study.json``.

    Raises:
        ValueError: The trials on disk do not follow from this plan, or ran with another version of
            a file, which the message names.
    """
    folder = records.study_directory(logs, plan.contender.name, plan.study, plan.workload.name)
    finished = folder / records.STUDY_FILE
    if finished.exists():
        return records.read_study(finished)
    claim_study(folder, plan.identity)
    runner = _Study(plan, folder, on_progress, trial_options)
    record = runner.run()
    for checkpoint in folder.glob(f"trial_*/{CHECKPOINT_FILE}"):  # of trials that stay paused
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
        self.status: Status | None = None  # of the segment that ran last
        self.clock = trial_options.get("clock") or SystemClock()
        self.tuner_seconds = 0.0
        self.deciding = 0.0  # of them, those that are not charged with a segment yet
        self.largest_step = 0.0
        self.largest_decision = 0.0
        seeds = derive_seeds(plan.campaign_seed, plan.workload, plan.study, 1, tuned=True)
        assert seeds.tuner is not None
        self.tuner: Tuner | None = plan.contender.make_tuner(seeds.tuner)
        self.description = self.tuner.describe() if self.tuner else None
        self.digest = digest_of(plan.identity)
        self.search_space = plan.contender.search_space()
        # A self-tuning run is bounded by the study's budget alone. If it ends earlier, another run
        # follows from new seeds, as a tuner's trials do, so that all contenders spend the same.
        is_whole = self.tuner is None or plan.contender.is_long
        trial_budget = plan.limits.study if is_whole else plan.limits.trial
        self.budget = plan.limits.model_copy(update={"trial": trial_budget})
        self.segments = SegmentQueue(trial_budget)
        wanted = plan.audited and not any(folder.glob(f"trial_*/{AUDIT_FILE}"))
        self.recorder = Recorder() if wanted else None  # until a trial is audited
        self.audit_position = secrets.SystemRandom().random()  # in the budget; see docs/rules.md
        self.workload = plan.workload

    def run(self) -> StudyRecord:
        ended = self._run_trials()
        self._audit()  # what ran last, if the study ended before the position
        self._charge_decision(self.deciding)  # since the last segment
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
            segment = self._ask()
            if segment is None:
                return self._end_of_proposals()
            record = self._run_segment(segment)
            if record is None:  # the decision took what was left
                return "budget"
            self._take(segment, record)
            if self.spent.amount(limits.currency) >= self.audit_position * limits.study:
                self._audit()
            if self.failed_trials == _FAILED_TRIALS:
                return "failures"
        return "budget"

    def _end_of_proposals(self) -> StudyEnd:
        """Return why a study ended whose tuner has nothing left to propose."""
        if not self.plan.contender.is_long:
            return "grid_exhausted"
        assert self.status is not None
        return _ENDS.get(self.status, "trial_failed")

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

    def _ask(self) -> NextSegment | None:
        """Ask the tuner for a segment; ``None`` if there are no more."""
        with self._deciding():
            answer = self.tuner.ask() if self.tuner else None
        if self.tuner and answer is None:
            return None
        segment = self.segments.next(answer)
        begun = find_tuner_seconds(self._folder(segment), len(segment.before))
        if begun is not None:
            self.deciding = begun
        return segment

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

    def _take(self, segment: NextSegment, record: TrialRecord) -> None:
        """Charge a segment to the study and tell the tuner its outcome."""
        ran = self.segments.take(segment, record)
        self._charge_decision(ran.tuner_seconds)
        self.spent += ran.cost
        self.trials, self.status = max(self.trials, segment.trial), record.status
        self.largest_step = max(self.largest_step, record.ledger.largest_step)
        if self.tuner:
            with self._deciding():
                self._tell(self.tuner, segment, record)
        if not segment.before:  # a resumed trial may be at its next rung already
            is_free = 0 in (ran.cost.steps, ran.cost.amount(self.budget.currency))
            self.failed_trials = self.failed_trials + 1 if is_free else 0

    def _tell(self, tuner: Tuner, segment: NextSegment, record: TrialRecord) -> None:
        rows = []
        if isinstance(tuner, Observer) or len(record.segments) > 1:
            rows = records.read_evaluations(self._folder(segment) / records.EVAL_FILE)
        outcome = outcome_at(record, len(segment.before), rows)
        if isinstance(tuner, Observer):
            tuner.observe(outcome)
        else:
            tuner.tell(outcome.value)

    def _folder(self, segment: NextSegment) -> Path:
        return self.folder / f"trial_{segment.trial}"

    def _plan_of(self, segment: NextSegment, left: float) -> TrialPlan:
        plan = self.plan
        start = segment.start.amount(self.budget.currency)
        trial = plan_trial(
            plan.contender.submission,
            self.workload,
            allowance=min(self.budget.trial, start + left),
            campaign=plan.campaign,
            contender=plan.contender.name,
            digest=self.digest,
            space=plan.contender.space,
            search_space=self.search_space,
            tuner=self.description,
            study=plan.study,
            trial=segment.trial,
            seeds=derive_seeds(
                plan.campaign_seed,
                plan.workload,
                plan.study,
                segment.trial,
                tuned=self.tuner is not None,
            ),
            hyperparameters=plan.contender.point(segment.point),
            budget=self.budget,
            target=plan.target,
            test_target=plan.test_target,
            stop_at_target=plan.stop_at_target,
            stretched_step_hint=(
                _stretched_step_hint(self.workload, plan.limits) if plan.contender.is_long else None
            ),
        )
        return dataclasses.replace(
            trial,
            spent_before=self.spent + Cost(seconds=self.deciding),
            tuner_seconds=self.deciding,
            pause_at=segment.pause_at,
            segments=segment.before,
        )

    def _run_segment(self, segment: NextSegment) -> TrialRecord | None:
        """Run a segment; ``None`` if no budget is left for it."""
        left = self._left(self.deciding)
        trial, folder = self._plan_of(segment, left), self._folder(segment)
        if not left and not find_finished(trial, folder):
            return None
        self.deciding = 0.0  # it is on the trial's record now
        start = segment.start.amount(trial.currency)
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
        """Return the function that asks the tuner whether to stop a trial after an evaluation."""
        tuner, budget = self.tuner, self.budget
        assert isinstance(tuner, Stopper)
        curve: list[Reading] = []

        def should_stop(rows: Sequence[Mapping[str, Any]]) -> bool:
            with self._deciding():
                curve.extend(read_curve(rows[len(curve) :], trial.settings.target, budget))
                return tuner.should_stop(curve)

        return should_stop

    def _check_record(self, record: TrialRecord, trial: TrialPlan, folder: Path) -> None:
        names, settings = ("seeds", "hyperparameters", "target", "digest"), trial.settings
        found = [getattr(record, name) for name in names]
        found.append(record.segments[len(trial.segments)].rung)
        expected = [*(getattr(settings, name) for name in names), trial.pause_at]
        if found != expected:
            raise ValueError(
                f"{folder} holds another trial than this campaign leads to: {found}, expected "
                f"{expected}. Was it made by another version? Use another output folder."
            )

    def _tell_progress(self, segment_cost: float) -> None:
        if self.on_progress is not None:
            limits = self.plan.limits
            done = self.spent.amount(limits.currency) + segment_cost
            self.on_progress(min(1.0, done / limits.study))


def _stretched_step_hint(workload: Any, limits: BudgetRecord) -> int:
    """Return the workload's step hint, stretched as the study's budget is to one step hint."""
    in_seconds = limits.currency == "seconds"
    hint = workload.max_allowed_runtime_sec if in_seconds else workload.step_hint
    return max(1, round(workload.step_hint * limits.study / hint))
