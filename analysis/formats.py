"""A table in the formats that commands print."""

from enum import StrEnum

from analysis.tables import Table
from analysis.text import escape_markdown, plain


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "∞": r"$\infty$",
}  # fmt: skip


def as_text(table: Table, format: Format) -> str:
    """Return a table as CSV, Markdown or LaTeX, with a line end behind the last line.

    Strangers' names are text in each: no formula, no markup, no command.
    """
    if format is Format.CSV:
        from analysis.pages import csv_text

        return csv_text(table.header, table.rows)
    return markdown(table) if format is Format.MARKDOWN else latex(table)


def markdown(table: Table) -> str:
    r"""Return a table in Markdown.

    Examples:
        >>> print(markdown(Table("", ("name", "score"), (("a|b", "0.5"),))), end="")
        | name | score |
        |---|---|
        | a\|b | 0.5 |
    """
    lines = ["| " + " | ".join(map(escape_markdown, row)) + " |"
             for row in (table.header, *table.rows)]  # fmt: skip
    return "\n".join([lines[0], "|" + "---|" * len(table.header), *lines[1:]]) + "\n"


def latex(table: Table) -> str:
    r"""Return a table in LaTeX, with the rules of the package booktabs.

    Examples:
        >>> print(latex(Table("", ("name", "score"), (("a_b", "0.5"),))), end="")
        \begin{tabular}{lr}
        \toprule
        name & score \\
        \midrule
        a\_b & 0.5 \\
        \bottomrule
        \end{tabular}
    """
    rows = [" & ".join(map(_latex_cell, row)) + r" \\" for row in (table.header, *table.rows)]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}"
    end = [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([begin, r"\toprule", rows[0], r"\midrule", *rows[1:], *end]) + "\n"


def with_caption(table: Table, format: Format) -> str:
    """Return a table as :func:`as_text` does, with its caption; CSV has no place for one."""
    text = as_text(table, format)
    if format is Format.MARKDOWN:
        return f"{text}\n{escape_markdown(table.caption)}\n"
    if format is Format.LATEX:
        caption = _latex_cell(table.caption)
        return f"\\begin{{table}}\n\\caption{{{caption}}}\n{text}\\end{{table}}\n"
    return text


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in plain(text))
