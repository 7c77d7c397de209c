"""Recordings of a running trial for its audit: its state at a few moments, and the next steps.

A *window* is a copy of the trial's state, the batches and evaluations of the next steps, and the
parameters at its end. These are recorded, outside the clock:

    start        the first steps of the trial
    sampled      steps at a random offset in an evaluation period; two, each period equally likely
                 and the one of the period that was slowest for what it was charged
    evaluation   steps from just before an evaluation; one, each evaluation equally likely
    restart      steps around the beginning of an episode; one, the last with probability 1/2, the
                 one before with 1/4, ...: the last decides what a run costs given tuned

After each evaluation a few steps of AdamW are timed, outside the clock as well: the time factor
compares what ran side by side, so that another load on the machine slows both.
"""

import dataclasses
import random
from typing import Any, Literal

import jax

from metaopt.bench.trial.audits.host_copies import arrays_of, to_host
from metaopt.bench.trial.audits.reference import Reference
from metaopt.bench.trial.state import TrialState

STEPS = 8  # in a window
_SAMPLED = 2
_NEWER = 0.5  # probability that a restart takes the place of the one before
_ROLLING = 32  # steps between the states that a restart could be run again from
_MOST_BYTES = 2**30  # of batches in a window: the step that reaches it is the window's last

Kind = Literal["start", "sampled", "evaluation", "restart"]


