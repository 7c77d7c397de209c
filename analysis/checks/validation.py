"""Check logs against all rules, in the order of the report."""

import dataclasses
from collections import Counter
from pathlib import Path

from analysis.checks import (  # noqa: F401  # importing these adds their rules to the list
    acceptance,
    budgets,
    clocks,
    columns,
    environment,
    files,
    pairing,
    seeds,
    targets,
)
from analysis.checks.rules import RULES, LogRule
from analysis.logs.competition import Competition
from analysis.logs.logs import Logs
from analysis.logs.reader import DEFAULT_COMPETITION, read_logs
from metaopt.bench.records import RUN_FILE
from metaopt.bench.records.findings import Finding

_FAMILIES = (
    "files", "columns", "types", "clocks", "seeds", "budgets", "trials", "targets", "environment",
    "pairing", "accept",
)  # fmt: skip
RULES.sort(key=lambda rule: _FAMILIES.index(rule.id.partition("-")[0]))


def read_for_checks(
    path: Path, within: str | None = None, competition: Competition = DEFAULT_COMPETITION
) -> Logs:
    """Read logs even if no trial counts; raise like :func:`read_logs`.

    Our own logs are not read as AlgoPerf's if there is a targets' file; the rules compare them with
    it.
    """
    logs = read_logs(path, within, competition, uncounted=True)
    everything = logs.all_trials
    if logs.is_ours or not any(RUN_FILE in trial.files for trial in everything):
        return logs
    own = dataclasses.replace(competition, targets=None)
    ours = read_logs(path, within, own, uncounted=True)
    return dataclasses.replace(ours, competition=competition)


def validate(logs: Logs, *, strict: bool = False) -> list[Finding]:
    """Return all problems of logs, rule by rule.

    Args:
        logs: The logs.
        strict: Whether to use the severities of `submit`.
    """
    return [
        Finding(rule.id, rule.strict if strict else rule.severity, what, where, rule.fix)
        for rule in RULES
        for where, what in rule.problems(logs)
    ]


def errors_by_rule(found: list[Finding]) -> list[str]:
    """Return one line for each rule with errors: the first error and the number of others."""
    errors = [finding for finding in found if finding.severity == "error"]
    counts = Counter(finding.rule for finding in errors)
    firsts = {finding.rule: finding for finding in reversed(errors)}
    return [
        f"{id}: {firsts[id].where}: {firsts[id].what}"
        + (f"; and {count - 1} more" if count > 1 else "")
        for id, count in counts.items()
    ]


def rule_of(id: str) -> LogRule:
    """Return a rule by its id.

    Raises:
        ValueError: There is no such rule.
    """
    for rule in RULES:
        if rule.id == id:
            return rule
    raise ValueError(f"No rule {id!r}, only {[rule.id for rule in RULES]}.")


def problem_sentences(id: str, logs: Logs) -> list[str]:
    """Return one rule's problems as sentences."""
    return [f"{where}: {what}" for where, what in rule_of(id).problems(logs)]
