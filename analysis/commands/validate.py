"""``python -m analysis validate``: findings as text or JSON, and what a rule means."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import typer

from analysis.checks import RULES, read_subject, rule_of, validate
from analysis.logs.competition import OfficialTargets, Ruleset, read_official_targets
from analysis.scoring.strict_rules import Demands, demands_of
from analysis.text import plain
from metaopt.bench.findings import Finding

_LISTED = 5


def print_findings(
    logs: Path,
    within: str | None,
    *,
    targets: Path | None = None,
    ruleset: Ruleset | None = None,
    studies: int | None = None,
    trials: int | None = None,
    budget_factor: float | None = None,
    as_json: bool = False,
    everything: bool = False,
) -> int:
    """Print what is wrong with logs and return the exit code.

    Returns:
        0 if nothing is wrong, whatever is noted; 1 if anything is.
    """
    official = None if targets is None else read_official_targets(targets)
    asked = studies, trials, budget_factor
    demands = None
    if ruleset is not None or any(value is not None for value in asked):
        demands = _demands(official, ruleset or "external", asked)
    subject = read_subject(logs, within, targets=official, demands=demands)
    found = validate(subject)
    errors = sum(finding.severity == "error" for finding in found)
    if as_json:
        counts = {"errors": errors, "notes": len(found) - errors, "trials": len(subject.trials)}
        findings = [dataclasses.asdict(finding) for finding in found]
        typer.echo(json.dumps({**counts, "findings": findings}))
    else:
        _print_lines(found, everything)
        typer.echo(
            f"{len(subject.trials):,} trials, {len(RULES)} rules: {_count(errors, 'error')}, "
            f"{_count(len(found) - errors, 'note')}"
        )
    return 1 if errors else 0


def print_rules(id: str | None, as_json: bool = False) -> None:
    """Print what one rule means and how to mend it, or a list of all."""
    chosen = RULES if id is None else (rule_of(id),)
    if as_json:
        names = ("id", "title", "means", "mend")
        typer.echo(json.dumps([{n: getattr(rule, n) for n in names} for rule in chosen]))
        return
    for rule in chosen:
        typer.echo(f"{rule.id}: {rule.title}")
        if id is not None:
            typer.echo(f"    It means: {rule.means}\n    To mend it: {rule.mend}")


def _demands(
    targets: OfficialTargets | None,
    ruleset: Ruleset,
    asked: tuple[int | None, int | None, float | None],
) -> Demands:
    studies, trials, factor = asked
    return demands_of(
        targets or OfficialTargets((), (), {}),
        ruleset,
        studies=studies,
        trials=trials,
        budget_factor=factor,
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _print_lines(found: list[Finding], everything: bool) -> None:
    counts = Counter(finding.rule for finding in found)
    printed: Counter[str] = Counter()
    for finding in found:
        printed[finding.rule] += 1
        number = printed[finding.rule]
        if everything or number <= _LISTED:
            where = plain(finding.where)
            typer.echo(f"{finding.severity}: {finding.rule}: {where}: {plain(finding.what)}")
        if number == (counts[finding.rule] if everything else min(_LISTED, counts[finding.rule])):
            if (more := counts[finding.rule] - number) > 0:
                typer.echo(f"    and {more:,} more; --all prints them")
            typer.echo(f"    {finding.fix}")
