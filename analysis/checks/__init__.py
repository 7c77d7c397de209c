"""Problems of logs: one list of rules for `validate`, `verify` and `submit`."""

# First of all modules here: the list of rules is complete and in order, whoever imports from it.
from analysis.checks.check import read_for_checks as read_for_checks
from analysis.checks.check import rule_of as rule_of
from analysis.checks.check import validate as validate
from analysis.checks.rules import RULES as RULES
