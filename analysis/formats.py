"""A table as Markdown, CSV or LaTeX; a stranger's text stays text in each."""

from analysis.pages import csv_text
from analysis.tables import Table
from analysis.text import escape_markdown, plain

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "∞": r"$\infty$",
}  # fmt: skip


def render(table: Table, format: str) -> str:
    """Return a table as text.

    Args:
        table: The table.
        format: ``markdown``, ``csv`` (without the caption) or ``latex``.
    """
    return {"markdown": markdown, "csv": csv, "latex": latex}[format](table)


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


def latex(table: Table) -> str:
    """Return a ``table`` environment for the package booktabs."""
    body = [" & ".join(map(escape_latex, row)) + r" \\" for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\caption{" + escape_latex(table.caption) + "}",
            r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}",
            r"\toprule",
            " & ".join(map(escape_latex, table.header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return "".join(_LATEX.get(c, c) for c in plain(text))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(escape_markdown, cells)) + " |"
