"""Tables in LaTeX: whatever a cell holds, LaTeX sees a table and prints the cell."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.report.latex import latex_table, latex_text
from analysis.report.table import COUNT, Column, Table

HOSTILE = (
    r"\input{/etc/passwd}", r"\write18{rm -rf}", "50 % off", "a_b^c", "$x$", "#1 & co", "{", "}",
    "~", "--", "``quoted''", "[optional]", "*", '"', "a\x1b[31m",
    "\N{SNOWMAN} \N{LATIN SMALL LETTER E WITH ACUTE}",
)  # fmt: skip
# What may stand in a row: letters, escapes that print one character, and braces around them.
COMMANDS = {
    "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<",
    "textgreater": ">", "textbar": "|", "textquotedbl": '"', "textasciigrave": "`",
    "textquotesingle": "'",
}  # fmt: skip
TOKEN = re.compile(r"\\([a-z]+)\{\}|\\([{}$&#%_])|\{(.)\}|(.)\{\}|([^\\{}$&#%_^~])", re.DOTALL)


def printed(source):
    """Read LaTeX as LaTeX does; fails on anything that is not one of the known escapes."""
    text, place = "", 0
    while place < len(source):
        token = TOKEN.match(source, place)
        assert token, source[place : place + 20]
        command, escaped, braced, followed, letter = token.groups()
        text += COMMANDS[command] if command else escaped or braced or followed or letter
        place = token.end()
    return text


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_latex_prints_what_stands_in_a_cell(text):
    assert printed(latex_text(text)) == text


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_cell_is_a_command(text):
    table = Table("caption", (Column("a"), Column("b")), ((text, text),))
    row = latex_table(table).split("\\midrule\n\\endhead\n")[1]
    first, _, rest = row.partition("\n")

    assert rest.startswith("\\bottomrule")
    cells = first.removesuffix(r" \\").split(" & ")
    assert len(cells) == 2
    for cell in cells:
        assert cell[0] == "{" and cell[-1] == "}"
        printed(cell[1:-1])


def test_numbers_stand_right_and_a_wide_table_goes_on_below_with_its_first_column():
    columns = (Column("contender"), *(Column(f"w{i}", COUNT) for i in range(12)))

    text = latex_table(Table("what it shows", columns, (("a", *range(12)),)))

    assert text.count(r"\begin{longtable}") == 2
    assert text.count("{contender}") == 2
    assert r"{@{}lrrrrrrrr@{}}" in text
    assert text.count("what it shows") == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_a_table_of_hostile_cells_compiles(tmp_path):
    columns = tuple(map(Column, HOSTILE))
    table = Table(HOSTILE[0], columns, (HOSTILE, HOSTILE), notes=HOSTILE)
    document = (
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}"
        r"\usepackage{textcomp,booktabs,longtable}\begin{document}"
        f"\n{latex_table(table)}\n" + r"\end{document}"
    )
    (tmp_path / "x.tex").write_text(document, "utf-8")

    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape"]
    run = subprocess.run([*command, "x.tex"], cwd=tmp_path, capture_output=True, timeout=120)

    assert run.returncode == 0, run.stdout[-2000:]
    assert (tmp_path / "x.pdf").stat().st_size > 1000
