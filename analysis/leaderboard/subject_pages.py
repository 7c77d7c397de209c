"""The pages about one protocol, one contender and one workload: their tables and texts."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.leaderboard.board import Board, Links
from analysis.leaderboard.board_tables import (
    TARGET_COLUMNS,
    MeasuredStanding,
    commits_text,
    detail_tables,
    marks_anywhere,
    ratios_table,
    rerun_texts,
    standing_table,
    target_cells,
)
from analysis.leaderboard.entries import CampaignEntry, Entry
from analysis.leaderboard.links import safe_link
from analysis.report.table import (
    COST,
    COUNT,
    SCORE,
    SHARE,
    YES,
    Column,
    Estimate,
    Share,
    Table,
    estimate_format,
    format_cost,
    number_format,
)
from analysis.report.tables.score_tables import unit_name
from analysis.wording import counted
from metaopt.bench.measure.targets import Target

_PROTOCOL, _HARDWARE = Column("protocol"), Column("hardware")
_COSTS = (
    Column("given tuned", COST), Column("including tuning", COST), Column("reached", SHARE),
    Column("unit"),
)  # fmt: skip


class SubjectPage(NamedTuple):
    """The template's variables of a page, and the tables that it shows."""

    context: dict[str, Any]
    tables: list[Table]


def protocol_page(board: Board, protocol: str) -> SubjectPage:
    """Return the page of a protocol: a part for each hardware, and ratios across hardware."""
    parts = board.protocols[protocol]
    shown = [_hardware_part(board, part) for part in parts]
    across = ratios_table(parts)
    tables = [table for one in shown for _, some in one["sections"] for table in some]
    tables += [one["scores"] for one in shown] + ([across] if across else [])
    facets = [facet for part in parts for facet in part.extras.facets.values()]
    filters = {
        name: sorted({value for facet in facets for value in facet[name]})
        for name in ("workload", "hardware", "ruleset")
    }
    return SubjectPage(
        {
            "title": protocol,
            "about": _about_protocol(parts),
            "parts": shown,
            "across": across,
            "across_links": board.links(marks=marks_anywhere(parts)),
            "several": len(parts) > 1,
            "filters": filters,
            "names": sorted({name for part in parts for name in part.standing.contenders}),
        },
        tables,
    )


def _hardware_part(board: Board, part: MeasuredStanding) -> dict[str, Any]:
    entries = list(part.standing.entries.values())
    return {
        "hardware": part.hardware,
        "warnings": part.warnings,
        "answer": part.answer,
        "scores": standing_table(part),
        "limits": list(dict.fromkeys(text for one in part.found for text in one.warnings)),
        "sections": detail_tables(part),
        "links": board.links(marks=part.marks) | {"submission": board.code_links(entries)},
    }


def _about_protocol(parts: Sequence[MeasuredStanding]) -> str:
    standings = [part.standing for part in parts]
    contenders = {name for standing in standings for name in standing.contenders}
    workloads = {name for standing in standings for name in standing.workloads}
    first = standings[0]
    return (
        f"{counted(len(contenders), 'contender')} on {counted(len(workloads), 'workload')}, "
        f"{first.studies} stud{'y' if first.studies == 1 else 'ies'} each, seed "
        f"{first.first.seed}, run {days_of(parts)}. Costs in {unit_name(first.currency)}."
    )


def days_of(parts: Sequence[MeasuredStanding]) -> str:
    """Return the first and the last day on which a trial of some standings started."""
    entries = [entry for part in parts for entry in part.standing.entries.values()]
    first, last = min(e.first_day for e in entries), max(e.last_day for e in entries)
    return first if first == last else f"{first} to {last}"


def contender_page(board: Board, contender: str) -> SubjectPage:
    """Return the page of a contender: its authors, places, costs and runs in every protocol."""
    entries = [entry for entry in board.entries if entry.contender == contender]
    runs = [
        (name, entry, entry.campaigns[name])
        for entry in entries
        for name in sorted(entry.campaigns)
    ]
    runs.sort(key=lambda run: (run[0], run[1].hardware.slug, run[1].workload))
    about, campaigns = board.about(contender), [campaign for _, _, campaign in runs]
    tables = [_places(board, contender), _costs_of(runs), _runs_table(runs), _commands_table(runs)]
    links: Links = board.links(records=[entry.path for entry in entries])
    return SubjectPage(
        {
            "title": contender,
            "info": about,
            "link": None if about is None else safe_link(about.link),
            "code": board.code_links(campaigns),
            "submissions": sorted({campaign.submission for campaign in campaigns}),
            "tables": tables,
            "links": links | {"submission": board.code_links(campaigns)},
            "findings": list(
                dict.fromkeys(
                    f"{name}, {entry.workload}: {finding}"
                    for name, entry, campaign in runs
                    if campaign.audit is not None
                    for finding in campaign.audit.findings
                )
            ),
        },
        tables,
    )


