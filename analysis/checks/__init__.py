"""Problems of logs: one list of rules for `validate`, `verify` and `submit`."""

# Imported here, so that the list of rules is complete and sorted for every importer.
from analysis.checks.rules import RULES as RULES
from analysis.checks.validation import read_for_checks as read_for_checks
from analysis.checks.validation import rule_of as rule_of
from analysis.checks.validation import validate as validate
