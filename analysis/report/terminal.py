"""Tables and notes in a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from analysis.report.table import Table
from analysis.wording import plain


def print_in_terminal(
    tables: Sequence[Table], notes: Sequence[str], console: Console | None = None
) -> None:
    """Print notes, then tables, each in parts that fit the width, with captions and notes below."""
    console = console or Console()
    for note in notes:
        print_note(note, console)
    for index, table in enumerate(tables):
        if index:
            console.print()
        print_table(table, console)


def print_answer(problems: Sequence[str], answer: str) -> None:
    """Print what is wrong, then the answer, as the last lines of a command."""
    console = Console()
    console.print()
    for problem in problems:
        print_note(problem, console)
    print_note(answer, console, "bold")


def print_note(text: str, console: Console, style: str = "yellow") -> None:
    """Print a paragraph."""
    console.print(escape(plain(text)), style=style, highlight=False)


def print_table(table: Table, console: Console) -> None:
    """Print a table in parts that fit the width, with its caption and notes below."""
    texts = list(zip(table.header, *table.texts, strict=True))
    widths = [max(map(len, column)) + 3 for column in texts]
    for places in _parts(widths, table.keys, console.width):
        part = table.with_columns(places)
        rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for place, name in zip(places, part.header, strict=True):
            justify = "left" if place < table.keys else "right"
            rich.add_column(escape(name), justify=justify, overflow="fold")
        for row in part.texts:
            rich.add_row(*map(escape, row))
        console.print(rich)
        console.print()
    for text in (table.caption, *table.notes):
        print_note(text, console, "dim")


def _parts(widths: list[int], keys: int, width: int) -> list[list[int]]:
    """Divide columns into groups that fit the width, each starting with the key columns."""
    first = list(range(keys))
    parts = [[*first]]
    for place in range(keys, len(widths)):
        if len(parts[-1]) > keys and sum(widths[i] for i in [*parts[-1], place]) > width:
            parts.append([*first])
        parts[-1].append(place)
    return parts
