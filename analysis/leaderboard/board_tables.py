"""The tables of a protocol's page, for each hardware and across hardware."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analysis.leaderboard.entries import CampaignEntry
from analysis.leaderboard.standings import Standing, entry_marks
from analysis.report.answer import answer, misses
from analysis.report.marks import Marks
from analysis.report.table import COST, COUNT, Column, Facets, Table, number_format
from analysis.report.tables.campaign_tables import TARGET
from analysis.report.tables.overview_table import overview_table
from analysis.report.tables.score_tables import Extras, cost_table, unit_name
from analysis.report.tables.statistics_tables import (
    comparisons_table,
    repeatability_table,
    repeatability_warnings,
    speedups_table,
)
from analysis.scoring.scores import Scores
from analysis.statistics.inference import Inference
from analysis.statistics.speedups import REFERENCE

_RATIO = number_format(".3g")


@dataclasses.dataclass(frozen=True)
class MeasuredStanding:
    """A standing with its scores and statistics, which are computed once."""

    standing: Standing
    hardware: str  # readable and unique

    @functools.cached_property
    def scores(self) -> Scores:
        """Costs and scores, best first."""
        return self.standing.scores()

    @functools.cached_property
    def found(self) -> list[Inference]:
        """The statistics of both views, including tuning first; may be empty."""
        return self.standing.inferences()

    @functools.cached_property
    def marks(self) -> Marks:
        """The marks of contenders."""
        return self.standing.marks()

    @functools.cached_property
    def extras(self) -> Extras:
        """The intervals, verified contenders and filter values of rows."""
        areas, costs, name = {}, {}, "intervals"
        for one in self.found:
            name = f"{one.percent}, bootstrap over studies"
            for s, contender in enumerate(one.samples.contenders):
                areas[contender, one.view] = float(one.scores.low[s]), float(one.scores.high[s])
                for w, workload in enumerate(one.samples.workloads):
                    ends = float(one.costs.low[s, w]), float(one.costs.high[s, w])
                    costs[contender, workload, one.view] = ends
        contenders = self.standing.contenders
        verified = {name: self.standing.is_verified(name) for name in contenders}
        return Extras(areas, costs, name, verified, self._facets())

    def _facets(self) -> dict[tuple[str, str], Facets]:
        """Return the filter values by contender and workload, see :class:`Extras`."""
        entries, found = self.standing.entries, {}
        for contender in self.standing.contenders:
            mine = {w: entry for (name, w), entry in entries.items() if name == contender}
            about = {
                "hardware": [self.hardware],
                "ruleset": sorted({entry.ruleset for entry in mine.values()}),
            }
            found[contender, ""] = {"workload": sorted(mine), **about}
            for workload in mine:
                found[contender, workload] = {"workload": [workload], **about}
        return found

    @property
    def answer(self) -> str:
        """The answer of this hardware in a sentence or two."""
        return answer(self.scores, self.found)

    @property
    def warnings(self) -> list[str]:
        """Sentences on all that a reader must know before the answer."""
        return [*self._missing, *repeatability_warnings(self.found), *self._problems]

    @property
    def _missing(self) -> list[str]:
        """A sentence on the workloads of the campaign that are missing; none if none is known."""
        missing, found = self.standing.missing, len(self.standing.workloads)
        if not missing:
            return []
        return [
            f"Incomplete: {found} of {found + len(missing)} workloads of this campaign have "
            f"records here. Missing: {', '.join(missing)}."
        ]

    @property
    def _problems(self) -> list[str]:
        """Sentences on failed audits and misses."""
        failed = {
            name
            for (name, _), entry in self.standing.entries.items()
            if entry.audit is not None and entry.audit.failed
        }
        said = [f"Failed an audit: {', '.join(sorted(failed))}."] if failed else []
        return [*said, *misses(self.scores)]

    @property
    def leaders(self) -> tuple[str, ...]:
        """The contenders with the highest score; none without one that reached a target."""
        scores, view = self.scores.scores, self.scores.views[0]
        best = max((mine[view] for mine in scores.values() if mine), default=0.0)
        return tuple(
            name
            for name in self.scores.contenders
            if best > 0 and scores.get(name) and round(scores[name][view] - best, 9) == 0
        )

    def place(self, contender: str) -> int | None:
        """Return the place of a contender by score, 1 for the highest; equal ones share it."""
        scores, view = self.scores.scores, self.scores.views[0]
        if not scores.get(contender):
            return None
        mine = round(scores[contender][view], 9)
        return 1 + sum(round(s[view], 9) > mine for s in scores.values() if s)

    def named(self, table: Table) -> Table:
        """Return a table under a name that no other hardware's table has on the page."""
        return dataclasses.replace(table, name=f"{table.name}-{self.standing.hardware}")


