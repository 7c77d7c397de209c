"""The leaderboard's pages, generated from its records; and whether they are up to date."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from analysis.leaderboard.entries import Entry, read_entries
from analysis.leaderboard.standings import (
    Standing,
    across_hardware,
    entry_marks,
    provenance_table,
    standing_table,
    standings,
    targets_table,
)
from analysis.report.pages import render_html, render_markdown
from analysis.report.publish import publish
from analysis.report.table import Table
from analysis.report.tables.hardware_tables import across_hardware_table, fingerprints_table
from analysis.report.tables.score_tables import cost_table, unit_name
from analysis.report.tables.statistics_tables import (
    comparisons_table,
    repeatability_table,
    repeatability_warnings,
    speedups_table,
)
from analysis.statistics.inference import Inference
from metaopt.bench.measure.targets import load_targets, to_document

CHECKOUT = Path(__file__).resolve().parents[2]
BOARD = CHECKOUT / "leaderboard"

_ABOUT_SECONDS = (
    "Costs are counted in the currency of the budgets. The records hold seconds as well, but the "
    "machines had other work to do: no table here compares contenders by seconds."
)


def generated_files(board: Path) -> dict[Path, str]:
    """Return every generated file of a leaderboard, by path, from its records alone.

    Raises:
        ValueError: A record is not one, or records do not compare.
    """
    context = _context(read_entries(board))
    targets = json.dumps(to_document(load_targets()), indent=1, sort_keys=True, allow_nan=False)
    return {
        board / "README.md": render_markdown("leaderboard", context) + "\n",
        board / "index.html": render_html("leaderboard", context, "leaderboard.css") + "\n",
        board / "targets.json": targets + "\n",
    }


def outdated_files(board: Path) -> list[Path]:
    """Return the generated files that are missing, or that regenerating would change."""
    return list(_outdated(board))


def write_leaderboard(board: Path) -> list[Path]:
    """Write the generated files that changed; return their paths."""
    outdated = _outdated(board)
    for path, text in outdated.items():
        publish(path, text)
    return list(outdated)


def _outdated(board: Path) -> dict[Path, str]:
    return {
        path: text
        for path, text in generated_files(board).items()
        if not path.is_file() or path.read_bytes() != text.encode("utf-8")
    }


def _context(entries: list[Entry]) -> dict[str, Any]:
    names = {entry.hardware.slug: entry.hardware.name for entry in entries}
    found = standings(entries)
    parts = [_part(standing, names[standing.hardware]) for standing in found]
    return {
        "entries": len(entries),
        "contenders": len({entry.contender for entry in entries}),
        "workloads": len({entry.workload for entry in entries}),
        "about_seconds": _ABOUT_SECONDS,
        "unrepeatable": [
            f"{part['campaign']} on {part['hardware_name']}"
            for part in parts
            if part["unrepeatable"]
        ],
        "parts": parts,
        "across": _across(entries, sorted({standing.campaign for standing in found})),
        "hardware": fingerprints_table(entry.hardware for entry in entries),
    }


def _part(standing: Standing, hardware: str) -> dict[str, Any]:
    found, scores, marks = standing.inferences(), standing.scores(), standing.marks()
    first = found[0] if found else None
    speedups = [speedups_table(one, one.speedups, marks) for one in found if one.speedups]
    return {
        "campaign": standing.campaign,
        "hardware_name": f"{hardware} ({standing.hardware})",
        "summary": _summary(standing),
        "unrepeatable": repeatability_warnings(found),
        "scores": standing_table(standing, found),
        "bars": [] if first is None else [_bar(first, name) for name in scores.contenders],
        "warnings": list(dict.fromkeys(text for one in found for text in one.warnings)),
        "repeatability": dataclasses.replace(repeatability_table(found), name="")
        if found
        else None,
        "speedups": [dataclasses.replace(table, name="") for table in speedups],
        "decided": _decided(standing, first),
        "costs": cost_table(scores, marks) if scores.factors else None,
        "targets": targets_table(standing),
        "provenance": provenance_table(standing),
    }


def _decided(standing: Standing, found: Inference | None) -> Table | None:
    """Return the best contender against each other one; ``None`` without another."""
    if found is None or not found.comparisons:
        return None
    best = found.samples.contenders[found.order[0]]
    return comparisons_table(found, standing.marks(), first=best)


def _summary(standing: Standing) -> str:
    days = sorted({d for e in standing.entries.values() for d in (e.first_day, e.last_day)})
    run = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{len(standing.contenders)} contenders on {len(standing.workloads)} workloads, "
        f"{standing.studies} studies each, seed {standing.first.seed}, run {run}. "
        f"Costs in {unit_name(standing.currency)}."
    )


def _bar(found: Inference, contender: str) -> dict[str, str] | None:
    """Return a score and its interval in percent; empty without a score."""
    if contender not in found.samples.contenders:
        return None
    s = found.samples.contenders.index(contender)
    parts = {"low": found.scores.low, "value": found.scores.value, "high": found.scores.high}
    return {name: f"{100 * part[s]:.1f}" for name, part in parts.items()}


def _across(entries: list[Entry], campaigns: list[str]) -> list[dict[str, Any]]:
    tables = []
    for campaign in campaigns:
        found = across_hardware(entries, campaign)
        if found is not None:
            measured, reference = found
            marks = entry_marks(
                [
                    (entry.contender, entry.workload, entry.campaigns[campaign])
                    for entry in entries
                    if campaign in entry.campaigns
                ]
            )
            table = across_hardware_table(measured, reference, marks)
            tables.append({"heading": f"{campaign} across hardware", "table": table})
    return tables
