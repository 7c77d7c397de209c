"""``python -m analysis hardware``: hardware, with costs and speeds on each, in every format."""

from collections.abc import Sequence
from pathlib import Path

from analysis.commands.log_options import LogOptions
from analysis.logs.logs import Logs
from analysis.report.formats import Format, print_tables
from analysis.report.summary import contender_marks, warning_lines
from analysis.report.tables.hardware_tables import across_hardware_table, hardware_table
from analysis.scoring.costs import View
from analysis.scoring.machines import measure_hardware


def print_hardware(
    paths: Sequence[Path],
    within: str | None,
    targets: Path | None,
    reference: str | None,
    view: View,
    format: Format,
) -> list[Logs]:
    """Print the hardware of logs, with the serious warnings about them, and return the logs.

    Raises:
        ValueError: There is nothing to read, or no run of the reference.
    """
    read = [LogOptions((path,), within, targets).read() for path in paths]
    marks = contender_marks(*read)
    across = across_hardware_table(measure_hardware(read, view), reference, marks)
    everything = format is not Format.TABLE
    notes = [
        line for logs in read for line in warning_lines(logs, everything=everything, serious=True)
    ]
    print_tables([hardware_table(read), across], notes, format)
    return read