def standing_table(part: MeasuredStanding) -> Table:
    """Return scores with their intervals and costs, best first; those without a score last."""
    speedups = part.found[0].speedups if part.found else None
    table = overview_table(part.scores, part.marks, part.extras, speedups)
    columns = (
        dataclasses.replace(c, turned=c.turned or c.name == "verified") for c in table.columns
    )
    return part.named(dataclasses.replace(table, columns=tuple(columns)))


def detail_tables(part: MeasuredStanding) -> list[tuple[str, list[Table]]]:
    """Return the tables below the first one, under headings that are questions."""
    found, marks = part.found, part.marks
    sections: list[tuple[str, list[Table]]] = []
    if found and found[0].comparisons:
        best = found[0].samples.contenders[found[0].order[0]]
        sections.append(("Is it decided?", [comparisons_table(found[0], marks, first=best)]))
    if found:
        sections.append(("Would it repeat?", [repeatability_table(found)]))
    faster = [
        speedups_table(one, one.speedups, marks, part.scores.factors)
        for one in found
        if one.speedups and one.comparisons
    ]
    if faster:
        sections.append((f"How much faster than {REFERENCE}?", faster))
    costs = cost_table(part.scores, marks, part.extras)
    # The heading above names the hardware.
    kept = [place for place, name in enumerate(costs.header) if name != "hardware"]
    sections.append(("What does each workload cost?", [costs.with_columns(kept)]))
    sections.append(("What are the targets and budgets?", [targets_table(part.standing)]))
    sections.append(("Where do the numbers come from?", [provenance_table(part.standing)]))
    return [(heading, [part.named(table) for table in tables]) for heading, tables in sections]


def targets_table(standing: Standing) -> Table:
    """Return targets and budgets, one row per workload."""
    rows = []
    for workload in standing.workloads:
        entry = next(e for (_, w), e in standing.entries.items() if w == workload)
        budget = entry.budget
        rows.append((workload, *target_cells(entry), budget.study, budget.eval_period))
    unit = unit_name(standing.currency)
    columns = (
        Column("workload"), *TARGET_COLUMNS,
        Column("budget of a study", number_format(",.6g")),
        Column("evaluated every", number_format("g")),
    )  # fmt: skip
    caption = f"Targets, and budgets in {unit}, tuning included."
    return Table(caption, columns, tuple(rows), "targets")


TARGET_COLUMNS = (Column("target"), Column("value", TARGET), Column("version", COUNT))


def target_cells(entry: CampaignEntry) -> tuple[Any, ...]:
    """Return the cells of a target: metric, value with its sign, version."""
    sign = "<=" if entry.target.better == "lower" else ">="
    return entry.target.metric, (sign, entry.target.value), entry.target.version


def provenance_table(standing: Standing) -> Table:
    """Return how each contender was run, by whom, and one command that repeats its runs."""
    rows = []
    for contender in standing.contenders:
        entries = [e for (name, _), e in standing.entries.items() if name == contender]
        abouts = [entry.about for entry in entries if entry.about is not None]
        days = sorted({day for entry in entries for day in (entry.first_day, entry.last_day)})
        studies = [study for entry in entries for study in entry.studies]
        rows.append(
            (
                contender,
                entries[0].submission,
                abouts[-1].authors if abouts else "",
                (entries[0].tuner or {}).get("name", "tunes itself"),
                commits_text(entries),
                " to ".join(sorted({days[0], days[-1]})),
                sum(study.trials for study in studies),
                sum(study.failures for study in studies),
                "; ".join(sorted({text for entry in entries for text in rerun_texts(entry)})),
                entries[0].command,
            )
        )
    columns = (
        *map(Column, ("contender", "submission", "authors", "tuner", "commit", "days (UTC)")),
        Column("trials", COUNT), Column("failures", COUNT),
        Column("rerun"), Column("one of its commands"),
    )  # fmt: skip
    caption = "The origin of the numbers. Each contender's page has all of its commands."
    return Table(caption, columns, tuple(rows), "provenance").without_empty_columns()