def _places(board: Board, contender: str) -> Table:
    """Return a contender's place and scores in each protocol and on each hardware."""
    rows = []
    for part in board.parts:
        standing = part.standing
        if contender not in standing.contenders:
            continue
        place, scores = part.place(contender), part.scores.scores.get(contender, {})
        ends = [part.extras.score_intervals.get((contender, view)) for view in part.scores.views]
        rows.append(
            (
                standing.campaign,
                None if place is None else Share(place, len(standing.complete)),
                *(
                    None if not scores else Estimate(scores[view], *(end or (scores[view],) * 2))
                    for view, end in zip(part.scores.views, ends, strict=True)
                ),
                standing.is_verified(contender),
                Share(
                    sum(part.scores.cells[contender, w].reached for w in standing.workloads
                        if (contender, w) in part.scores.cells),
                    standing.studies * len(standing.workloads),
                ),
                part.hardware,
            )
        )  # fmt: skip
    columns = (
        _PROTOCOL, Column("place", SHARE), Column("score", estimate_format(SCORE)),
        Column("given tuned", estimate_format(SCORE), "score_given"), Column("verified", YES),
        Column("reached", SHARE), _HARDWARE,
    )  # fmt: skip
    caption = (
        "Place by the score including tuning, of those with a score; scores with their intervals; "
        "studies that reached their target. Verified: another run came to the same costs."
    )
    return Table(caption, columns, tuple(rows), "places")


def _costs_of(runs: Sequence[tuple[str, Entry, CampaignEntry]]) -> Table:
    rows = tuple(
        (
            entry.workload,
            name,
            *_cost_cells(campaign),
            None if campaign.audit is None else campaign.audit.time_factor,
            _audit_text(campaign),
            entry.hardware.slug,
        )
        for name, entry, campaign in runs
    )
    columns = (
        Column("workload"), _PROTOCOL, *_COSTS, Column("time factor", number_format(".2f")),
        Column("audit"), _HARDWARE,
    )  # fmt: skip
    caption = (
        "Median costs to target, and studies that reached it. Missed: the median study did not. "
        "Time factor: seconds per gradient evaluation over AdamW's on the same machine."
    )
    return _with_unit_in_caption(Table(caption, columns, rows, "costs", keys=2))


def _with_unit_in_caption(table: Table) -> Table:
    """Return the table without its column of units if all rows have the same one."""
    names = [column.name for column in table.columns]
    place = names.index("unit")
    units = {row[place] for row in table.rows}
    if len(units) != 1:
        return table
    kept = [index for index in range(len(names)) if index != place]
    caption = f"{table.caption} Unit: {units.pop()}."
    return dataclasses.replace(table.with_columns(kept), caption=caption)


def _cost_cells(campaign: CampaignEntry) -> tuple[Any, ...]:
    cell = campaign.cell(campaign.budget.currency)
    reached = Share(cell.reached, len(campaign.studies))
    unit = unit_name(campaign.budget.currency)
    return cell.median("given"), cell.median("including"), reached, unit


def _audit_text(campaign: CampaignEntry) -> str:
    if campaign.audit is None:
        return "not audited"
    return "failed" if campaign.audit.failed else "passed"


def _runs_table(runs: Sequence[tuple[str, Entry, CampaignEntry]]) -> Table:
    rows = tuple(
        (
            entry.workload,
            name,
            campaign.submission,
            (campaign.tuner or {}).get("name", "tunes itself"),
            ", ".join(f"{key} {value}" for key, value in sorted((campaign.fixed or {}).items())),
            commits_text([campaign]),
            " to ".join(sorted({campaign.first_day, campaign.last_day})),
            sum(study.trials for study in campaign.studies),
            sum(study.failures for study in campaign.studies),
            "; ".join(rerun_texts(campaign)),
            entry.hardware.slug,
        )
        for name, entry, campaign in runs
    )
    columns = (
        Column("workload"), _PROTOCOL, Column("submission"), Column("tuner"),
        Column("fixed by hand"), Column("commit"), Column("days (UTC)"), Column("trials", COUNT),
        Column("failures", COUNT), Column("rerun"), _HARDWARE,
    )  # fmt: skip
    caption = "The runs, with the number of their trials and of those that failed."
    if any(campaign.fixed for _, _, campaign in runs):
        caption += " Fixed by hand: hyperparameters that no budget paid for."
    if any(campaign.verified for _, _, campaign in runs):
        caption += " Rerun: a run that came to the same costs."
    return Table(caption, columns, rows, "runs", keys=2).without_empty_columns()


def _commands_table(runs: Sequence[tuple[str, Entry, CampaignEntry]]) -> Table:
    rows = tuple(
        (entry.workload, name, campaign.command, entry.path.as_posix())
        for name, entry, campaign in runs
    )
    columns = Column("workload"), Column("protocol"), Column("command"), Column("record")
    caption = "From a checkout of the commit; a record has the costs and seeds of each study."
    return Table(caption, columns, rows, "commands", keys=2)


