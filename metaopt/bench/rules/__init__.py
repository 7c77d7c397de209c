"""The rules as software: what would disqualify or break a submission, or a workload."""

from metaopt.bench.records.findings import Finding, Problem, Rule
from metaopt.bench.rules.check import (
    DEFAULT_TIMEOUT_SECONDS,
    RULES,
    check,
    check_apart,
    rules_left_out,
)

__all__ = [
    "DEFAULT_TIMEOUT_SECONDS",
    "RULES",
    "Finding",
    "Problem",
    "Rule",
    "check",
    "check_apart",
    "rules_left_out",
]
