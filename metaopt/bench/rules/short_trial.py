"""A short trial of a submission on a small workload, and its audit."""

import dataclasses
import tempfile
from pathlib import Path

from metaopt.bench.contract.loading import Submission
from metaopt.bench.records import BudgetRecord, Seeds, TrialRecord
from metaopt.bench.records.audit import AuditRecord
from metaopt.bench.rules.checked_submission import CheckedSubmission, with_batch_size
from metaopt.bench.rules.dry_run import DryRun, usable_batch_size
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import audit
from metaopt.bench.trial.plan import TrialPlan, plan_trial
from metaopt.bench.trial.runner import run_trial

STEPS = 128
_PERIOD = 32.0  # steps between evaluations


@dataclasses.dataclass(frozen=True)
class ShortTrial:
    """The result of a short trial.

    Attributes:
        submission: The submission.
        record: The trial's record.
        audit: The audit; ``None`` if no step was taken.
    """

    submission: CheckedSubmission
    record: TrialRecord
    audit: AuditRecord | None


def run_short_trial(run: DryRun) -> ShortTrial:
    """Run and audit a short trial of a submission whose dry run was complete."""
    run.submission.on_start(f"a trial of {STEPS} steps")
    recorder = Recorder(timed=False)
    with tempfile.TemporaryDirectory() as folder:
        record = run_trial(_plan(run), Path(folder), recorder=recorder)
    run.submission.on_start("the audit of a trial")
    audited = audit(recorder, 0.0) if recorder.all_windows() else None
    return ShortTrial(run.submission, record, audited)


def _plan(run: DryRun) -> TrialPlan:
    submission, workload = run.submission, run.workload
    assert submission.module is not None
    budget = BudgetRecord(currency="steps", study=STEPS, trial=STEPS, eval_period=_PERIOD)
    # AlgoPerf's entries need not know the names of this suite.
    module = with_batch_size(submission.module, usable_batch_size(submission, workload))
    return plan_trial(
        Submission(submission.folder.name, submission.folder, module),
        workload,
        campaign="check",
        contender=submission.folder.name,
        study=1,
        trial=1,
        seeds=Seeds(campaign=0, trial=0),
        hyperparameters=submission.point()[1],
        budget=budget,
        target=workload.targets.validation,
        test_target=None,
        stop_at_target=False,
    )