@dataclasses.dataclass(frozen=True)
class Step:
    """A call of ``data_selection`` and of ``update_params``."""

    index: int  # global_step
    results: int  # how many evaluations the submission had seen
    train_state: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A call of ``prepare_for_eval``."""

    index: int  # steps taken
    keys: int  # the step whose random keys it takes
    results: int


@dataclasses.dataclass(eq=False)
class Window:
    """A few steps of a trial, with everything needed to run them again.

    Attributes:
        first_step: Steps of the trial before it.
        before: Optimizer state (its pytree), parameters and model state, on the host.
        declared: Gradient evaluations declared before it; at its end, those in it.
        drawn: The same of examples drawn, over the reference batch size.
        events: The calls.
        batches: The batches drawn from the queue, on the host.
        bytes: Their size.
        params: The parameters at its end, on the host.
        seconds: Per gradient evaluation in its evaluation period.
        restart: The step at which an episode began in it.
    """

    kind: Kind
    first_step: int
    before: tuple[Any, Any, Any]
    declared: float
    drawn: float
    events: list[Step | Preparation] = dataclasses.field(default_factory=list)
    batches: list[Any] = dataclasses.field(default_factory=list)
    bytes: int = 0
    params: Any = None
    seconds: float = 0.0
    restart: int | None = None

    @property
    def steps(self) -> int:
        """How many steps it holds."""
        return sum(isinstance(event, Step) for event in self.events)

    @property
    def is_full(self) -> bool:
        """Whether it holds as many batches as a window may, and must end early."""
        return self.bytes >= _MOST_BYTES


class Recorder:
    """Records the windows of one trial after another, until one of them is audited.

    Args:
        draw: The source of random picks; by default the operating system.
        timed: Whether to time AdamW, for the time factor.
    """

    def __init__(self, draw: random.Random | None = None, *, timed: bool = True) -> None:
        self.draw = draw or random.SystemRandom()
        self.timed = timed
        self.reference: Reference | None = None
        self.start: Window | None = None
        self.trial: TrialState | None = None

    def attach(self, trial: TrialState, *, from_its_start: bool) -> None:
        """Record ``trial`` from now on, and forget the windows of the one before.

        Args:
            trial: Its queue and parameters are built.
            from_its_start: Whether it has taken no step yet.
        """
        if self.trial is not None and self.trial.directory != trial.directory:
            self.start = None  # of another trial, which paused or ended
        self.trial = trial
        self.windows: list[Window] = []  # sampled
        self.slowest: Window | None = None
        self.evaluation: Window | None = None
        self.restart: Window | None = None
        self._open: list[Window] = []
        self._periods = self._evaluations = 0
        plan = trial.plan
        ends = plan.allowance if plan.pause_at is None else plan.pause_at
        # A segment that is shorter than a period needs a window too.
        steps = min(plan.settings.budget.eval_period, ends - trial.meter.spent())
        self._expect_period(max(1, int(steps)))
        self._opens_start = from_its_start
        self._period_start = 0.0, 0.0
        if self.reference is None or self.reference.workload is not trial.plan.workload:
            self.reference = Reference(trial.plan.workload) if self.timed else None
        else:
            self.reference.forget()

    def all_windows(self) -> list[Window]:
        """Return the recorded windows; an empty list if no trial took a step."""
        if self.trial is None:
            return []
        found = [self.start, *self.windows, self.evaluation, self.restart]
        if self.slowest not in self.windows:
            found.append(self.slowest)
        return [window for window in found if window is not None]

    # Called by the training loop.

    def before_step(self, trees: tuple[Any, Any, Any]) -> None:
        """Open the windows that begin with the next step."""
        kinds: list[Kind] = []
        if self._opens_start:
            self.start, self._opens_start = None, False
            kinds.append("start")
        if self._steps_in_period == self._offset and not self._is_open("sampled"):
            kinds.append("sampled")
        if self._trial.meter.counts_episodes and not self._is_open("restart"):
            kinds.append("restart")
        self._open_windows(kinds, trees)
        self._steps_in_period += 1

    def on_batch(self, batch: Any) -> None:
        """Keep a batch that the submission draws."""
        if self._open:
            # Without waiting for queued steps: a wait at each step would cost small networks more.
            with self._trial.watch.paused():
                kept = to_host(batch)
            size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(arrays_of(kept)))
            for window in self._open:
                window.batches.append(kept)
                window.bytes += size

    def after_step(self, trees: tuple[Any, Any, Any], *, restarted: bool) -> None:
        """Note a step that was taken, and close the windows that end with it."""
        trial = self._trial
        if self._open:
            # Only now: the runner sets the clock in it after `before_step`, and a step that raises
            # TrainingCompleteError is none.
            state = dict(trial.train_state) if trial.bound.wants_train_state else None
            self._note(Step(trial.meter.steps - 1, len(trial.eval_results), state))
        for window in [*self._open]:
            if window.kind == "restart":
                if restarted and window.restart is None:
                    window.restart = trial.meter.steps - 1
                self._close_rolling(window, trees)
            elif window.steps >= STEPS or window.is_full:
                self._close(window, trees)

    def before_evaluation(self, trees: tuple[Any, Any, Any], step: int) -> None:
        """Open a window before an evaluation, if this evaluation is drawn.

        Args:
            trees: The state, parameters and model state.
            step: The step whose random keys ``prepare_for_eval`` takes: the last one that began.
        """
        self._end_period()
        self._evaluations += 1
        if not self._is_open("evaluation") and self.draw.random() < 1 / self._evaluations:
            self._open_windows(["evaluation"], trees)
        if self._open and self._trial.bound.prepares:
            self._note(Preparation(self._trial.meter.steps, step, len(self._trial.eval_results)))

    def after_evaluation(self) -> None:
        """Time AdamW, outside the clock."""
        if self.reference is not None:
            self.reference.time_steps(self._last_period)

    def end(self, trees: tuple[Any, Any, Any]) -> None:
        """Close the open windows: the trial has ended, or pauses."""
        for window in [*self._open]:
            if window.restart is not None:
                self._close_restart(window, trees)
            elif window.events and window.kind != "restart":
                self._close(window, trees)

    # Windows.

    @property
    def _trial(self) -> TrialState:
        assert self.trial is not None
        return self.trial

    def _is_open(self, kind: Kind) -> bool:
        return any(window.kind == kind for window in self._open)

    def _note(self, event: Step | Preparation) -> None:
        for window in self._open:
            window.events.append(event)

    def _open_windows(self, kinds: list[Kind], trees: tuple[Any, Any, Any]) -> None:
        if not kinds:
            return
        meter, before = self._trial.meter, self._copy(trees)
        self._open += [
            Window(kind, meter.steps, before, meter.declared, meter.drawn) for kind in kinds
        ]

    def _copy(self, trees: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        state, params, model_state = trees
        with self._trial.watch.paused((state[0], params, model_state)):
            return to_host((state[0], params, model_state))

    def _finish(self, window: Window, trees: tuple[Any, Any, Any]) -> None:
        meter = self._trial.meter
        self._open.remove(window)
        with self._trial.watch.paused(trees[1]):
            window.params = to_host(trees[1])
        window.declared = meter.declared - window.declared
        window.drawn = meter.drawn - window.drawn

    def _close(self, window: Window, trees: tuple[Any, Any, Any]) -> None:
        self._finish(window, trees)
        if window.kind == "start":
            self.start = window
        elif window.kind == "evaluation":
            self.evaluation = window
        else:
            self._last = window
            self._keep(window)

    def _close_rolling(self, window: Window, trees: tuple[Any, Any, Any]) -> None:
        if window.restart is None:
            if window.steps >= _ROLLING or window.is_full:
                self._open.remove(window)
        elif self._trial.meter.steps - window.restart >= STEPS or window.is_full:
            self._close_restart(window, trees)

    def _close_restart(self, window: Window, trees: tuple[Any, Any, Any]) -> None:
        self._finish(window, trees)
        if self.restart is None or self.draw.random() < _NEWER:
            self.restart = window

    def _keep(self, window: Window) -> None:
        """Keep a window of each period with the same probability."""
        self._periods += 1
        if len(self.windows) < _SAMPLED:
            self.windows.append(window)
        elif (place := self.draw.randrange(self._periods)) < _SAMPLED:
            self.windows[place] = window

    def _expect_period(self, steps: int) -> None:
        """Draw where the next window begins, in a period of about so many steps."""
        self._offset = self.draw.randrange(max(1, steps))
        self._steps_in_period = 0
        self._last: Window | None = None

    def _end_period(self) -> None:
        meter, watch = self._trial.meter, self._trial.watch
        seconds = watch.running() - watch.compiled()
        spent, began = meter.gradients, self._period_start
        if self._last is not None and spent > began[1]:
            self._last.seconds = (seconds - began[0]) / (spent - began[1])
            if self.slowest is None or self._last.seconds > self.slowest.seconds:
                self.slowest = self._last
        self._period_start = seconds, spent
        self._last_period = self._steps_in_period
        self._expect_period(self._last_period)
