"""``python -m analysis validate``: findings and rules as text, Markdown or JSON."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import typer

from analysis.checks.acceptance import ReviewedFinding, read_acceptances, review_findings
from analysis.checks.rules import RULES
from analysis.checks.validation import read_for_checks, rule_of, validate
from analysis.commands.log_options import LogOptions
from analysis.report.formats import Format
from analysis.wording import counted, pipe_table, plain

_LISTED = 5


def print_findings(
    source: LogOptions,
    *,
    accept: Path | None = None,
    format: Format = Format.TABLE,
    everything: bool = False,
) -> int:
    """Print the problems of logs and return the exit code.

    Args:
        source: The logs.
        accept: A file of accepted findings.
        format: Table, Markdown or JSON; the last two have every finding.
        everything: Whether a table has every finding, and not the first ones of each rule.

    Returns:
        0 without errors except accepted ones, 1 otherwise.
    """
    accepted = () if accept is None else read_acceptances(accept)
    logs = read_for_checks(source.logs[0], source.within, source.competition())
    source.check_options(logs)
    found = review_findings(validate(logs), accepted)
    counts = Counter("accepted" if one.accepted else one.finding.severity for one in found)
    trials = len(logs.all_trials)
    if format is Format.JSON:
        findings = [dataclasses.asdict(one.finding) | {"accepted": one.accepted} for one in found]
        numbers = {"errors": counts["error"], "notes": counts["note"]}
        numbers |= {"accepted": counts["accepted"], "trials": trials}
        typer.echo(json.dumps({**numbers, "findings": findings}))
    else:
        summary = (
            f"{counted(trials, 'trial')}, {len(RULES)} rules: {counted(counts['error'], 'error')}, "
            f"{counted(counts['note'], 'note')}"
        )
        if accept is not None:
            summary += f", {counts['accepted']:,} accepted"
        if format is Format.MARKDOWN:
            header = ("severity", "rule", "where", "problem", "accepted")
            rows = ((f.severity, f.rule, f.where, f.what, why or "") for f, why in found)
            typer.echo(f"{pipe_table(header, rows)}\n\n{summary}")
        else:
            _print_lines(found, everything)
            typer.echo(summary)
    return 1 if counts["error"] else 0


def print_rules(id: str | None, format: Format = Format.TABLE) -> None:
    """Print all rules, or the meaning and the remedy of one."""
    chosen = RULES if id is None else [rule_of(id)]
    names = ("id", "title", "severity", "strict", "means", "fix")
    if format is Format.JSON:
        typer.echo(json.dumps([{name: getattr(rule, name) for name in names} for rule in chosen]))
    elif format is Format.MARKDOWN:
        header = ("rule", "good logs", "validate / submit", "if it is broken", "to fix it")
        rows = ((r.id, r.title, f"{r.severity} / {r.strict}", r.means, r.fix) for r in chosen)
        typer.echo(pipe_table(header, rows))
    else:
        for rule in chosen:
            typer.echo(f"{rule.id}: {rule.title}")
            if id is not None:
                typer.echo(f"    If it is broken: {rule.means}\n    To fix it: {rule.fix}")


def _print_lines(found: list[ReviewedFinding], everything: bool) -> None:
    shown = [one for one in found if everything or not one.accepted]
    counts = Counter(one.finding.rule for one in shown)
    printed: Counter[str] = Counter()
    for finding, reason in shown:
        printed[finding.rule] += 1
        number, last = printed[finding.rule], counts[finding.rule]
        if not everything:
            last = min(_LISTED, last)
        if number <= last:
            head = f"accepted {finding.severity}" if reason else finding.severity
            why = f" (accepted: {plain(reason)})" if reason else ""
            where = plain(finding.where)
            typer.echo(f"{head}: {finding.rule}: {where}: {plain(finding.what)}{why}")
        if number == last:
            if (more := counts[finding.rule] - number) > 0:
                typer.echo(f"    and {more:,} more; --all prints them")
            typer.echo(f"    {finding.fix}")
