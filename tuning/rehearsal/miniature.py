"""Rehearse a submission on one miniature, in this process.

The submission takes a few observed steps, then trains for one step hint. The batch size is asked
with the name of AlgoPerf's workload, as AlgoPerf's runner does; the training batches have the size
of the miniature.
"""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax

from metaopt.bench import records
from metaopt.bench.contract.loading import Submission, load_submission
from metaopt.bench.contract.return_values import ContractError, ask_batch_size
from metaopt.bench.contract.rng import pinned_randomness, trial_keys
from metaopt.bench.contract.spaces import Point, PointList, parse_space
from metaopt.bench.measure.targets import Target, load_targets
from metaopt.bench.records import FAILURES, BudgetRecord, TrialRecord
from metaopt.bench.records.failures import describe, line_of
from metaopt.bench.records.findings import Finding, Severity
from metaopt.bench.rules.checked_submission import CheckedSubmission, with_batch_size
from metaopt.bench.rules.dry_run import DryRun, dry_run
from metaopt.bench.rules.step_rules import STEP_RULES
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import seconds_per_gradient_evaluation
from metaopt.bench.trial.plan import TrialPlan, derive_seeds, plan_trial
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS
from tuning.rehearsal.miniature_result import MINIATURES, MiniatureResult
from tuning.tuners.quasirandom import HaltonTuner

SEED = 1  # of the trial and of the point
EVALUATIONS = 4
DEVICES = 4  # of AlgoPerf's machine with A100 GPUs; the one with V100 GPUs has 8
TRIAL_SECONDS = 40.0
_LIKE_ADAMW = 2.0  # time factor: below it, a machine is slow, and not the submission
_FILE = "submission.py"
_UNREACHABLE = 1e30
# `tuning check` applies the other rules on steps; they do not depend on the workload.
_RULES = {"crash", "state", "state-checkpoint", "return", "params", "recompilation"}


@pinned_randomness()
def rehearse_miniature(
    folder: Path, name: str, on_start: Callable[[str], None] = lambda description: None
) -> MiniatureResult:
    """Return what the submission in ``folder`` does on a miniature.

    Args:
        folder: The submission's folder.
        name: The miniature.
        on_start: Called with a description of each step before it begins.
    """
    result = MiniatureResult(workload=name)
    on_start("the import of submission.py")
    try:
        submission = load_submission(folder, SUBMISSIONS)
        point = first_point(submission)
    except ValueError as error:
        return _add(result, _finding("import", str(error), _FILE, "Run `python -m tuning check`."))
    on_start("`get_batch_size`")
    asked = ask_size(submission, MINIATURES[name])
    if isinstance(asked, Finding):
        result = _add(result, asked)
    else:
        result = _add(result.model_copy(update={"batch_size": asked}), *_indivisible(asked, name))
    workload = get_workload(name)
    module = with_batch_size(submission.module, workload.reference_batch_size)
    submission = dataclasses.replace(submission, module=module)
    result = _take_steps(result, submission, workload, point, on_start)
    if result.is_saved is None or any(f.rule in _RULES for f in result.errors):
        return result
    on_start("a trial of one step hint")
    return _train(result, submission, workload, point)


def first_point(submission: Submission) -> Point | None:
    """Return the first listed point of a search space, else its first Halton point.

    ``None`` for a submission that tunes itself.

    Raises:
        ValueError: The search space cannot be used.
    """
    if submission.ruleset == "self-tuning":
        return None
    space = parse_space(submission.read_space(), submission.name)
    if isinstance(space, PointList):
        return dict(space.points[0])
    return HaltonTuner(space, SEED).ask()


def ask_size(submission: Submission, workload: str) -> int | Finding:
    """Return the submission's batch size for a workload of AlgoPerf, or why it has none."""
    where = _FILE
    try:
        return ask_batch_size(submission.module, SimpleNamespace(name=workload))
    except ContractError as error:
        what = str(error).rstrip(".")
    except (Exception, SystemExit) as error:
        what, where = f"raises {describe(error)}", line_of(error, submission.folder) or _FILE
    return _finding(
        "batch-size",
        f"get_batch_size({workload!r}): {what}",
        where,
        f"Return a positive integer for {workload!r}, the workload that the miniature stands for.",
    )


def _indivisible(size: int, name: str) -> Iterator[Finding]:
    """Yield a finding if the batch cannot be split over the devices of AlgoPerf's machines."""
    devices = DEVICES if size % DEVICES else 2 * DEVICES
    if size % devices:
        yield _finding(
            "batch-size",
            f"get_batch_size({MINIATURES[name]!r}) returns {size}, which {devices} GPUs cannot "
            "share",
            _FILE,
            "AlgoPerf's runner stops unless the batch size is a multiple of the number of GPUs, "
            f"{DEVICES} or {2 * DEVICES}.",
            "error" if devices == DEVICES else "note",
        )


class _Rehearsed(CheckedSubmission):
    """A submission with the module and the point of a rehearsal."""

    def __init__(
        self, submission: Submission, point: Point | None, on_start: Callable[[str], None]
    ) -> None:
        super().__init__(submission.folder, on_start=on_start)
        self._loaded, self._chosen = submission.module, point

    @property
    def module(self) -> ModuleType:
        return self._loaded

    def point(self) -> tuple[bool, dict[str, Any] | None]:
        return True, self._chosen


