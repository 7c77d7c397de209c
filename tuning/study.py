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
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metaopt.bench import records
from metaopt.bench.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.clock import SystemClock
from metaopt.bench.plan import TrialPlan
from metaopt.bench.progress import find_tuner_seconds
from metaopt.bench.records import Cost, StudyEnd, StudyRecord, TrialRecord
from metaopt.bench.runner import find_finished, run_trial
from metaopt.bench.seeds import derive_seed
from metaopt.bench.targets import Target
from metaopt.bench.together import run_together
from metaopt.bench.tuner import Ahead, Observer, Reading, Stopper, Tuner, outcome_at, read_curve
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
    together: bool = False  # trials that wait for no result train in one compiled step


class Asked(NamedTuple):
    """A turn that the tuner asks for, and the seconds that it has taken since the one before."""

    turn: Turn
    seconds: float


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
        trial_options: Passed to :func:`~metaopt.bench.runner.run_trial` (clock, checkpoints) and
            :func:`~metaopt.bench.together.run_together`.

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
        self.trials = 0
        self.free_trials = 0  # in a row
        self.clock = trial_options.get("clock") or SystemClock()
        self.tuner_seconds = 0.0
        self.deciding = 0.0  # of them, what no turn has on the ledger yet
        self.largest_step = 0.0
        self.largest_decision = 0.0
        self.tuner_seed = self._seed("tuner")
        self.tuner: Tuner | None = plan.contender.make_tuner(self.tuner_seed)
        self.description = self.tuner.describe() if self.tuner else None
        self.search_space = plan.contender.search_space()
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
            budget=self.budget,
            tuner_seconds=self.tuner_seconds,
            largest_step=self.largest_step + (self.largest_decision if in_seconds else 0.0),
        )

    def _run_trials(self) -> StudyEnd:
        while self._left() > 0:
            asked = self._ask()
            if not asked:
                return "grid_exhausted"
            took_any = False
            for turn, record in self._run(asked):
                self._take(turn, record)
                took_any = True
                if self.free_trials == _FREE_TRIALS:
                    return "failures"
            if not took_any:  # the decision took what was left
                return "budget"
        return "budget"

    def _left(self, deciding: float = 0.0) -> float:
        """Return what is left of the budget, also after a decision; 0 where it is rounding."""
        limits = self.plan.limits
        spent = self.spent + Cost(seconds=deciding)
        left = limits.study - spent.amount(limits.currency)
        return 0.0 if left <= _ROUNDING * limits.study else left

    def _ask(self) -> list[Asked]:
        """Ask for one turn, or for as many as can train together; none if there are no more.

        Those are turns that wait for no result and that the budget pays for whatever comes out.
        """
        asked = self._ask_once()
        while asked and len(asked) + 1 <= self._certain(asked[0].turn) and self._is_ready():
            more = self._ask_once()
            if not more:
                break
            asked += more
        return asked

    def _ask_once(self) -> list[Asked]:
        with self._deciding():
            answer = self.tuner.ask() if self.tuner else None
        if self.tuner and answer is None:
            return []
        turn = self.turns.next(answer)
        begun = find_tuner_seconds(self._folder(turn), len(turn.segments))
        seconds = self.deciding if begun is None else begun
        self.deciding = 0.0
        return [Asked(turn, seconds)]

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

    def _certain(self, turn: Turn) -> float:
        """Return how many turns like this one the budget is enough for."""
        end = self.trial_budget if turn.pause_at is None else turn.pause_at
        cost = end - turn.start.amount(self.plan.limits.currency)
        return self._left() * (1 + _ROUNDING) / cost

    def _is_ready(self) -> bool:
        return (
            self.plan.together
            and self.plan.limits.currency != "seconds"
            and self.plan.contender.submission.trains_together
            and isinstance(self.tuner, Ahead)
            and self.tuner.ready() >= 1
        )

    def _run(self, asked: list[Asked]) -> Iterator[tuple[Turn, TrialRecord]]:
        """Run what was asked for, as far as the budget goes, in its order."""
        with contextlib.closing(self._run_together(asked)) as together:
            for index, (turn, seconds) in enumerate(asked):
                record = next(together, None) or self._run_turn(turn, seconds)
                if record is None:
                    self.deciding += sum(later.seconds for later in asked[index:])
                    return
                yield turn, record

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
            free = stretch.cost.amount(self.plan.limits.currency) == 0
            self.free_trials = self.free_trials + 1 if free else 0

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

    def _plan_of(self, turn: Turn, left: float, tuner_seconds: float) -> TrialPlan:
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
            spent_before=self.spent + Cost(seconds=tuner_seconds),
            tuner_seconds=tuner_seconds,
            stop_at_target=plan.stop_at_target,
            pause_at=turn.pause_at,
            segments=turn.segments,
            search_space=self.search_space,
        )

    def _run_turn(self, turn: Turn, tuner_seconds: float) -> TrialRecord | None:
        """Run one turn; ``None`` if nothing is left for it."""
        left = self._left(tuner_seconds)
        trial, folder = self._plan_of(turn, left, tuner_seconds), self._folder(turn)
        if not left and not find_finished(trial, folder):
            return None
        start = turn.start.amount(trial.currency)
        record = run_trial(
            trial,
            folder,
            on_progress=lambda cost: self._tell_progress(cost - start),
            should_stop=self._watch(trial) if isinstance(self.tuner, Stopper) else None,
            **self.trial_options,
        )
        self._check_record(record, trial, folder)
        self._tell_progress(record.ledger.cost.amount(trial.currency) - start)
        return record

    def _run_together(self, asked: list[Asked]) -> Generator[TrialRecord]:
        if len(asked) == 1:
            return
        # The budget is enough for all of them, so each may spend a whole trial's.
        trials = [self._plan_of(turn, math.inf, seconds) for turn, seconds in asked]
        folders = [self._folder(turn) for turn, _ in asked]
        found = run_together(
            trials,
            folders,
            spent=lambda: self.spent,
            on_progress=self._tell_progress,
            **self.trial_options,
        )
        with contextlib.closing(found):
            for record, trial, folder in zip(found, trials, folders, strict=False):
                self._check_record(record, trial, folder)
                yield record

    def _watch(self, trial: TrialPlan) -> Callable[[Sequence[Mapping[str, Any]]], bool]:
        """Return what asks the tuner, after each evaluation of a trial, whether to stop it."""
        tuner, budget = self.tuner, self.budget
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
