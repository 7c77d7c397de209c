"""Trials that do not wait for each other's results train together, in one compiled step.

The step is the submission's own over the trials' hyperparameters, parameters, batches and keys, as
``jax.vmap`` has it; :func:`~metaopt.bench.stacked.over_lanes` says how it runs where. It compiles
once for any number of points. Seeds, data order, initial parameters, evaluations and ends are those
of :func:`~metaopt.bench.runner.run_trial`; the numbers are its numbers to rounding. What cannot
train together is run by it, one trial after another.

The ledger is that of trials that were run one after another. A trial that ends early, at its target
say, stays in the step until all are done: what it computes there is thrown away and charged to
nobody. A chunk that was killed is run again.
"""

import dataclasses
import math
import os
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax

from metaopt.bench.clock import Clock, SystemClock, compilation_seconds
from metaopt.bench.meter import Meter
from metaopt.bench.plan import TrialPlan
from metaopt.bench.progress import mark_died, read_progress, write_progress
from metaopt.bench.records import Cost, Status, TrialRecord
from metaopt.bench.runner import find_finished, run_trial
from metaopt.bench.stacked import (
    Apart,
    Programs,
    Trees,
    bytes_of_step,
    programs_for,
    split_points,
    stack,
    unstack,
)
from metaopt.bench.stalls import StallWatch, no_beat
from metaopt.bench.trial import PROGRESS_SECONDS, Trial

DEFAULT_BYTES = 2**30
_SAVE_SECONDS = 10.0  # between notes of what a kill would lose
_ROUNDING = 1e-9  # of the budget: what sums of fractions may leave over
_TOLERANCE = 1e-3  # of a count that a compiled step keeps in 32 bits


def run_together(
    plans: Sequence[TrialPlan],
    directories: Sequence[Path],
    *,
    spent: Callable[[], Cost],
    limit_bytes: float = DEFAULT_BYTES,
    clock: Clock | None = None,
    on_progress: Callable[[float], None] | None = None,
    stall_seconds: float | None = None,
    **trial_options: Any,
) -> Generator[TrialRecord]:
    """Run trials of one study that do not wait for each other's results.

    Args:
        plans: In the order in which they are charged.
        directories: The trials' folders. What has come far enough there is returned as it is.
        spent: Returns what the study has spent, the trials that were yielded before included.
        limit_bytes: So much memory may the trials of one chunk take, by the upper bound
            :func:`~metaopt.bench.stacked.bytes_of_step`. Where two do not fit, none train together.
        clock: Where seconds come from; the machine's by default.
        on_progress: Told what the trials at work have cost since they began here, in the budget's
            currency.
        stall_seconds: After so long without a step **the process ends**, with exit code 1; when
            they are run again the trials run one after another, and the one that does not return
            is found.
        trial_options: For trials that run one after another, see
            :func:`~metaopt.bench.runner.run_trial`.

    Yields:
        The trials' records as ``run_trial`` would have returned them, up to the first trial whose
        allowance is more than what is left of the study's budget when its turn comes.

    Raises:
        ValueError: A folder holds an unfinished trial of another plan.
    """
    pairs = list(zip(plans, directories, strict=True))
    width = _width(pairs, limit_bytes)
    for start in range(0, len(pairs), width):
        chunk = _Chunk(pairs[start : start + width], width, clock or SystemClock())
        try:
            trained = len(chunk.pairs) > 1 and chunk.train(on_progress, stall_seconds)
            for index, (plan, directory) in enumerate(chunk.pairs):
                if not _fits(plan, spent()):
                    chunk.forget()
                    return
                if trained and (trial := chunk.trials[index]) is not None:
                    yield chunk.finish(trial, spent())
                else:
                    yield run_trial(
                        _behind(spent(), plan),
                        directory,
                        clock=clock,
                        on_progress=_since_start(plan, on_progress),
                        stall_seconds=stall_seconds,
                        **trial_options,
                    )
        except GeneratorExit:  # nobody wants the rest; after a kill it is run again
            chunk.forget()
            raise


