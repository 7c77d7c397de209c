"""A table as Markdown, CSV or LaTeX; a stranger's text stays text in each."""

from analysis.latex import latex_table
from analysis.pages import csv_text
from analysis.tables import Table
from analysis.text import escape_markdown


def render(table: Table, format: str) -> str:
    """Return a table as text.

    Args:
        table: The table.
        format: ``markdown``, ``csv`` (without the caption) or ``latex``.
    """
    return {"markdown": markdown, "csv": csv, "latex": latex_table}[format](table)


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
