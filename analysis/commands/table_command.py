"""``python -m analysis table``: every evaluation as one long table, in every format."""

import contextlib
import io
from pathlib import Path

import typer

from analysis.report.formats import Format, print_tables
from analysis.report.long_table import read_table, shown_table
from analysis.report.pages import write_csv
from analysis.report.publish import publish


def print_evaluations(logs: Path, within: str | None, out: Path | None, format: Format) -> None:
    """Write the table to a file or to standard output, and the number of problems to stderr.

    Raises:
        ValueError: There is nothing to read, or ``out`` is a link, a folder or a device.
    """
    found, notes = read_table(logs, within)
    if format is Format.CSV:
        write_csv(found, out)
    elif out is None:
        print_tables([shown_table(found)], format=format)
    else:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            print_tables([shown_table(found)], format=format)
        publish(out, text.getvalue())
    if notes:
        typer.echo(
            f"analysis: {len(notes)} problems in the logs; `python -m analysis validate` "
            "lists them.",
            err=True,
        )
