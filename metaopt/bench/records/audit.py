"""The record of an audit: ``audit.json`` beside the record of the audited trial.

Its picks are random, so it has a file of its own, and ``run.json`` stays the same from run to run.
Nothing here needs JAX.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from metaopt.bench.records.atomic_files import write_json
from metaopt.bench.records.layout import AUDIT_STALL_FILE
from metaopt.bench.records.trials import Model

AUDIT_FILE = "audit.json"
RATIO_NOTED = 1.1  # passes counted over gradient evaluations charged: above it the ratio is shown
RATIO_FAILED = 2.1
DEVIATION = 1e-3  # allowed between the end points of a window, of the distance that it moved
ROUNDING = 1e-6  # added to that, of the parameters' norm
RESPONSE = 0.5  # of the noise's norm: the least that it moves the end point of a fresh start

DIED = (
    "The process ended during this audit. A process that is killed looks like one that the "
    "submission ended."
)
STALLED = "The audit did not end within `stall_seconds`; the stacks are in audit_stall.txt."

Audit = Literal["passes", "set-up", "replay", "fresh-start"]


class AuditFinding(Model):
    """One thing that an audit found."""

    audit: Audit
    failed: bool  # False: noted, with its number
    what: str


class AuditedWindow(Model):
    """A few steps of a trial that were run again with a workload that counts passes."""

    kind: Literal["start", "sampled", "evaluation", "restart"]
    first_step: int  # from 0
    steps: int
    charged: float  # gradient evaluations: declared in all windows of a trial, or drawn in all
    counted: float  # passes through model_fn, forward ones too, in gradient evaluations
    counted_in_evaluation_mode: float  # of these, with mode=EVAL
    moved: float  # norm of the change of the parameters
    norm: float  # of the parameters at its end
    deviation: float | None  # norm between the end points; None if the trial's is not finite


class AuditedStart(Model):
    """A trial's start or an episode's restart that was run again from noisy parameters."""

    kind: Literal["trial", "episode"]
    step: int  # from 0
    response: float | None  # change of the end point over the noise, in norms; None: not finite


class AuditRecord(Model):
    """The audit of one contender on one workload."""

    schema_version: Literal[1] = 1
    campaign: str
    contender: str
    workload: str
    study: int
    trial: int
    position: float  # the share of the study's budget that was drawn; this trial covers it
    seconds: float | None  # per gradient evaluation, without compilation
    reference_seconds: float | None = None  # AdamW's, beside it, on this machine and workload
    set_up_charged: float | None = None  # for init_optimizer_state; None: was not recorded
    set_up_counted: float | None = None
    windows: tuple[AuditedWindow, ...] = ()
    starts: tuple[AuditedStart, ...] = ()
    findings: tuple[AuditFinding, ...]

    @property
    def ratio(self) -> float | None:
        """The largest ratio of counted passes to charged gradient evaluations."""
        return max((w.counted / w.charged for w in self.windows if w.charged > 0), default=None)

    @property
    def time_factor(self) -> float | None:
        """Seconds per gradient evaluation over AdamW's; None if either is not known."""
        if self.seconds is None or not self.reference_seconds:
            return None
        return self.seconds / self.reference_seconds

    @property
    def failed(self) -> bool:
        """Whether the contender failed an audit."""
        return any(finding.failed for finding in self.findings)


def judge(
    windows: Sequence[AuditedWindow],
    starts: Sequence[AuditedStart],
    set_up: tuple[float, float] | None,
) -> Iterator[AuditFinding]:
    """Yield the findings of an audit by the rules in docs/rules.md: at most one of each kind.

    Args:
        windows: The windows that were run again.
        starts: The starts that were run again with noise.
        set_up: Gradient evaluations charged for, and counted in, ``init_optimizer_state``.
    """
    if set_up is not None:
        yield from _judge_passes("set-up", "In `init_optimizer_state`", *set_up)
    # Without a step it only holds a preparation, which may well show other parameters.
    idle = [w for w in windows if w.steps and w.counted == 0 and w.moved > ROUNDING * w.norm]
    if idle:
        what = f"{_where(idle[0])}, the parameters moved without one pass through `model_fn`."
        yield AuditFinding(audit="passes", failed=True, what=what)
    elif windows:
        worst = max(windows, key=lambda window: _ratio(window.charged, window.counted))
        yield from _judge_passes("passes", _where(worst), worst.charged, worst.counted)
    apart = [w for w in windows if w.deviation is not None and not w.deviation <= _allowed(w)]
    if apart:
        worst = max(apart, key=lambda window: (window.deviation or 0.0) - _allowed(window))
        what = (
            f"{_where(worst)}, run again, the parameters ended {worst.deviation:.2g} away from "
            f"where the trial went, after a distance of {worst.moved:.2g}: the submission depends "
            "on more than its arguments, or notices the audit."
        )
        yield AuditFinding(audit="replay", failed=True, what=what)
    for start in starts:
        if start.response is not None and start.response < RESPONSE:
            begin = "The trial" if start.kind == "trial" else f"The episode at step {start.step}"
            what = (
                f"{begin} did not start from fresh parameters: noise in `init_model_fn` moved the "
                f"end point by {start.response:.2g} of the noise, at least {RESPONSE:g} is due."
            )
            yield AuditFinding(audit="fresh-start", failed=True, what=what)


def _judge_passes(
    audit: Audit, where: str, charged: float, counted: float
) -> Iterator[AuditFinding]:
    ratio = _ratio(charged, counted)
    if ratio > RATIO_NOTED:
        but = "nothing" if charged == 0 else f"{charged:.4g}"
        what = (
            f"{where}, {counted:.4g} gradient evaluations were counted and {but} charged "
            f"(ratio {ratio:.2f})."
        )
        yield AuditFinding(audit=audit, failed=ratio > RATIO_FAILED, what=what)


def worst_ratio(windows: Sequence[AuditedWindow]) -> float:
    """Return the largest ratio of counted to charged; infinite if nothing was charged."""
    return max((_ratio(window.charged, window.counted) for window in windows), default=0.0)


def _ratio(charged: float, counted: float) -> float:
    return counted / charged if charged > 0 else math.inf if counted > 0 else 0.0


def _allowed(window: AuditedWindow) -> float:
    return DEVIATION * window.moved + ROUNDING * window.norm


def _where(window: AuditedWindow) -> str:
    if not window.steps:
        return f"Before the evaluation after step {window.first_step}"
    return f"In steps {window.first_step + 1} to {window.first_step + window.steps}"


def fail_open_audits(folder: Path) -> None:
    """Fail the unfinished audits in a study's folder.

    Args:
        folder: The folder of a study whose process died by itself.
    """
    for path in folder.glob(f"trial_*/{AUDIT_FILE}"):
        record = AuditRecord.model_validate_json(path.read_bytes())
        if any(finding.what == DIED for finding in record.findings):
            stall = path.with_name(AUDIT_STALL_FILE)  # without stacks if the process was killed
            stalled = stall.exists() and "Timeout" in stall.read_text("utf-8", "replace")
            failed = AuditFinding(audit="replay", failed=True, what=STALLED if stalled else DIED)
            write_json(path, record.model_copy(update={"findings": (failed,)}))
