"""The leaderboard as a whole: entries, the standings that they make, and links between pages."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from analysis.leaderboard.board_tables import MeasuredStanding
from analysis.leaderboard.entries import Authorship, CampaignEntry, Entry
from analysis.leaderboard.links import (
    CONTENDERS,
    PROTOCOLS,
    WORKLOADS,
    code_link,
    commit_link,
    href,
    page_path,
    safe_link,
)
from analysis.leaderboard.standings import standings
from analysis.report.marks import Marks
from analysis.wording import plain

Links = dict[str, dict[str, str]]  # by column, then by the shown text
_NO_MARKS = Marks()


@dataclasses.dataclass(frozen=True)
class Board:
    """What all pages are made of.

    Attributes:
        entries: The records, in their order.
        parts: The standings, by protocol and hardware.
        address: The address of the project's repository, if it has one.
        is_own: Whether it is the leaderboard of the checkout, so that relative links reach code.
    """

    entries: tuple[Entry, ...]
    parts: tuple[MeasuredStanding, ...]
    address: str | None
    is_own: bool

    @property
    def protocols(self) -> dict[str, list[MeasuredStanding]]:
        """The standings of each protocol, one for each hardware."""
        found: dict[str, list[MeasuredStanding]] = {}
        for part in self.parts:
            found.setdefault(part.standing.campaign, []).append(part)
        return found

    @property
    def contenders(self) -> list[str]:
        """The names of all contenders."""
        return sorted({entry.contender for entry in self.entries})

    @property
    def workloads(self) -> list[str]:
        """The names of all workloads."""
        return sorted({entry.workload for entry in self.entries})

    def campaign_entries(self, contender: str) -> list[CampaignEntry]:
        """Return a contender's entries in all protocols, on all hardware and workloads."""
        return [
            entry.campaigns[name]
            for entry in self.entries
            if entry.contender == contender
            for name in sorted(entry.campaigns)
        ]

    def about(self, contender: str) -> Authorship | None:
        """Return the description of a contender's submission, of its newest entry that has one."""
        described = [
            (entry.last_day, entry.first_day, place, entry.about)
            for place, entry in enumerate(self.campaign_entries(contender))
            if entry.about is not None
        ]
        return max(described, key=lambda one: one[:3])[3] if described else None

    def links(
        self, root: str = "../", marks: Marks = _NO_MARKS, records: Iterable[Path] = ()
    ) -> Links:
        """Return the links of a page's tables.

        Args:
            root: The way from the page to the leaderboard.
            marks: The marks behind the contenders' names in the tables.
            records: The paths of the records that the tables name.
        """
        commits = {
            commit for e in self.entries for c in e.campaigns.values() for commit in c.commits
        }
        contenders = {
            text: href(page_path(CONTENDERS, name), root)
            for name in self.contenders
            for text in (plain(name), plain(marks.marked(name)))
        }
        return {
            "protocol": _pages(PROTOCOLS, self.protocols, root),
            "contender": contenders,
            "versus": contenders,
            "leading": contenders,
            "workload": _pages(WORKLOADS, self.workloads, root),
            "commit": {
                plain(commit)[:12]: link
                for commit in sorted(commits)
                if (link := commit_link(commit, self.address)) is not None
            },
            "record": {plain(path.as_posix()): href(path, root) for path in records},
        }

    def code_links(self, entries: Sequence[CampaignEntry]) -> dict[str, str]:
        """Return the links to the code of submissions by their names."""
        found = {plain(e.submission): code_link(e, "../", self.address) for e in entries}
        return {
            name: link
            for name, link in found.items()
            if link is not None and (self.is_own or safe_link(link))
        }


def board_of(
    entries: Sequence[Entry],
    address: str | None,
    is_own: bool = True,
    planned: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Board:
    """Return the leaderboard that entries make.

    For the arguments see :class:`Board` and :func:`~analysis.leaderboard.standings.standings`.

    Raises:
        ValueError: Entries of one protocol were not run under the same rules.
    """
    names = {entry.hardware.slug: entry.hardware.name for entry in entries}
    parts = (
        MeasuredStanding(standing, f"{names[standing.hardware]} ({standing.hardware})")
        for standing in standings(entries, planned)
    )
    return Board(tuple(entries), tuple(parts), address, is_own)


def _pages(kind: str, names: Iterable[str] | Mapping[str, object], root: str) -> dict[str, str]:
    return {plain(name): href(page_path(kind, name), root) for name in names}
