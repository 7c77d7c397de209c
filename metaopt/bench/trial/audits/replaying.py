"""Replay recorded windows with a workload that counts passes, and judge them.

passes        each window: passes counted against gradient evaluations charged
set-up        ``init_optimizer_state``: the same
replay        ``init_optimizer_state`` must return what it did, and each window end where it did
fresh-start   the trial's start and an episode's restart, again, from noisy initial parameters

The submission is imported again, so functions that it made for the trial are made and counted anew,
and what it has kept in its modules is gone.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import serialization

from metaopt.bench.contract.bound_submission import Trees
from metaopt.bench.contract.loading import import_again
from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.contract.savable import restore_into
from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.bench.records import write_json
from metaopt.bench.records.audit import (
    AUDIT_FILE,
    DEVIATION,
    DIED,
    Audit,
    AuditedStart,
    AuditedWindow,
    AuditFinding,
    AuditRecord,
    judge,
    worst_ratio,
)
from metaopt.bench.records.layout import AUDIT_STALL_FILE
from metaopt.bench.trial.audits.counting import NOISE, counting_facade, norm
from metaopt.bench.trial.audits.host_copies import arrays_of, to_device, to_host
from metaopt.bench.trial.audits.recording import Preparation, Recorder, Step, Window
from metaopt.bench.trial.stalls import watch_for_stalls
from metaopt.bench.trial.state import TrialState

_CLIP = 2.0  # standard deviations of the noise: the most that a parameter adds to a response

_REPLAYED = "The submission cannot be run again from its own state"
_NOT_FRESH = "Step {step}, a restart, ends nearer to the parameters before it than to fresh ones."


def write_audit(recorder: Recorder, position: float, stall_seconds: float | None) -> None:
    """Audit the trial that ran last, and write ``audit.json`` into its folder.

    Args:
        recorder: The recorder with the trial's windows.
        position: The share of the study's budget that was drawn.
        stall_seconds: The limit of the audit, after which **the process ends**. Then
            :func:`~metaopt.bench.records.audit.fail_open_audits` fails the audit.
    """
    trial = _trial_of(recorder)
    path = trial.directory / AUDIT_FILE
    # Stays if the submission ends the process, so that its contender does not pass as unaudited.
    died = AuditFinding(audit="replay", failed=False, what=DIED)
    write_json(path, _record(trial, position, findings=(died,)))
    with watch_for_stalls(stall_seconds, trial.directory / AUDIT_STALL_FILE):
        write_json(path, audit(recorder, position))


@pinned_randomness()
def audit(recorder: Recorder, position: float) -> AuditRecord:
    """Audit the trial that ran last.

    Costs one compilation of the submission's step and about 60 steps.

    Args:
        recorder: The recorder with the trial's windows.
        position: The share of the study's budget that was drawn.
    """
    trial = _trial_of(recorder)
    replayer = _Replayer(recorder)
    replayer.run()
    charged, counted = replayer.set_up or (None, None)
    found = judge(replayer.windows, replayer.starts, replayer.set_up)
    return _record(
        trial,
        position,
        set_up_charged=charged,
        set_up_counted=counted,
        windows=tuple(replayer.windows),
        starts=tuple(replayer.starts),
        reference_seconds=recorder.reference and recorder.reference.seconds,
        findings=(*replayer.failures, *found),
    )


def _record(trial: TrialState, position: float, **found: Any) -> AuditRecord:
    settings = trial.plan.settings
    return AuditRecord(
        **settings.model_dump(include={"campaign", "contender", "workload", "study", "trial"}),
        position=position,
        seconds=seconds_per_gradient_evaluation(trial.log.rows),
        **found,
    )


def _trial_of(recorder: Recorder) -> TrialState:
    assert recorder.trial is not None
    return recorder.trial


def seconds_per_gradient_evaluation(rows: list[dict[str, Any]]) -> float | None:
    """Return the median over evaluation periods, without compilation; the first only if alone.

    Args:
        rows: The evaluation rows of a trial.
    """
    training, compilation, spent = (
        np.diff([0.0, *(row[column] for row in rows)])
        for column in (
            "accumulated_submission_time", "compilation_seconds", "gradient_evaluations"
        )
    )  # fmt: skip
    rates = (training - compilation)[spent > 0] / spent[spent > 0]
    return float(np.median(rates[1:] if len(rates) > 1 else rates)) if len(rates) else None


class _Replayer:
    def __init__(self, recorder: Recorder) -> None:
        self.trial = trial = _trial_of(recorder)
        self.recorder = recorder
        hint = getattr(trial.bound.workload, "step_hint", None)
        self.workload = counting_facade(trial.plan.workload, trial.meter.batch_size, hint)
        self.scale = 1.0 / trial.meter.reference_batch_size
        self.set_up: tuple[float, float] | None = None
        self.windows: list[AuditedWindow] = []
        self.starts: list[AuditedStart] = []
        self.failures: list[AuditFinding] = []
        self.ends: dict[Window, Any] = {}  # the parameters after each window, run again

    def run(self) -> None:
        """Run everything again; a submission's error ends the audit with a finding."""
        recorded = self.recorder.all_windows()
        batches = [batch for window in recorded for batch in window.batches]
        if batches:
            self.workload.show_batch(arrays_of(batches[0]))
        try:
            module = import_again(self.trial.plan.submission)
            self.bound = dataclasses.replace(
                self.trial.bound, workload=self.workload, module=module
            )
            self._take_set_up()
            for window in recorded:
                self._count(window)
            self._choose_charge(recorded)
            if self.recorder.restart in recorded:
                self._restart(self.recorder.restart)
            if self.recorder.start in recorded:
                self._start_with_noise(self.recorder.start)
            if self.recorder.restart in recorded:
                self._restart_with_noise(self.recorder.restart)
        except (Exception, SystemExit) as error:
            self._fail("replay", f"{_REPLAYED}: {type(error).__name__}: {error}")
        finally:
            self.workload.noise = 0.0

    def _take_set_up(self) -> None:
        """Initialise again, to count its passes and to get the function that takes steps."""
        self.workload.reset()
        self.first = self._fresh()
        start = self.recorder.start
        if start is None:
            return
        self.set_up = self.trial.set_up_charged, sum(self._counted().values())
        if not _are_close(arrays_of(start.before[0]), self.first[0][0]):
            self._fail("replay", "`init_optimizer_state`, run again, returns another state.")

    def _fail(self, audit: Audit, what: str) -> None:
        self.failures.append(AuditFinding(audit=audit, failed=True, what=what))

    def _fresh(self) -> Trees:
        streams = self.trial.streams
        params, model_state = self.workload.init_model_fn(streams.model)
        state = self.bound.init(params, model_state, streams.optimizer)
        return state, params, model_state

    def _at(self, window: Window) -> Trees:
        state, params, model_state = to_device(window.before)
        # The classes in it are those of the first import.
        state = restore_into(self.first[0][0], serialization.to_state_dict(state))
        return (state, *self.first[0][1:]), params, model_state

    def _count(self, window: Window) -> None:
        self.workload.reset()
        params = self.ends[window] = self._replay(window, self._at(window))
        counted = self._counted()
        end = arrays_of(window.params)
        size = norm(end)
        finite = math.isfinite(size)
        # From parameters that are not finite there is no distance: all of the end is movement.
        moved = _finite(_distance(arrays_of(window.before[1]), end), size) if finite else 0.0
        self.windows.append(
            AuditedWindow(
                kind=window.kind,
                first_step=window.first_step,
                steps=window.steps,
                charged=window.declared,
                counted=sum(counted.values()),
                counted_in_evaluation_mode=counted[ForwardPassMode.EVAL],
                moved=moved,
                norm=size if finite else 0.0,
                deviation=_finite(_distance(params, end), sys.float_info.max) if finite else None,
            )
        )

    def _choose_charge(self, recorded: list[Window]) -> None:
        """Charge all windows for draws instead of declarations, if that covers the passes better.

        The ledger charges the larger of two running totals. If each window chose for itself, a
        submission could draw in one half of a trial, declare in the other, and pay once for both.
        """
        drawn = [
            audited.model_copy(update={"charged": window.drawn})
            for window, audited in zip(recorded, self.windows, strict=True)
        ]
        declares_set_up = self.trial.set_up_charged > 0  # only declarations can pay for that
        if not declares_set_up and worst_ratio(drawn) < worst_ratio(self.windows):
            self.windows = drawn

    def _start_with_noise(self, window: Window) -> None:
        self.workload.noise = NOISE
        end = self._replay(window, self._fresh())
        self._note_start("trial", window, end)

    def _restart(self, window: Window) -> None:
        """Fail if the step of a restart ends nearer to what was there than to fresh parameters."""
        self.workload.reset()
        after = before = window.before[1]
        for event, trees in self._run(window, self._at(window)):
            before, after = after, to_host(trees[1])  # copied: the next step may donate them
            if isinstance(event, Step) and event.index == window.restart:
                break
        jax.effects_barrier()
        old, new, fresh = arrays_of(before), arrays_of(after), self.workload.fresh
        if fresh is not None and _distance(new, old) < _distance(new, fresh):
            self._fail("fresh-start", _NOT_FRESH.format(step=window.restart))

    def _restart_with_noise(self, window: Window) -> None:
        self.workload.noise = NOISE
        end = self._replay(window, self._at(window))
        self._note_start("episode", window, end)

    def _note_start(self, kind: Any, window: Window, end: Any) -> None:
        noise = self.workload.noise_norm(arrays_of(window.params))
        before = arrays_of(window.before[1])
        # Clipped, so that one parameter that amplifies its noise does not stand in for all others.
        changed = norm(
            jax.tree.map(
                lambda a, b: np.clip(a - b, -_CLIP * NOISE, _CLIP * NOISE), end, self.ends[window]
            )
        )
        # Parameters that were not finite have been left behind, whatever came after.
        response = changed / noise if math.isfinite(norm(before)) else math.nan
        step = window.first_step if window.restart is None else window.restart
        self.starts.append(AuditedStart(kind=kind, step=step, response=_finite(response, None)))

    def _replay(self, window: Window, trees: Trees) -> Any:
        """Run a window again and return the parameters at its end, on the host."""
        for _, end in self._run(window, trees):
            trees = end
        return jax.device_get(trees[1])

    def _run(self, window: Window, trees: Trees) -> Iterator[tuple[Step | Preparation, Trees]]:
        """Run a window again; yield each call and what it returned."""
        trial, queue = self.trial, iter(_Recorded(window.batches))
        for event in window.events:
            results = trial.eval_results[: event.results]
            if isinstance(event, Step):
                select_key, update_key, *_ = trial.keys(event.index)
                batch = self.bound.select(queue, trees, event.index, select_key)
                trees = self.bound.update(
                    batch, trees, event.index, update_key, results, event.train_state
                )
            else:
                prepare_key = trial.keys(event.keys)[2]
                trees = self.bound.prepare(trees, event.index, prepare_key, results)
            yield event, trees

    def _counted(self) -> dict[ForwardPassMode, float]:
        jax.effects_barrier()
        return {mode: count * self.scale for mode, count in self.workload.examples.items()}


class _Recorded:
    """The batches of a window, as a queue."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            yield to_device(batch)
        raise RuntimeError("it draws more batches than it did in the trial")


def _distance(one: Any, other: Any) -> float:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return norm([np.asarray(a, np.float64) - np.asarray(b, np.float64) for a, b in leaves])


def _are_close(one: Any, other: Any) -> bool:
    """Return whether two states have the same entries, up to rounding."""
    ours, theirs = (
        {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        }
        for state in map(serialization.to_state_dict, (one, jax.device_get(other)))
    )
    return [*ours] == [*theirs] and all(
        np.allclose(leaf, theirs[place], rtol=DEVIATION, atol=0.0, equal_nan=True)
        for place, leaf in ours.items()
    )


def _finite(value: float, otherwise: Any) -> Any:
    return value if math.isfinite(value) else otherwise
