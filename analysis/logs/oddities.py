"""Oddities: problems that the reader notes in logs. None of them is fatal.

Each has the id of the rule of :mod:`analysis.checks` that it breaks. The rule holds the severity
and the remedy.
"""

from typing import NamedTuple

MAX_ODDITIES = 10_000  # kept; the others are counted


class Oddity(NamedTuple):
    """A problem in logs."""

    rule: str  # of analysis.checks
    where: str  # a path in the logs
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Oddities:
    """A collection of distinct oddities, in the order in which they were noted."""

    def __init__(self) -> None:
        self.seen: dict[Oddity, None] = {}
        self.dropped = 0

    def add(self, rule: str, where: str, what: str) -> None:
        """Add an oddity."""
        oddity = Oddity(rule, where, what)
        if len(self.seen) < MAX_ODDITIES:
            self.seen[oddity] = None
        elif oddity not in self.seen:
            self.dropped += 1

    def all(self) -> tuple[Oddity, ...]:
        """Return the oddities, sorted; if some were dropped, the last entry counts them."""
        found = sorted(self.seen)
        if self.dropped:
            found.append(Oddity("files-size", ".", f"{self.dropped:,} more oddities, not kept"))
        return tuple(found)
