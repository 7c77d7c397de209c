"""The commands of ``python -m analysis``: parse, call one function, print one result."""

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from analysis.command_line import one_line_errors

app = typer.Typer(
    help="Turn run logs into costs to target, scores and reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Rules(StrEnum):
    """Which scoring."""

    STRICT = "strict"
    ALGOPERF = "algoperf"


class CostUnit(StrEnum):
    """In what costs are counted."""

    STEPS = "steps"
    GRADIENT_EVALUATIONS = "gradient_evaluations"
    SECONDS = "seconds"


class View(StrEnum):
    """Which cost."""

    INCLUDING = "including"
    GIVEN = "given"


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


@app.command()
def score(
    logs: Annotated[Path, typer.Argument(help="a campaign's output folder, or AlgoPerf logs")],
    targets: Annotated[
        Path | None, typer.Option(help="AlgoPerf's workload_targets.json (rules algoperf)")
    ] = None,
    rules: Annotated[Rules, typer.Option(help="strict, or as the official scorer")] = Rules.STRICT,
    cost: Annotated[
        CostUnit | None, typer.Option(help="default: the campaign's; algoperf: seconds")
    ] = None,
    view: Annotated[View, typer.Option(help="cost to score; algoperf: given")] = View.INCLUDING,
    format: Annotated[Format, typer.Option(help="how to print it")] = Format.TABLE,
) -> None:
    """Print the score of every contender under LOGS."""
    with one_line_errors("analysis"):
        if rules is Rules.ALGOPERF:
            if cost not in (None, CostUnit.SECONDS):
                raise ValueError(f"The rules algoperf count seconds, got --cost {cost}.")
            _print_official(_official(logs, targets), format)
            return
        if targets is not None:
            raise ValueError("--targets goes with --rules algoperf; ours are in the records.")
        _print_strict(logs, cost, view, format)


@app.command()
def report(
    logs: Annotated[Path, typer.Argument(help="a campaign's output folder")],
    out: Annotated[Path | None, typer.Option(help="default: LOGS/report")] = None,
) -> None:
    """Write the report of a campaign and print its path."""
    from analysis.stability import STABILITY_FILE

    with one_line_errors("analysis"):
        if (logs / STABILITY_FILE).is_file():
            from analysis.stability_report import write_stability_report as write
        else:
            from analysis.report import write_report as write
        typer.echo(write(logs, out or logs / "report", command=_command()))


def _command() -> str:
    """Return the command line as it can be typed again."""
    return shlex.join(["python", "-m", "analysis", *sys.argv[1:]])


def _official(logs: Path, targets: Path | None) -> dict[str, float]:
    from analysis.algoperf_rules import (
        official_scores,
        official_times,
        read_official_targets,
        targets_of_logs,
    )
    from analysis.reading import read_logs

    if not logs.is_dir():
        raise ValueError(f"No folder {str(logs)!r}.")
    rules = targets_of_logs(read_logs(logs)) if targets is None else read_official_targets(targets)
    root = logs / "logs" if (logs / "logs").is_dir() else logs
    times = official_times(root, rules)
    if not times:
        raise ValueError(f"{logs}: no <submission>/study_1/<workload>_<framework>/trial_1 in it.")
    return official_scores(times, rules)


def _print_official(scores: dict[str, float], format: Format) -> None:
    from rich.console import Console

    from analysis.tables import Table, plain
    from analysis.terminal import print_table

    ordered = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
    if format is Format.JSON:
        typer.echo(json.dumps({"rules": "algoperf", "scores": dict(ordered)}))
        return
    rows = tuple((plain(name), f"{value:.4f}") for name, value in ordered)
    table = Table("AlgoPerf's benchmark score", ("submission", "score"), rows)
    _print(table, format) if format is not Format.TABLE else print_table(table, Console())


def _print_strict(logs: Path, cost: CostUnit | None, view: View, format: Format) -> None:
    from analysis.report import scores_csv
    from analysis.scoring import score_path
    from analysis.tables import flags_of, score_table
    from analysis.terminal import print_scores

    currency = None if cost is None else cost.value
    if format is Format.TABLE:
        print_scores(logs, cost=currency, view=view.value)
        return
    read, scores = score_path(logs, currency)
    scores = scores.sorted_by(view.value)
    if format is Format.JSON:
        values = {name: scores.scores[name][view.value] for name in scores.contenders}
        typer.echo(json.dumps({"rules": "strict", "scores": values}))
    elif format is Format.CSV:
        typer.echo(scores_csv(read, scores), nl=False)
    else:
        _print(score_table(scores, flags_of(read)), format)


def _print(table: object, format: Format) -> None:
    from analysis.latex import latex_table
    from analysis.tables import Table, spreadsheet_cell

    assert isinstance(table, Table)
    if format is Format.LATEX:
        typer.echo(latex_table(table), nl=False)
        return
    lines = [table.header, *table.rows]
    if format is Format.CSV:
        for line in lines:
            typer.echo(",".join(map(spreadsheet_cell, line)))
        return
    typer.echo("| " + " | ".join(table.header) + " |")
    typer.echo("|" + "---|" * len(table.header))
    for row in table.rows:
        typer.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