def commits_text(entries: Sequence[CampaignEntry]) -> str:
    """Return the commits of entries, shortened to 12 digits."""
    return ", ".join(sorted({commit[:12] for entry in entries for commit in entry.commits}))


def rerun_texts(entry: CampaignEntry) -> list[str]:
    """Return when, where and of which commits the rerun was; nothing without a rerun."""
    rerun = entry.verified
    if rerun is None:
        return []
    days = {rerun.first_day, rerun.last_day}
    commits = ", ".join(commit[:12] for commit in rerun.commits)
    return [f"{' to '.join(sorted(days))} on {rerun.hardware}, {commits}"]


def ratios_table(parts: Sequence[MeasuredStanding]) -> Table | None:
    """Return costs and speed on each hardware, over those of one contender on the same hardware.

    ``None`` with one kind of hardware, or if no contender reached a target on all of them.
    """
    reference = _reference(parts)
    if reference is None:
        return None
    pairs = sorted(
        {pair for part in parts for pair in part.standing.entries}, key=lambda p: (p[1], p[0])
    )
    marks = marks_anywhere(parts)
    columns = [Column("workload"), Column("contender", marks.format)]
    for part in parts:
        slug = part.standing.hardware
        columns.append(Column(f"{slug}: cost", COST))
        columns.append(Column(f"{slug}: cost ratio", _RATIO))
        columns.append(Column(f"{slug}: seconds ratio", _RATIO))
    rows = []
    for contender, workload in pairs:
        row: list[Any] = [workload, contender]
        for part in parts:
            entries = part.standing.entries
            mine, theirs = (entries.get((name, workload)) for name in (contender, reference))
            cost, other = (
                part.scores.median(name, workload, "including") for name in (contender, reference)
            )
            ratio = cost / other if math.isfinite(other) else None
            row += [cost, ratio, _seconds_ratio(mine, theirs)]
        rows.append(tuple(row))
    facets = tuple(
        {
            "workload": [workload],
            "ruleset": sorted(
                {p.standing.entries[pair].ruleset for p in parts if pair in p.standing.entries}
            ),
        }
        for pair in pairs
        for workload in pair[1:]
    )
    unit = unit_name(parts[0].standing.currency)
    caption = (
        f"Cost: median cost to target including tuning in {unit}. Ratios: over {reference} on the "
        "same workload and hardware; seconds are those of a gradient evaluation without "
        "compilation. Empty: not run or not measured there, or the reference missed the target."
    )
    return Table(
        caption, tuple(columns), tuple(rows), "across_hardware", facets=facets, keys=2,
        notes=marks.notes,
    )  # fmt: skip


def marks_anywhere(parts: Sequence[MeasuredStanding]) -> Marks:
    """Return the marks that contenders have on any hardware."""
    return entry_marks([(*p, e) for part in parts for p, e in part.standing.entries.items()])


def _seconds_ratio(mine: CampaignEntry | None, theirs: CampaignEntry | None) -> float | None:
    if mine is None or theirs is None:
        return None
    if mine.seconds_per_gradient is None or not theirs.seconds_per_gradient:
        return None
    return mine.seconds_per_gradient / theirs.seconds_per_gradient


def _reference(parts: Sequence[MeasuredStanding]) -> str | None:
    """Return the default reference, or the contender that reached most targets everywhere."""
    if len(parts) < 2:
        return None
    everywhere = set.intersection(*(set(part.standing.entries) for part in parts))
    reached = Counter(
        contender
        for contender, workload in sorted(everywhere)
        if all(math.isfinite(p.scores.median(contender, workload, "including")) for p in parts)
    )
    if REFERENCE in reached:
        return REFERENCE
    return reached.most_common(1)[0][0] if reached else None  # the first of equals by name
