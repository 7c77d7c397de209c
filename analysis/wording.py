"""The words and forms that all outputs share: a miss, lists, Markdown tables, escaped names."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

MISSED = "missed"  # a target that was not reached, in every table, plot and note
MAX_LISTED = 5  # entries of a note in a terminal


def plain(text: Any) -> str:
    """Return text without control characters, so that names in logs cannot drive a terminal."""
    return "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
                   for c in str(text))  # fmt: skip


def spreadsheet_cell(text: Any) -> str:
    """Return text that a spreadsheet does not treat as a formula."""
    text = plain(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and text != "-" else text


def escape_markdown(text: Any) -> str:
    """Return text that Markdown shows as it is."""
    return "".join("\\" + c if c in "\\|<>*_`[]$&" else c for c in plain(text))


def pipe_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, with its cells escaped and without a line break at its end."""
    lines = (f"| {' | '.join(map(escape_markdown, row))} |" for row in (header, *rows))
    first, *others = lines
    return "\n".join([first, "|" + "---|" * len(header), *others])


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 trial`` or ``2,000 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def join_entries(entries: Sequence[str], most: int | None = MAX_LISTED) -> str:
    """Join the first ``most`` entries of a list, or all, and say how many more there are.

    Examples:
        >>> join_entries(["a", "b."]), join_entries(list("abcdefg"))
        ('a; b.', 'a; b; c; d; e; and 2 more.')
    """
    shown = entries[:most]
    more = f"; and {len(entries) - len(shown)} more" if len(entries) > len(shown) else ""
    return f"{'; '.join(entry.rstrip('.') for entry in shown)}{more}."
