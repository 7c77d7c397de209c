"""All rules on logs, in the order in which they are reported."""

from analysis.checks import (
    budgets,
    clocks,
    columns,
    environment,
    files,
    pairing,
    seeds,
    targets,
)
from analysis.checks.subject import LogRule, LogSubject
from metaopt.bench.findings import Finding

_FAMILIES = (files, columns, clocks, seeds, budgets, targets, environment, pairing)
RULES: tuple[LogRule, ...] = tuple(rule for family in _FAMILIES for rule in family.RULES)


def validate(subject: LogSubject) -> list[Finding]:
    """Return what the rules find, in their order."""
    return [finding for rule in RULES for finding in rule.check(subject)]


def rule_of(id: str) -> LogRule:
    """Return a rule by its id.

    Raises:
        ValueError: There is none.
    """
    for rule in RULES:
        if rule.id == id:
            return rule
    raise ValueError(f"No rule {id!r}, only {[rule.id for rule in RULES]}.")
