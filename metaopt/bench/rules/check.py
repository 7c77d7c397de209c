"""Apply the rules to a submission in this process.

The rules come in phases: first those on the text, the module and the files; then those on a few
steps; then those on a short trial. A phase is left out if errors of an earlier one prevent it.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from metaopt.bench.records.findings import Finding, Rule
from metaopt.bench.rules.checked_submission import CheckedSubmission
from metaopt.bench.rules.dry_run import dry_run
from metaopt.bench.rules.file_rules import FILE_RULES
from metaopt.bench.rules.module_rules import MODULE_RULES
from metaopt.bench.rules.name_rule import NAME_RULES
from metaopt.bench.rules.short_trial import run_short_trial
from metaopt.bench.rules.step_rules import STEP_RULES
from metaopt.bench.rules.trial_rules import TRIAL_RULES

# Only another process can find this: see `subprocess_check`.
TIMEOUT = Rule("timeout", "every function returns", lambda submission: ())
RULES = (*MODULE_RULES, *FILE_RULES, TIMEOUT, *STEP_RULES, *NAME_RULES, *TRIAL_RULES)

_NEEDED_TO_CALL = {"functions", "arguments", "arguments-order"}
# The runner refuses such a submission; with a compilation in each step, a trial takes minutes.
_NEEDED_FOR_A_TRIAL = {"batch-size", "state-checkpoint", "recompilation"}


@dataclasses.dataclass
class Report:
    """The result of a check.

    Attributes:
        findings: The problems, in the order of the rules.
        not_applied: The rules that could not be applied, because of errors.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    not_applied: list[str] = dataclasses.field(default_factory=list)

    def broken(self) -> set[str]:
        """Return the rules with errors."""
        return {finding.rule for finding in self.findings if finding.severity == "error"}

    def apply(self, rules: Iterable[Rule], checked: Any) -> None:
        """Add the findings of some rules."""
        self.findings += [finding for rule in rules for finding in rule.check(checked)]


def check(
    folder: Path,
    *,
    workload: Any = None,
    importing: bool = True,
    on_start: Callable[[str], None] = lambda description: None,
) -> Report:
    """Return the findings of all rules in a submission.

    The submission runs in this process: it may print, and it may never return.

    Args:
        folder: The submission's folder.
        workload: The workload to take steps on; by default ``digits_mlp``.
        importing: Whether to import the submission; if not, only its text and files are read.
        on_start: Called with a description of each step of the check before it begins.
    """
    submission, report = CheckedSubmission(folder, importing=importing, on_start=on_start), Report()
    report.apply(MODULE_RULES, submission)
    if not submission.has_source:
        rules = (*FILE_RULES, *STEP_RULES, *NAME_RULES, *TRIAL_RULES)
        report.not_applied = [rule.id for rule in rules]
        return report
    report.apply(FILE_RULES, submission)
    if submission.module is not None and not report.broken() & _NEEDED_TO_CALL:
        _check_running(submission, workload or _default_workload(), report)
    else:
        report.not_applied = [rule.id for rule in (*STEP_RULES, *NAME_RULES, *TRIAL_RULES)]
    return report


def _check_running(submission: CheckedSubmission, workload: Any, report: Report) -> None:
    """Add the findings of the rules that run the submission."""
    run = dry_run(submission, workload)
    report.apply(STEP_RULES, run)
    if not run.complete:
        settled = {"batch-size", *(finding.rule for finding in report.findings)}
        rules = (*STEP_RULES, *NAME_RULES, *TRIAL_RULES)
        report.not_applied = [rule.id for rule in rules if rule.id not in settled]
        return
    report.apply(NAME_RULES, run)
    if report.broken() & _NEEDED_FOR_A_TRIAL:
        report.not_applied = [rule.id for rule in TRIAL_RULES]
    else:
        report.apply(TRIAL_RULES, run_short_trial(run))


def _default_workload() -> Any:
    from metaopt.workloads.digits_mlp import DIGITS_MLP

    return DIGITS_MLP
