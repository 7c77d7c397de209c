"""A table as Markdown, CSV or LaTeX; a stranger's text stays text in each."""

from enum import StrEnum

from analysis.report.latex import latex_table
from analysis.report.pages import csv_text
from analysis.report.tables import Table
from analysis.text import escape_markdown


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


def as_text(table: Table, format: Format) -> str:
    """Return a table as Markdown, as CSV (without the caption) or as LaTeX."""
    writers = {Format.MARKDOWN: markdown, Format.CSV: csv, Format.LATEX: latex_table}
    return writers[format](table)


def markdown(table: Table) -> str:
    """Return a pipe table with its caption below."""
    lines = [
        _row(table.header),
        "|" + "---|" * len(table.header),
        *map(_row, table.rows),
        "",
        escape_markdown(table.caption),
        "",
    ]
    return "\n".join(lines)


def csv(table: Table) -> str:
    """Return a CSV file, as it is seen: rounded."""
    return csv_text(table.header, table.rows)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(escape_markdown, cells)) + " |"
