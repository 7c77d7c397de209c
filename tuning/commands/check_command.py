"""``python -m tuning check``: what would disqualify or break a submission."""

import dataclasses
import json

import typer

from metaopt.bench.contract.loading import find_submission_folder
from metaopt.bench.records.redaction import redact
from metaopt.bench.rules.check import RULES, check_apart, rules_left_out
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
    found = [
        dataclasses.replace(finding, what=redact(finding.what))
        for finding in check_apart(folder, timeout=timeout)
    ]
    errors = [finding for finding in found if finding.severity == "error"]
    if format == "json":
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in found]))
        return int(bool(errors))
    for finding in found:
        typer.echo(f"{finding.severity}: {finding.rule}: {finding.where}: {finding.what}")
        typer.echo(f"    {finding.fix}")
    counts = [_count(len(errors), "error"), _count(len(found) - len(errors), "note")]
    if left_out := rules_left_out(found):
        counts.append(f"{len(left_out)} not applied for these errors: {', '.join(left_out)}")
    typer.echo(f"{len(RULES)} rules: {', '.join(counts)}")
    return int(bool(errors))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
