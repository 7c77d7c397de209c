"""The score table in a terminal."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from analysis.checks.fairness import (
    differing_targets,
    early_ends,
    equality_of_budgets,
    find_failures,
    missing_studies,
    never_evaluated,
    only_random,
    unequal_budgets,
)
from analysis.logs.audits import audit_summary, findings_of, read_audits, without_audit
from analysis.logs.hardware import ANY_HARDWARE, HardwareChoice
from analysis.logs.logs import Logs
from analysis.report.tables import Table, budgets_line, flags_of, plain, score_table
from analysis.scoring.costs import View
from analysis.scoring.scores import Scores, score_path
from metaopt.bench.budget import Currency

_LISTED = 5


def print_scores(
    logs: Path,
    *,
    cost: Currency | None = None,
    view: View = "including",
    within: str | None = None,
    console: Console | None = None,
    hardware: HardwareChoice = ANY_HARDWARE,
) -> None:
    """Print a campaign's score table, what failed and is missing above it, its budgets below.

    Args:
        logs: The campaign's output folder, or its logs.
        cost: Currency of the costs; by default that of the budgets.
        view: By which score the rows are sorted.
        within: A path inside of ``logs``.
        console: Where to print; by default the standard output.
        hardware: Runs on which hardware, and whether their seconds may be mixed.

    Raises:
        ValueError: There is nothing to score, or seconds would be mixed.
    """
    read, scores = score_path(logs, cost, hardware, within)
    console = console or Console()
    print_broken(read, console)
    _print_warning("INCOMPLETE, counted as misses", missing_studies(read), console)
    _print_warning("NEVER EVALUATED, the budget is too small", never_evaluated(read), console)
    audits = read_audits(logs)
    _print_warning("AUDIT FAILED", findings_of(audits, failed=True), console)
    table = score_table(scores.sorted_by(view), flags_of(read))
    for part in _parts(table, console.width):
        _print_rows(part, console)
    _say(table.caption, console)
    _print_budgets(read, scores, console)
    if flags_of(read):
        _say("* gradient evaluations as the submission declares them, at least those of the "
             "batches that it drew", console)  # fmt: skip
    failures = [str(failures) for failures in find_failures(read) if not failures.is_broken]
    _print_warning("FAILED trials, which count as misses", failures, console)
    _print_warning("Audits noted", findings_of(audits, failed=False), console)
    pairs = ((trial.record.contender, trial.record.workload) for trial in read.trials)
    _print_warning("NOT AUDITED", without_audit(pairs, audits), console)
    if audits:
        _say(audit_summary(audits), console)
    print_notes(read.notes, console)


def print_broken(logs: Logs, console: Console) -> None:
    """Print which contenders never took a step on a workload, or failed in every trial there."""
    for failures in find_failures(logs):
        if failures.is_broken:
            title = "EVERY TRIAL FAILED" if failures.steps else "NEVER TOOK A STEP"
            console.print(escape(plain(f"{title}: {failures}")), style="bold red", highlight=False)


def print_table(table: Table, console: Console) -> None:
    """Print one table, in parts that fit, with its caption below."""
    for part in _parts(table, console.width):
        _print_rows(part, console)
    _say(table.caption, console)


def print_notes(notes: Sequence[str], console: Console) -> None:
    """Print the first few notes on the logs, and how many more there are."""
    _print_warning("NOTES on the logs", list(notes), console)


def print_tables(tables: Sequence[Table], warnings: Sequence[str], console: Console) -> None:
    """Print warnings, and tables cut to the width of the terminal, each with its caption below."""
    for warning in warnings:
        console.print(escape(plain(warning)), style="yellow", highlight=False)
    for table in tables:
        console.print()
        for part in _parts(table, console.width):
            _print_rows(part, console)
        _say(table.caption, console)


def _print_budgets(logs: Logs, scores: Scores, console: Console) -> None:
    _say(budgets_line(logs, scores), console)
    _print_warning("NOT COMPARABLE", differing_targets(logs), console)
    _print_warning(
        "Random search in truth, since the study ends before the model begins",
        only_random(logs),
        console,
    )
    unequal, early = unequal_budgets(logs), early_ends(logs)
    _print_warning("Spent budgets are NOT EQUAL", unequal, console)
    if not unequal:
        but = f" Ended early, and left out of this: {'; '.join(early)}." if early else ""
        _say(f"{equality_of_budgets(logs)}.{but}", console)
    elif early:
        _say(f"Ended early: {'; '.join(early)}.", console)


def _print_warning(title: str, entries: list[str], console: Console) -> None:
    if entries:
        more = f"; and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
        listed = "; ".join(entry.rstrip(".") for entry in entries[:_LISTED])
        text = f"{title}: {listed}{more}."
        console.print(escape(plain(text)), style="yellow", highlight=False)


def _say(text: str, console: Console) -> None:
    console.print(escape(plain(text)), style="dim", highlight=False)


def _parts(table: Table, width: int) -> list[Table]:
    """Cut a table into tables that fit, each with what its rows are about in front."""
    widths = [max(map(len, column)) + 3 for column in zip(table.header, *table.rows, strict=True)]
    keys = list(range(table.keys))
    parts: list[list[int]] = [[*keys]]
    for index in range(len(keys), len(widths)):
        columns = parts[-1]
        if len(columns) > len(keys) and sum(widths[i] for i in [*columns, index]) > width:
            parts.append(columns := [*keys])
        columns.append(index)
    return [
        dataclasses.replace(
            table,
            header=tuple(table.header[i] for i in columns),
            rows=tuple(tuple(row[i] for i in columns) for row in table.rows),
        )
        for columns in parts
    ]


def _print_rows(table: Table, console: Console) -> None:
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(table.header):
        rich.add_column(
            escape(name), justify="left" if index < table.keys else "right", overflow="fold"
        )
    for row in table.rows:
        rich.add_row(*map(escape, row))
    console.print(rich)
    console.print()