def workload_page(board: Board, workload: str) -> SubjectPage:
    """Return the page of a workload: targets, how well it tells contenders apart, and costs."""
    parts = [part for part in board.parts if workload in part.standing.workloads]
    tables = [_targets_of(parts, workload), _spread(parts, workload), _costs_on(board, workload)]
    context = {
        "title": workload,
        "answers": [_answer_on(part, workload, _named(board, part)) for part in parts],
        "tables": tables,
        "links": board.links(),
    }
    return SubjectPage(context, tables)


def _named(board: Board, part: MeasuredStanding) -> str:
    """Return the name of a campaign, with its hardware if there are several kinds of it."""
    name = part.standing.campaign
    return f"{name} on {part.hardware}" if len(board.protocols[name]) > 1 else name


def _answer_on(part: MeasuredStanding, workload: str, place: str) -> str:
    """Return a sentence on the cheapest contenders on a workload, and how many studies arrived."""
    names, least = _cheapest(part, workload)
    cells = [cell for (_, w), cell in part.scores.cells.items() if w == workload]
    reached, studies = sum(c.reached for c in cells), sum(len(c.given) for c in cells)
    said = "no contender's median study reached the target"
    if names:
        said = (
            f"{' and '.join(names)} {'reaches' if len(names) == 1 else 'reach'} the target with "
            f"the least budget, tuning included: a median of {format_cost(least)} "
            f"{unit_name(part.standing.currency)}"
        )
    return f"In {place}, {said}. {reached} of {studies} studies of all contenders reached it."


def _cheapest(part: MeasuredStanding, workload: str) -> tuple[list[str], float]:
    """Return the contenders with the least median cost including tuning, and that cost."""
    costs = {
        name: cell.median("including")
        for (name, w), cell in sorted(part.scores.cells.items())
        if w == workload
    }
    least = min(costs.values())
    return [name for name, cost in costs.items() if cost == least < float("inf")], least


def _targets_of(parts: Sequence[MeasuredStanding], workload: str) -> Table:
    rows: dict[tuple[str, Target], tuple[Any, ...]] = {}
    for part in parts:
        entry = next(e for (_, w), e in part.standing.entries.items() if w == workload)
        budget, name = entry.budget, part.standing.campaign
        rows[name, entry.target] = (
            name, *target_cells(entry), budget.study, budget.eval_period,
            unit_name(budget.currency),
        )  # fmt: skip
    columns = (
        Column("protocol"), *TARGET_COLUMNS, Column("budget of a study", number_format(",.6g")),
        Column("evaluated every", number_format("g")), Column("unit"),
    )  # fmt: skip
    caption = "The target of the workload and its version, and the budget, tuning included."
    return _with_unit_in_caption(Table(caption, columns, tuple(rows.values()), "targets"))


def _spread(parts: Sequence[MeasuredStanding], workload: str) -> Table:
    """Return the share of studies that reached the target, and intraclass correlations."""
    rows = []
    for part in parts:
        cells = [cell for (_, w), cell in part.scores.cells.items() if w == workload]
        studies = sum(len(cell.given) for cell in cells)
        correlations = [
            float(one.repeatability.correlations[one.samples.workloads.index(workload)])
            for one in part.found
        ]
        rows.append(
            (
                part.standing.campaign,
                len(cells),
                Share(sum(cell.reached for cell in cells), studies),
                *(correlations or (None, None)),
                ", ".join(_cheapest(part, workload)[0]),
                part.hardware,
            )
        )
    columns = (
        _PROTOCOL, Column("contenders", COUNT), Column("reached", SHARE),
        Column("correlation", number_format(".2f"), "correlation_including"),
        Column("given tuned", number_format(".2f"), "correlation_given"), Column("leading"),
        _HARDWARE,
    )  # fmt: skip
    caption = (
        "Studies of all contenders that reached the target. Correlation: intraclass, the share of "
        "the variance of log cost that lies between contenders, including tuning and given tuned; "
        "a miss counts as its budget. Leading: the least median cost including tuning."
    )
    return Table(caption, columns, tuple(rows), "spread")


def _costs_on(board: Board, workload: str) -> Table:
    rows = [
        (
            entry.contender,
            name,
            *_cost_cells(campaign),
            campaign.developed_here,
            entry.hardware.slug,
        )
        for entry in board.entries
        if entry.workload == workload
        for name, campaign in entry.campaigns.items()
    ]
    rows.sort(key=lambda row: (row[1], row[-1], row[3], row[2], row[0]))
    columns = (
        Column("contender"), _PROTOCOL, *_COSTS, Column("designed with it", YES), _HARDWARE,
    )  # fmt: skip
    caption = (
        "Median costs to target, the least including tuning first, and studies that reached it. "
        "Missed: the median study did not."
    )
    return _with_unit_in_caption(Table(caption, columns, tuple(rows), "costs", keys=2))


def csv_name(page: Path, table: Table) -> Path:
    """Return the path of a table's CSV file beside its page."""
    return page.with_name(f"{page.stem}.{table.name}.csv")
