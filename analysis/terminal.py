"""The score table in a terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from analysis.scoring import check_budgets, missing_studies, score_path
from analysis.tables import Table, flags_of, plain, score_table
from metaopt.bench.budget import Currency


def print_scores(
    path: Path, *, currency: Currency | None = None, console: Console | None = None
) -> None:
    """Print the score table of a campaign, what is missing above it, and its budgets below."""
    logs, scores = score_path(path, currency)
    console = console or Console()
    missing = missing_studies(logs)
    if missing:
        listed = "; ".join(map(plain, missing[:5]))
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        console.print(escape(f"INCOMPLETE, counted as misses: {listed}{more}"), style="bold red")
    flags = flags_of(logs)
    print_table(score_table(scores, flags), console)
    early = check_budgets(logs)
    unequal = [sentence for sentence in early if "NOT EQUAL" in sentence]
    for sentence in unequal:
        console.print(escape(plain(sentence)), style="bold red")
    if not unequal:
        console.print("Spent budgets are equal to within one evaluation period.", end="")
        console.print(f" {len(early)} studies ended early, see the report." if early else "")
    if flags:
        console.print("* gradient evaluations not declared by the submission")


def print_table(table: Table, console: Console) -> None:
    """Print one table; on a narrow terminal its columns break at spaces."""
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(table.header):
        first = index == 0
        rich.add_column(
            escape(name), justify="left" if first else "right", no_wrap=first, overflow="fold"
        )
    for row in table.rows:
        rich.add_row(*map(escape, row))
    console.print(rich)
    console.print(escape(table.caption), style="dim")
