r"""Tables in LaTeX that compile with pdfLaTeX, XeLaTeX and LuaLaTeX for any content of cells.

They need the packages ``booktabs`` and ``longtable``, which every distribution has.
"""

import unicodedata
from collections.abc import Iterable

from analysis.report.table import Table
from analysis.wording import plain

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    # These would form ligatures; a bracket could be read as an argument.
    "-": "-{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}", "[": "{[}", "]": "{]}",
    "*": "{*}", "§": r"\S{}", "†": r"\dag{}", "‡": r"\ddag{}", "✗": r"$\times$",
}  # fmt: skip
_WIDEST = 9  # columns per table; further columns go into a table below it
_LONG = 40  # characters of a cell; a column with longer cells breaks lines


def latex_text(text: object) -> str:
    r"""Return text with all characters that are special in LaTeX escaped.

    Letters that T1 fonts may lack are replaced by their code points, because some engines stop at
    them and others print nothing.

    Examples:
        >>> latex_text("50 % of a_b"), latex_text("\N{GREEK SMALL LETTER ALPHA}")
        ('50 \\% of a\\_b', '{[}U+03B1{]}')
    """
    return "".join(_ESCAPES.get(c) or (c if _is_printable(c) else _number(c)) for c in plain(text))


def latex_table(table: Table) -> str:
    """Return a ``longtable`` with its caption, followed by further ones if it is too wide."""
    rest = range(1, len(table.columns))
    cuts = [rest[i : i + _WIDEST - 1] for i in range(0, len(rest), _WIDEST - 1)] or [rest]
    parts = [_one_table(table, [0, *cut], is_first=cut is cuts[0]) for cut in cuts]
    return "\n".join([*parts, *(f"{latex_text(note)}\n" for note in table.notes)])


def _one_table(table: Table, places: list[int], *, is_first: bool) -> str:
    part = table.with_columns(places)
    texts = list(zip(part.header, *part.texts, strict=True))
    long = [max(map(len, column)) > _LONG for column in texts]
    width = 0.8 / max(1, sum(long) + 0.12 * (len(long) - sum(long)))
    kinds = [
        rf"p{{{min(width, 0.6):.2f}\linewidth}}" if wide else "l" if column.format.is_text else "r"
        for wide, column in zip(long, part.columns, strict=True)
    ]
    caption = table.caption if is_first else ""
    lines = [
        rf"\begin{{longtable}}{{@{{}}{''.join(kinds)}@{{}}}}",
        *([rf"\caption{{{latex_text(caption)}}} \\"] if caption else []),
        r"\toprule",
        _row(part.header),
        r"\midrule",
        r"\endhead",
        *map(_row, part.texts),
        r"\bottomrule",
        r"\end{longtable}",
        "",
    ]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    # Without braces, TeX could read the start of a row as an argument of the line before.
    return " & ".join(f"{{{latex_text(cell)}}}" for cell in cells) + r" \\"


def _is_printable(character: str) -> bool:
    """Return whether every engine prints it with a T1 font: ASCII and the letters of Latin-1."""
    return character.isascii() or (
        "À" <= character <= "ÿ" and character not in "\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}"
    )


def _number(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return "~"
    return f"{{[}}U+{ord(character):04X}{{]}}"
