r"""Tables in LaTeX: they compile with pdfLaTeX, XeLaTeX and LuaLaTeX, whatever the cells hold.

Only ``booktabs`` and ``longtable`` are needed, which every distribution has.
"""

import unicodedata
from collections.abc import Iterable

from analysis.report.tables import Shown, Table
from analysis.text import plain

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    # Ligatures would make other characters of these; a bracket may be taken for an argument.
    "-": "-{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}", "[": "{[}", "]": "{]}",
    "*": "{*}", "∞": r"$\infty$",
}  # fmt: skip
_HEAD = r"""\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage[margin=1.5cm]{geometry}
\usepackage{booktabs,longtable}
\setlength{\tabcolsep}{3pt}
\begin{document}
"""
_WIDEST = 9  # columns of a page; a table with more is continued in a table below it
_LONG = 40  # characters of a cell above which its column breaks lines


def latex_text(text: object) -> str:
    r"""Return text that LaTeX prints as it is.

    Letters that T1 fonts may lack are written as their number, for one engine would stop there and
    another would print nothing.

    Examples:
        >>> latex_text("50 % of a_b"), latex_text("\N{GREEK SMALL LETTER ALPHA}")
        ('50 \\% of a\\_b', '{[}U+03B1{]}')
    """
    return "".join(_ESCAPES.get(c) or (c if _is_printable(c) else _number(c)) for c in plain(text))


def latex_table(table: Table) -> str:
    """Return one ``longtable`` with its caption; more below it where there are too many columns."""
    return "\n".join(_one_table(part) for part in _parts(table))


def latex_document(title: str, sections: Iterable[tuple[str, Iterable[Table]]]) -> str:
    """Return a whole document: the tables under their headings; those without any are left out."""
    lines = [_HEAD, rf"\section*{{{latex_text(title)}}}", r"\footnotesize", ""]
    for heading, tables in sections:
        shown = [latex_table(table) for table in tables if table.rows]
        if shown:
            lines += [rf"\subsection*{{{latex_text(heading)}}}", "", *shown]
    return "\n".join([*lines, r"\end{document}", ""])


def _one_table(table: Table) -> str:
    columns = list(zip(table.header, *table.rows, strict=True))
    long = [max(map(len, column)) > _LONG for column in columns]
    width = 0.8 / max(1, sum(long) + 0.12 * (len(long) - sum(long)))
    numbers = [all(isinstance(cell, Shown) for cell in column[1:]) for column in columns]
    kinds = [
        rf"p{{{min(width, 0.6):.2f}\linewidth}}" if wide else "r" if number else "l"
        for wide, number in zip(long, numbers, strict=True)
    ]
    lines = [
        rf"\begin{{longtable}}{{@{{}}{''.join(kinds)}@{{}}}}",
        *([rf"\caption{{{latex_text(table.caption)}}} \\"] if table.caption else []),
        r"\toprule",
        _row(table.header),
        r"\midrule",
        r"\endhead",
        *(_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{longtable}",
        "",
    ]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    # Braces: a row must not begin with what could be an argument of the line before.
    return " & ".join(f"{{{latex_text(cell)}}}" for cell in cells) + r" \\"


def _parts(table: Table) -> list[Table]:
    """Cut a wide table into tables that each have its first column."""
    rest = range(1, len(table.header))
    cuts = [rest[i : i + _WIDEST - 1] for i in range(0, len(rest), _WIDEST - 1)] or [rest]
    return [
        Table(
            table.caption if cut is cuts[0] else "",
            tuple(table.header[i] for i in (0, *cut)),
            tuple(tuple(row[i] for i in (0, *cut)) for row in table.rows),
        )
        for cut in cuts
    ]


def _is_printable(character: str) -> bool:
    """Tell whether any engine with a T1 font prints it: ASCII, and Latin-1's letters."""
    return character.isascii() or (
        "À" <= character <= "ÿ" and character not in "\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}"
    )


def _number(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return "~"
    return f"{{[}}U+{ord(character):04X}{{]}}"
