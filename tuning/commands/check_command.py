"""``python -m tuning check``: report mistakes that disqualify or break a submission."""

import dataclasses
import json

import typer

from metaopt.bench.contract.loading import find_submission_folder
from metaopt.bench.records.redaction import redact
from metaopt.bench.rules.check import RULES
from metaopt.bench.rules.subprocess_check import check_in_subprocess
from tuning.contenders import SUBMISSIONS


def print_findings(submission: str, *, timeout: float, format: str) -> int:
    """Apply all rules to a submission and print the findings.

    Args:
        submission: Name or folder.
        timeout: Seconds for all rules together.
        format: ``"table"`` or ``"json"``.

    Returns:
        The exit code: 1 if there is an error.

    Raises:
        ValueError: There is no such submission.
    """
    folder = find_submission_folder(submission, SUBMISSIONS)
    report = check_in_subprocess(folder, timeout=timeout)
    found = [dataclasses.replace(finding, what=redact(finding.what)) for finding in report.findings]
    errors = [finding for finding in found if finding.severity == "error"]
    if format == "json":
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in found]))
        return int(bool(errors))
    for finding in found:
        typer.echo(f"{finding.severity}: {finding.rule}: {finding.where}: {finding.what}")
        typer.echo(f"    {finding.fix}")
    counts = [_count(len(errors), "error"), _count(len(found) - len(errors), "note")]
    if report.not_applied:
        names = ", ".join(report.not_applied)
        counts.append(f"{len(report.not_applied)} not applied because of errors: {names}")
    typer.echo(f"{len(RULES)} rules: {', '.join(counts)}")
    return int(bool(errors))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