def _behind(spent: Cost, plan: TrialPlan) -> TrialPlan:
    """Return the plan with its place on the ledger: behind what was spent, and its decision."""
    return dataclasses.replace(plan, spent_before=spent + Cost(seconds=plan.tuner_seconds))


def _fits(plan: TrialPlan, spent: Cost) -> bool:
    """Return whether what is left of the study's budget is enough for all of the trial's turn."""
    end = plan.allowance if plan.pause_at is None else min(plan.allowance, plan.pause_at)
    left = plan.study_budget - spent.amount(plan.currency)
    return end - _start_of(plan) <= left + _ROUNDING * plan.study_budget


def _since_start(
    plan: TrialPlan, on_progress: Callable[[float], None] | None
) -> Callable[[float], None] | None:
    if on_progress is None:
        return None
    return lambda cost: on_progress(cost - _start_of(plan))


def _start_of(plan: TrialPlan) -> float:
    return plan.segments[-1].end.amount(plan.currency) if plan.segments else 0.0


def _width(pairs: Sequence[tuple[TrialPlan, Path]], limit_bytes: float) -> int:
    """Return how many of the trials are to train at once; 1 if they cannot.

    All chunks have the same width, so the step compiles once; it depends on nothing but the plans,
    so a study that is resumed gets the same chunks.
    """
    if not _can_share_a_step(pairs):
        return 1
    try:
        size = _bytes_of_trial(*pairs[0])
    except Exception:  # run_trial says what is wrong with it
        return 1
    fitting = int(limit_bytes // size)
    if fitting < 2:
        return 1
    return math.ceil(len(pairs) / math.ceil(len(pairs) / fitting))


def _can_share_a_step(pairs: Sequence[tuple[TrialPlan, Path]]) -> bool:
    plan = pairs[0][0]
    submission = plan.submission
    return (
        len(pairs) > 1
        and submission.trains_together
        and submission.ruleset == "external"
        and not submission.wants_train_state
        and hasattr(plan.workload, "eval_models")
        and plan.currency != "seconds"
        and jax.device_count() == 1
        and all(_goes_with(plan, other) for other, _ in pairs)
        and not any(_is_to_run_alone(directory) for _, directory in pairs)
    )


def _goes_with(plan: TrialPlan, other: TrialPlan) -> bool:
    """Return whether two trials are evaluated and end at the same costs, on the same problem."""
    same = ("currency", "allowance", "trial_budget", "eval_period", "pause_at", "stop_at_target")
    return (
        plan.submission is other.submission
        and plan.workload is other.workload
        and plan.target == other.target
        and plan.rungs == other.rungs
        and all(getattr(plan, name) == getattr(other, name) for name in same)
    )


def _is_to_run_alone(directory: Path) -> bool:
    before = read_progress(directory)
    return before.get("apart", False) or before.get("died", False)


_sizes: dict[Any, int] = {}  # by submission and workload; values of hyperparameters do not matter


def _bytes_of_trial(plan: TrialPlan, directory: Path) -> int:
    key = plan.submission, plan.workload
    if key not in _sizes:
        _sizes[key] = _measure_trial(plan, directory)
    return _sizes[key]


def _measure_trial(plan: TrialPlan, directory: Path) -> int:
    trial = _make_trial(plan, directory, SystemClock())
    trial.build()
    numbers, _ = split_points([plan.hyperparameters])
    one = _programs([trial]).one
    batch = next(trial.queue)
    if numbers is not None:
        numbers = {name: values[0] for name, values in numbers.items()}
    return bytes_of_step(one, _trees_of(trial), numbers, batch, trial.steps_key, 0)


def _make_trial(plan: TrialPlan, directory: Path, clock: Clock) -> Trial:
    return Trial(plan, directory, clock, math.inf, None, None)


def _trees_of(trial: Trial) -> Trees:
    return Trees(trial.optimizer_state[0], trial.params, trial.model_state)


def _programs(trials: Sequence[Trial]) -> Programs:
    plan, function = trials[0].plan, trials[0].optimizer_state[1]
    if any(trial.optimizer_state[1] is not function for trial in trials):
        raise Apart("the trials have different steps: something in their points is static")
    points = [trial.plan.hyperparameters for trial in trials]
    _, shared = split_points(points)
    return programs_for(
        plan.submission.module,
        plan.workload,
        function,
        None if points[0] is None else tuple(points[0]),
        tuple((shared or {}).items()),
    )


class _Chunk:
    """Trials in the lanes of one step.

    A lane whose trial had finished before, and those that are left over, repeat the first trial
    that has not: so the program and a trial's place in it are the same when a chunk is run again.
    """

    def __init__(self, pairs: Sequence[tuple[TrialPlan, Path]], width: int, clock: Clock) -> None:
        self.pairs = pairs
        self.width = width
        self.clock = clock
        self.trials: list[Trial | None] = []  # by lane; None had finished before
        self.statuses: dict[int, Status] = {}  # of those that have ended, by lane
        self.finished: set[int] = set()  # whose record is written
        self.beat: Callable[[], None] = no_beat

    def train(
        self, on_progress: Callable[[float], None] | None, stall_seconds: float | None = None
    ) -> bool:
        """Train all to their ends; return False, and leave nothing behind, if that is impossible.

        Whatever goes wrong, ``run_trial`` says it of the trial that it comes from.
        """
        try:
            for plan, directory in self.pairs:
                found = find_finished(plan, directory)
                self.trials.append(None if found else self._set_up(plan, directory))
            if any(self.trials):
                self._start()
                with self._watch_for_stalls(stall_seconds):
                    while len(self.statuses) < len(self._present()):
                        self._train_until_evaluation()
                        self._evaluate()
                        self._tell_progress(on_progress)
                self._keep_paused()
        except Exception:
            self.forget()
            return False
        return True

    def _watch_for_stalls(self, seconds: float | None) -> AbstractContextManager[Any]:
        """Return what ends the process when no step is taken, so that each runs alone then."""
        if seconds is None:
            return nullcontext()

        def end_process(stack: traceback.StackSummary) -> None:
            folders = [trial.directory for trial in self._present().values()]
            for folder in folders:
                mark_died(folder)
            print(
                f"{''.join(stack.format())}{folders[0].parent}: {len(folders)} trials that trained "
                f"together took no step within {seconds:g} s. They will run one after another.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)

        stalls = StallWatch(seconds, end_process)
        self.beat = stalls.beat
        return stalls

    def finish(self, trial: Trial, spent: Cost) -> TrialRecord:
        """Write the files of a trial that has trained, with its place on the study's ledger."""
        lane = self.trials.index(trial)
        trial.plan = _behind(spent, trial.plan)
        status = self.statuses[lane]
        if status == "paused":
            trial.write_checkpoint()
        self.finished.add(lane)
        return trial.finish(status, None)

    def forget(self) -> None:
        """Leave the folders of trials without a record as they were found."""
        for lane, trial in enumerate(self.trials):
            if trial is None or lane in self.finished:
                continue
            write_progress(trial.directory, trial.before)
        self.trials = []

    def _set_up(self, plan: TrialPlan, directory: Path) -> Trial:
        trial = _make_trial(plan, directory, self.clock)
        trial.check_progress()
        trial.together = len(self.pairs)
        trial.set_up()
        return trial

    def _present(self) -> dict[int, Trial]:
        return {lane: trial for lane, trial in enumerate(self.trials) if trial is not None}

    def _live(self) -> dict[int, Trial]:
        present = self._present()
        return {lane: trial for lane, trial in present.items() if lane not in self.statuses}

    def _start(self) -> None:
        present = self._present()
        self.lead = next(iter(present.values()))
        lanes = [present.get(lane, self.lead) for lane in range(self.width)]
        if len({trial.meter.steps for trial in lanes}) > 1:
            raise Apart("the trials are at different steps")
        self.programs = _programs(lanes)
        self.numbers, _ = split_points([trial.plan.hyperparameters for trial in lanes])
        self.trees = Trees(*map(stack, zip(*map(_trees_of, lanes), strict=True)))
        self.keys = stack([trial.steps_key for trial in lanes])
        self.batches = type(self.lead.queue).side_by_side([trial.queue for trial in lanes])
        self.meter = Meter(
            watch=self.lead.watch,
            currency=self.lead.plan.currency,
            report=None,
            has_episodes=False,
            reference_batch_size=self.lead.meter.reference_batch_size,
        )
        self.meter.restore(self.lead.meter.facts())
        self.first_steps = self.meter.steps
        self.checked = False
        self.last_progress = self.last_save = self.clock.now()

    def _train_until_evaluation(self) -> None:
        """Take steps until an evaluation is due, and charge the trials that are at work."""
        start, compiled = self.clock.now(), compilation_seconds()
        plan, meter, trees, shared = self.lead.plan, self.meter, self.trees, self.batches.is_shared
        step = self.programs.step_on_shared if shared else self.programs.step
        stop = min(self._next_evaluation(), plan.allowance)
        while True:
            self.beat()
            batch, before = next(self.batches), meter.spent()
            trees = step(trees, self.numbers, batch, self.keys, meter.steps)
            meter.count_step(None, batch if shared else _member_shapes(batch), (0.0, 0.0))
            meter.note_largest(before)
            if meter.spent() >= stop:
                break
        if self.programs.prepare is not None:
            trees = self.programs.prepare(trees, self.numbers, self.keys, meter.steps)
        self.trees = jax.block_until_ready(trees)
        self._check_count()
        self._charge(self.clock.now() - start, compilation_seconds() - compiled)

    def _next_evaluation(self) -> float:
        trial = next(iter(self._live().values()))
        return trial.next_evaluation()

    def _check_count(self) -> None:
        """See once that the submission, if it declares its cost, declares what was counted."""
        report = self.lead.meter.report
        if report is None or self.checked:
            return
        lane = self.trials.index(self.lead)
        state, function = self.lead.optimizer_state
        said = report((unstack(self.trees.optimizer_state, lane, state), function))
        counted = self.meter.gradients
        if abs(float(said["gradient_evaluations"]) - counted) > _TOLERANCE * counted or (
            said["episode"],
            said["phase"],
        ) != (self.lead.meter.episode, self.lead.meter.phase):
            raise Apart("the submission declares another cost than that of its examples")
        self.checked = True

    def _charge(self, seconds: float, compilation: float) -> None:
        """Share the seconds of a stretch; the first trial at work pays for what was compiled."""
        compilation = min(compilation, seconds)
        share = (seconds - compilation) / len(self.pairs)
        for index, trial in enumerate(self._live().values()):
            trial.meter.restore(self.meter.facts())
            trial.watch.training += share
            if index == 0:
                trial.watch.training += compilation
                trial.watch.compilation += compilation

    def _evaluate(self) -> None:
        self.beat()
        start = self.clock.now()
        found = self.lead.plan.workload.eval_models(
            self.trees.params, self.trees.model_state, self.width
        )
        share = (self.clock.now() - start) / len(self.pairs)
        for lane, trial in self._live().items():
            trial.watch.evaluation += share
            status = trial.verdict(trial.note(found[lane])) or self._end_of(trial)
            if status is not None:
                self.statuses[lane] = status

    def _end_of(self, trial: Trial) -> Status | None:
        return trial.end_of_budget() or ("paused" if trial.is_at_pause() else None)

    def _keep_paused(self) -> None:
        """Give the trials that go on some day what they go on from."""
        for lane, trial in self._present().items():
            if self.statuses[lane] != "paused":
                continue
            member = unstack(self.trees, lane, _trees_of(trial))
            trial.optimizer_state = member.optimizer_state, trial.optimizer_state[1]
            trial.params, trial.model_state = member.params, member.model_state
            trial.queue.seek(trial.queue.position + self.meter.steps - self.first_steps)

    def _tell_progress(self, on_progress: Callable[[float], None] | None) -> None:
        now = self.clock.now()
        if now - self.last_save >= _SAVE_SECONDS:
            self.last_save = now
            for trial in self._live().values():
                trial.save_progress()
        if now - self.last_progress >= PROGRESS_SECONDS and on_progress is not None:
            self.last_progress = now
            present = self._present().values()
            on_progress(sum(trial.meter.spent() - _start_of(trial.plan) for trial in present))


def _member_shapes(batch: Any) -> Any:
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape[1:], array.dtype), batch)
