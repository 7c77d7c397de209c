"""``python -m analysis verify``: the verdicts of a rerun, in every format."""

from pathlib import Path

from analysis.checks.validation import errors_by_rule, validate
from analysis.checks.verification import verify
from analysis.logs.reader import read_logs
from analysis.report.formats import Format, print_tables
from analysis.report.tables.verification_table import verdicts_table


def print_verdicts(
    runs: Path, rerun: Path, format: Format = Format.TABLE
) -> tuple[bool, list[str]]:
    """Print the verdict on each contender and workload.

    Returns:
        Whether all of them are verified, and one line for each rule that either run breaks.

    Raises:
        ValueError: There is nothing to read, or the rerun is a copy.
    """
    claimed, again = read_logs(runs), read_logs(rerun)
    verdicts = verify(claimed, again)
    print_tables([verdicts_table(verdicts, claimed, again)], (), format)
    problems = [
        f"{name}: {problem}"
        for name, logs in (("runs", claimed), ("rerun", again))
        for problem in errors_by_rule(validate(logs))
    ]
    return all(verdict.verified for verdict in verdicts), problems
