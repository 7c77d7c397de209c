"""The leaderboard's files, generated from its records; and whether they are up to date."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from analysis.leaderboard.board import Board, board_of
from analysis.leaderboard.entries import read_entries, read_planned
from analysis.leaderboard.links import (
    CONTENDERS,
    PROTOCOLS,
    WORKLOADS,
    href,
    page_path,
    repository,
    safe_link,
)
from analysis.leaderboard.subject_pages import (
    SubjectPage,
    contender_page,
    csv_name,
    days_of,
    protocol_page,
    workload_page,
)
from analysis.report.formats import table_csv
from analysis.report.pages import render_linked_html, render_markdown, source
from analysis.report.publish import publish
from analysis.report.table import COUNT, SHARE, Column, Share, Table
from analysis.report.tables.hardware_tables import fingerprints_table
from analysis.report.tables.statistics_tables import repeatability_warnings
from metaopt.bench.measure.targets import load_targets, to_document

CHECKOUT = Path(__file__).resolve().parents[2]
BOARD = CHECKOUT / "leaderboard"

_STYLE, _SCRIPT = Path("assets/leaderboard.css"), Path("assets/leaderboard.js")
_FOLDERS = (PROTOCOLS, CONTENDERS, WORKLOADS, _STYLE.parent.name)
_REPEATS = {True: "yes", False: "no", None: "not known"}
_ABOUT_SECONDS = (
    "Costs are counted in the currency of the budgets. The records hold seconds as well, but "
)
_NO_SECONDS = "no ranking here is by seconds."
_BUSY_MACHINES = "the machines had other work to do: "  # those of this checkout's records


def generated_files(board: Path) -> dict[Path, str]:
    """Return every generated file of a leaderboard, from its records and its campaigns' files.

    Raises:
        ValueError: A record or the file of a campaign is not one, or records do not compare.
    """
    is_own = board.resolve() == BOARD
    found = board_of(read_entries(board), repository(CHECKOUT), is_own, read_planned(board))
    targets = json.dumps(to_document(load_targets()), indent=1, sort_keys=True, allow_nan=False)
    files = {Path("targets.json"): targets + "\n", **_first_page(found)}
    files |= {_STYLE: source("page.css", "leaderboard.css"), _SCRIPT: source("page.js")}
    kinds = (
        (PROTOCOLS, protocol_page, found.protocols),
        (CONTENDERS, contender_page, found.contenders),
        (WORKLOADS, workload_page, found.workloads),
    )
    for kind, make, names in kinds:
        for name in names:
            files |= _page(found, page_path(kind, name), kind.removesuffix("s"), make(found, name))
    return {board / path: text for path, text in files.items()}


def wrong_files(board: Path) -> dict[Path, str]:
    """Return the files that rebuilding would write or delete, each with its problem."""
    files = generated_files(board)
    return dict.fromkeys(_outdated(files), "does not match the records") | dict.fromkeys(
        _stale(board, files), "belongs to no record"
    )


def write_leaderboard(board: Path) -> list[Path]:
    """Write the generated files that changed, and delete stale ones; return the written paths.

    Raises:
        ValueError: A record is not one, records do not compare, or a folder of pages is a link.
    """
    files = generated_files(board)
    outdated, stale = _outdated(files), _stale(board, files)
    for path, text in outdated.items():
        publish(path, text)
    for path in stale:
        path.unlink()
    return list(outdated)


def _outdated(files: dict[Path, str]) -> dict[Path, str]:
    return {
        path: text
        for path, text in files.items()
        if not path.is_file() or path.read_bytes() != text.encode("utf-8")
    }


def _stale(board: Path, files: dict[Path, str]) -> list[Path]:
    folders = [board / name for name in _FOLDERS]
    for folder in folders:
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link. Remove it: pages are written there.")
    return [
        path
        for folder in folders
        for path in sorted(folder.glob("*"))
        if path not in files and path.suffix in (".html", ".csv", ".css", ".js")
    ]


def _page(board: Board, path: Path, template: str, page: SubjectPage) -> dict[Path, str]:
    """Return a page and the CSV files of its tables, by path below the leaderboard."""
    files = {csv_name(path, table): table_csv(table) for table in page.tables}
    return {path: _html(board, path, template, page), **files}


def _html(board: Board, path: Path, template: str, page: SubjectPage) -> str:
    root = "../" * (len(path.parts) - 1)
    context = page.context | {
        "root": root,
        "protocols": [
            {"name": name, "href": href(page_path(PROTOCOLS, name), root)}
            for name in board.protocols
        ],
        "here": href(path, root),
        "files": [
            {"name": table.name, "href": href(csv_name(path, table), root)} for table in page.tables
        ],
    }
    return render_linked_html(template, context, href(_STYLE, root), href(_SCRIPT, root)) + "\n"


def _first_page(board: Board) -> dict[Path, str]:
    """Return the first page, its CSV files, and its short form for readers of Markdown."""
    standings = _standings_table(board)
    tables = [standings, _contenders_table(board), _workloads_table(board),
              fingerprints_table(entry.hardware for entry in board.entries)]  # fmt: skip
    abouts = [board.about(name) for name in board.contenders]
    leads = {link: link for about in abouts if about and (link := safe_link(about.link))}
    context: dict[str, Any] = {
        "title": "Leaderboard",
        "entries": len(board.entries),
        "contenders": len(board.contenders),
        "workloads": len(board.workloads),
        "about_seconds": _ABOUT_SECONDS + _BUSY_MACHINES * board.is_own + _NO_SECONDS,
        "is_own": board.is_own,
        "incomplete": [
            f"{part.standing.campaign} on {part.hardware} ({len(part.standing.missing)} missing)"
            for part in board.parts
            if part.standing.missing
        ],
        "unrepeatable": [
            f"{part.standing.campaign} on {part.hardware}"
            for part in board.parts
            if repeatability_warnings(part.found)
        ],
        "answers": [
            {
                "name": name,
                "href": href(page_path(PROTOCOLS, name), ""),
                "parts": [
                    {
                        "hardware": part.hardware,
                        "warnings": part.warnings,
                        "answer": part.answer,
                        "days": days_of([part]),
                    }
                    for part in parts
                ],
            }
            for name, parts in board.protocols.items()
        ],
        "tables": tables,
        "links": board.links("") | {"link": leads},
    }
    page = SubjectPage(context, tables)
    files = _page(board, Path("index.html"), "leaderboard", page)
    readme = render_markdown("leaderboard", context | {"standings": standings})
    return {Path("README.md"): readme + "\n", **files}


def _standings_table(board: Board) -> Table:
    """Return one row per protocol and hardware."""
    rows = tuple(
        (
            part.standing.campaign,
            part.hardware,
            ", ".join(part.leaders),
            _REPEATS[part.found[0].repeatability.repeats if part.found else None],
            len(part.standing.contenders),
            len(part.standing.workloads),
            part.standing.studies,
            len(part.standing.entries),
            days_of([part]),
        )
        for part in board.parts
    )
    columns = (
        Column("protocol"), Column("hardware"), Column("leading"), Column("repeats"),
        Column("contenders", COUNT), Column("workloads", COUNT), Column("studies", COUNT),
        Column("entries", COUNT), Column("days (UTC)"),
    )  # fmt: skip
    caption = (
        "Leading: the highest score including tuning. Repeats: whether the ranking would, with "
        "other studies. Studies: of each contender on each workload."
    )
    return Table(caption, columns, rows, "standings", keys=2)


def _contenders_table(board: Board) -> Table:
    rows = []
    for name in board.contenders:
        about, entries = board.about(name), board.campaign_entries(name)
        parts = [part for part in board.parts if name in part.standing.contenders]
        verified = sum(entry.verified is not None for entry in entries)
        rows.append(
            (
                name,
                about.name if about else "",
                about.authors if about else "",
                about.affiliations if about and about.affiliations != "none" else "",
                about.link if about else "",
                ", ".join(dict.fromkeys(part.standing.campaign for part in parts)),
                len(entries),
                Share(verified, len(entries)),
                max(entry.last_day for entry in entries),
            )
        )
    columns = (
        *map(Column, ("contender", "name", "authors", "affiliations", "link", "protocol")),
        Column("entries", COUNT), Column("verified", SHARE), Column("last run (UTC)"),
    )  # fmt: skip
    table = Table("", columns, tuple(rows), "all-contenders").without_empty_columns()
    described = [column.name for column in table.columns if column in columns[1:5]]
    caption = "Verified: entries whose costs another run came to."
    if described:
        listed = f"{', '.join(described)}: from submission_info.yml, unchecked; older entries"
        caption = f"{listed[0].upper()}{listed[1:]} have none. {caption}"
    return dataclasses.replace(table, caption=caption)


def _workloads_table(board: Board) -> Table:
    rows = []
    for name in board.workloads:
        parts = [part for part in board.parts if name in part.standing.workloads]
        pairs = [cell for part in parts for (_, w), cell in part.scores.cells.items() if w == name]
        reached = Share(sum(c.reached for c in pairs), sum(len(c.given) for c in pairs))
        protocols = ", ".join(dict.fromkeys(part.standing.campaign for part in parts))
        rows.append((name, protocols, len(pairs), reached))
    columns = (
        Column("workload"), Column("protocol"), Column("entries", COUNT), Column("reached", SHARE),
    )  # fmt: skip
    caption = "Reached: studies of all contenders that reached the target."
    return Table(caption, columns, tuple(rows), "all-workloads")