def _take_steps(
    result: MiniatureResult,
    submission: Submission,
    workload: Any,
    point: Point | None,
    on_start: Callable[[str], None],
) -> MiniatureResult:
    """Add what a few observed steps show; ``is_saved`` stays ``None`` if they were not taken."""
    key = jax.random.PRNGKey(SEED)
    next(workload._build_input_queue(key, "train"))  # compiled: it is not the submission's
    run = dry_run(_Rehearsed(submission, point, on_start), workload)
    found = [f for rule in STEP_RULES if rule.id in _RULES for f in rule.check(run)]
    fix = f"It is about this batch: {batch_structure(workload)}"
    found = [dataclasses.replace(f, fix=fix) if f.rule == "crash" else f for f in found]
    if not run.complete:
        if not found:
            what = f"the submission ends training after {len(run.compiled)} steps"
            found = [_finding("early-end", what, _FILE, _EARLY)]
        return _add(result, *found)
    measured = {
        "compilations": sum(run.compiled),
        "state_copies": _state_copies(run),
        "is_saved": not any(finding.rule == "state-checkpoint" for finding in found),
    }
    return _add(result.model_copy(update=measured), *found)


_EARLY = "Train until the runner stops the run: a run that ends without its target has missed it."


def batch_structure(workload: Any) -> str:
    """Return keys, dtypes and shapes of a training batch, on one line."""
    leaves = jax.tree_util.tree_leaves_with_path(workload.batch_shapes())
    return ", ".join(
        f"{jax.tree_util.keystr(path)} {leaf.dtype}{[*leaf.shape]}" for path, leaf in leaves
    )


def _state_copies(run: DryRun) -> float:
    """Return the bytes of the arrays of the last state over those of the parameters."""
    params = jax.eval_shape(run.workload.init_model_fn, jax.random.PRNGKey(0))[0]
    return _bytes_of(run.states[-1][0]) / _bytes_of(params)


def _bytes_of(tree: Any) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _train(
    result: MiniatureResult, submission: Submission, workload: Any, point: Point | None
) -> MiniatureResult:
    """Add what a trial of one step hint shows."""
    frozen = load_targets().get(workload.name)
    plan = _plan(submission, workload, point, frozen and frozen.validation)
    ends = time.monotonic() + TRIAL_SECONDS
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        record = run_trial(
            plan, Path(folder), recorder=recorder,
            should_stop=lambda rows: time.monotonic() > ends,
        )  # fmt: skip
        path = Path(folder) / records.EVAL_FILE
        rows = records.read_evaluations(path) if path.exists() else []
    key = trial_keys(plan.settings.seeds.trial).model
    params, state = workload.init_model_fn(key)
    before = workload.eval_model(workload.eval_batch_size, params, state, key)["train/loss"]
    missed = "cut short" if record.status == "pruned" else "missed"
    target = missed if record.reached is None else "met"
    seconds, steps = seconds_per_gradient_evaluation(rows), record.ledger.cost.steps
    measured: dict[str, Any] = {
        "steps": steps,
        "is_trained": record.status not in FAILURES,
        "loss_before": _finite(before),
        "loss_after": _finite(records.metric_of(rows[-1], "train/loss")) if rows else None,
        "target": "no target yet" if frozen is None else target,
    }
    adamw = recorder.reference and recorder.reference.seconds
    if measured["is_trained"] and seconds and adamw:
        measured["time_factor"] = seconds / adamw
    result = result.model_copy(update=measured)
    return _add(result, *judge_trial(record, result, workload))


def _plan(
    submission: Submission, workload: Any, point: Point | None, target: Target | None
) -> TrialPlan:
    """Return the plan of a trial of one step hint; without a target, with an unreachable one."""
    hint = float(workload.step_hint)
    if target is None:
        value = -_UNREACHABLE if workload.better == "lower" else _UNREACHABLE
        target = Target(f"validation/{workload.target_metric}", value, workload.better)
    return plan_trial(
        submission,
        workload,
        campaign="rehearsal",
        contender=submission.name,
        study=1,
        trial=1,
        seeds=derive_seeds(SEED, workload, 1, 1),
        hyperparameters=point,
        budget=BudgetRecord(
            currency="gradient_evaluations", study=hint, trial=hint, eval_period=hint / EVALUATIONS
        ),
        target=target,
        test_target=None,
        stop_at_target=False,
    )


def judge_trial(record: TrialRecord, result: MiniatureResult, workload: Any) -> Iterator[Finding]:
    """Yield what a trial's record, and what was measured beside it, say against a submission."""
    steps, update = f"{result.steps} steps", "update_params"
    if not result.is_trained:
        fix = "Try a smaller learning rate, and the batch's padded and masked entries."
        what = f"after {steps}: {record.cause or record.status}"
        yield _finding("trial", what.rstrip("."), _FILE, fix)
    elif record.status == "completed" and record.reached is None:
        what = f"the submission ends training after {steps}"
        yield _finding("early-end", what, _FILE, _EARLY)
    elif record.status == "pruned":
        what = f"the rehearsal stopped after {TRIAL_SECONDS:g} s and {steps} of a step hint of "
        factor = result.time_factor
        fix = "Make the step faster."
        if factor is not None and factor < _LIKE_ADAMW:
            fix = "AdamW's steps took as long: another program kept this machine busy."
        yield _finding("slow", f"{what}{workload.step_hint}", update, fix, "note")
    if result.falls is False:
        # One point of a search space may be a bad one.
        severity = "error" if record.ruleset == "self-tuning" else "note"
        what = (
            f"the training loss does not fall: {result.loss_before:.4g} before, "
            f"{result.loss_after:.4g} after {steps}"
        )
        yield _finding(
            "loss", what, _FILE, "Check the sign of the update and the learning rate.", severity
        )


def _finding(rule: str, what: str, where: str, fix: str, severity: Severity = "error") -> Finding:
    return Finding(rule, severity, what, where, fix)


def _add(result: MiniatureResult, *findings: Finding) -> MiniatureResult:
    return result.model_copy(update={"findings": (*result.findings, *findings)})


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
