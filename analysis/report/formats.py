"""Tables in every output format: terminal, Markdown, CSV, JSON and LaTeX.

Untrusted text is escaped in each format. Notes are printed in every format; with CSV they go to
standard error, so that standard output is valid CSV.
"""

import csv
import io
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import typer

from analysis.report.latex import latex_table, latex_text
from analysis.report.table import Table, is_missed, is_undefined
from analysis.wording import MISSED, escape_markdown, pipe_table, plain, spreadsheet_cell


class Format(StrEnum):
    """The output formats."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


def print_tables(
    tables: Sequence[Table],
    notes: Sequence[str] = (),
    format: Format = Format.TABLE,
    **more: Any,
) -> None:
    """Print tables with their captions and notes, and notes on all of them.

    Args:
        tables: The tables, in their order.
        notes: The notes; printed first in a terminal, last in the other formats.
        format: The output format.
        more: Further entries of the JSON document.
    """
    if format is Format.TABLE:
        from analysis.report.terminal import print_in_terminal

        print_in_terminal(tables, notes)
    elif format is Format.JSON:
        typer.echo(json.dumps(json_document(tables, notes, **more), allow_nan=False))
    elif format is Format.CSV:
        typer.echo("\n".join(map(table_csv, tables)), nl=False)
        for note in [*notes, *(note for table in tables for note in table.notes)]:
            typer.echo(f"analysis: {plain(note)}", err=True)
    elif format is Format.MARKDOWN:
        said = [f"{escape_markdown(note)}\n" for note in notes]
        typer.echo("\n".join([*map(markdown_table, tables), *said]), nl=False)
    else:
        said = [f"{latex_text(note)}\n" for note in notes]
        typer.echo("\n".join([*map(latex_table, tables), *said]), nl=False)


def json_document(tables: Sequence[Table], notes: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return tables and notes as JSON data."""
    return {
        **more,
        "tables": [
            {
                "name": table.name,
                "caption": table.caption,
                "rows": [{k: json_value(v) for k, v in row.items()} for row in table.records],
                "notes": list(table.notes),
            }
            for table in tables
        ],
        "notes": list(notes),
    }


def json_value(value: Any) -> Any:
    """Return a value for JSON: ``"missed"`` for a miss, ``None`` for an undefined value.

    Examples:
        >>> json_value(float("inf")), json_value(float("nan")), json_value(2.5)
        ('missed', None, 2.5)
    """
    if is_undefined(value):
        return None
    if is_missed(value):
        return MISSED
    return value.item() if hasattr(value, "item") else value


def markdown_table(table: Table) -> str:
    """Return a pipe table with its caption and notes below."""
    texts = [pipe_table(table.header, table.texts)]
    texts += [escape_markdown(text) for text in (table.caption, *table.notes)]
    return "\n\n".join(texts) + "\n"


def table_csv(table: Table) -> str:
    """Return a table's values as CSV, in full precision."""
    rows = [tuple(record.values()) for record in table.records]
    return csv_text(table.fields, rows)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return CSV text: numbers in full precision, and no cell that a spreadsheet would evaluate.

    A miss is ``missed``, an undefined value an empty cell.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(spreadsheet_cell, header))
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    value = json_value(value)
    if value is None:
        return ""
    return repr(value) if isinstance(value, int | float) else spreadsheet_cell(value)
