"""What is wrong with logs, rule by rule: official ones and ours."""

from analysis.checks.check import RULES, rule_of, validate
from analysis.checks.subject import LogRule, LogSubject, read_subject

__all__ = ["RULES", "LogRule", "LogSubject", "read_subject", "rule_of", "validate"]
