"""Oddities: what reading noticed in logs, as data. None of them is fatal.

Each carries the name of the rule of :mod:`analysis.checks` that it breaks, so that the rule's text,
its severity and what to do about it are written down once.
"""

from typing import NamedTuple

MAX_ODDITIES = 10_000  # kept; the others are counted


class Oddity(NamedTuple):
    """Something that sound logs do not have."""

    rule: str  # of analysis.checks
    where: str  # a path in the logs
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Oddities:
    """A collection of oddities without repetition, in the order in which they were noticed."""

    def __init__(self) -> None:
        self.seen: dict[Oddity, None] = {}
        self.dropped = 0

    def add(self, rule: str, where: str, what: str) -> None:
        """Add one."""
        oddity = Oddity(rule, where, what)
        if len(self.seen) < MAX_ODDITIES:
            self.seen[oddity] = None
        elif oddity not in self.seen:
            self.dropped += 1

    def all(self) -> tuple[Oddity, ...]:
        """Return all of them sorted; if some were dropped, the last one says how many."""
        found = sorted(self.seen)
        if self.dropped:
            found.append(Oddity("files-size", ".", f"{self.dropped:,} more oddities, not kept"))
        return tuple(found)
