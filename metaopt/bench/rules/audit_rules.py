"""Rules that audit a short trial: what it costs, what it depends on, where it starts."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metaopt.bench.contract.loading import Submission
from metaopt.bench.records import BudgetRecord, Seeds, TrialRecord
from metaopt.bench.records.audit import Audit, AuditRecord
from metaopt.bench.records.findings import Problem
from metaopt.bench.rules.checked_submission import Subject
from metaopt.bench.rules.dry_run import workload_of
from metaopt.bench.rules.step_rules import find_state_without_checkpoint, find_wrong_batch_size
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import audit
from metaopt.bench.trial.plan import TrialPlan, plan_trial
from metaopt.bench.trial.runner import run_trial

_STEPS = 128.0
_PERIOD = 32.0  # steps between evaluations
_FIXES: dict[Audit, str] = {
    "passes": (
        "Export report(optimizer_state) with all gradient evaluations so far: every pass through "
        "`model_fn`, a forward pass alone too, counts as its examples over the reference batch "
        "size."
    ),
    "set-up": "Declare the passes of init_optimizer_state in report(optimizer_state) as well.",
    "replay": (
        "Keep everything that a step depends on in the optimizer state: no module variables, "
        "files, clocks or random numbers but those from `rng`."
    ),
    "fresh-start": (
        "Begin a trial with the parameters that init_optimizer_state gets, and an episode with "
        "`workload.init_model_fn`; raise `episode` in report() only there."
    ),
}


@dataclasses.dataclass(frozen=True)
class Audited:
    """A short trial, and its audit if it took a step."""

    record: TrialRecord
    audit: AuditRecord | None


def audit_problems(kind: Audit) -> Callable[[Subject], Iterator[Problem]]:
    """Return the rule that reports one kind of finding."""

    def find(subject: Subject) -> Iterator[Problem]:
        if subject.audited is None or subject.audited.audit is None:
            return
        for finding in subject.audited.audit.findings:
            if finding.audit == kind:
                severity = "error" if finding.failed else "note"
                where = subject.where("update_params")
                yield Problem(finding.what, where, _FIXES[kind], severity)

    return find


def run_audited(subject: Subject) -> Audited | None:
    """Run and audit a short trial; ``None`` where a few steps already break a rule."""
    if subject.walk is None or not subject.walk.complete:
        return None
    refused = [*find_state_without_checkpoint(subject), *find_wrong_batch_size(subject)]
    if any(problem.severity == "error" for problem in refused):  # by the runner
        return None
    subject.say(f"a trial of {_STEPS:g} steps")
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        record = run_trial(_plan(subject), Path(folder), recorder=recorder)
    subject.say("the audit of a trial")
    if not recorder.all_windows():
        return Audited(record, None)
    return Audited(record, audit(recorder, 0.0, timed=False))


def _plan(subject: Subject) -> TrialPlan:
    workload: Any = workload_of(subject)
    assert subject.module is not None
    return plan_trial(
        Submission(subject.folder.name, subject.folder, subject.module),
        workload,
        campaign="check",
        contender=subject.folder.name,
        study=1,
        trial=1,
        seeds=Seeds(campaign=0, trial=0),
        hyperparameters=subject.point()[1],
        budget=BudgetRecord(currency="steps", study=_STEPS, trial=_STEPS, eval_period=_PERIOD),
        target=workload.targets.validation,
        test_target=None,
        stop_at_target=False,
    )
