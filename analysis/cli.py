"""The commands of ``python -m analysis``: parse, call one function, print one result."""

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.command_line import one_line_errors

if TYPE_CHECKING:
    from analysis.hardware import HardwareChoice
    from analysis.inference import Inference
    from analysis.tables import Table

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


_Hardware = Annotated[
    list[str] | None,
    typer.Option("--hardware", help="only runs on this fingerprint; several: mix their seconds"),
]
_Mix = Annotated[
    bool, typer.Option("--mix-hardware", help="put seconds of different hardware in one table")
]


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
    hardware: _Hardware = None,
    mix_hardware: _Mix = False,
) -> None:
    """Print the score of every contender under LOGS."""
    with one_line_errors("analysis"):
        if rules is Rules.ALGOPERF:
            if cost not in (None, CostUnit.SECONDS):
                raise ValueError(f"The rules algoperf count seconds, got --cost {cost}.")
            if hardware or mix_hardware:
                raise ValueError("--hardware and --mix-hardware go with --rules strict.")
            _print_official(_official(logs, targets), format)
            return
        if targets is not None:
            raise ValueError("--targets goes with --rules algoperf; ours are in the records.")
        _print_strict(logs, cost, view, format, _choice(hardware, mix_hardware))


@app.command()
def report(
    logs: Annotated[Path, typer.Argument(help="a campaign's output folder")],
    out: Annotated[Path | None, typer.Option(help="default: LOGS/report")] = None,
    hardware: _Hardware = None,
    mix_hardware: _Mix = False,
) -> None:
    """Write the report of a campaign and print its path."""
    from analysis.stability import STABILITY_FILE

    with one_line_errors("analysis"):
        folder = out or logs / "report"
        if (logs / STABILITY_FILE).is_file():
            from analysis.stability_report import write_stability_report

            typer.echo(write_stability_report(logs, folder, command=_command()))
            return
        from analysis.report import write_report

        choice = _choice(hardware, mix_hardware)
        typer.echo(write_report(logs, folder, command=_command(), hardware=choice))


def _command() -> str:
    """Return the command line as it can be typed again."""
    return shlex.join(["python", "-m", "analysis", *sys.argv[1:]])


@app.command()
def statistics(
    logs: Annotated[Path, typer.Argument(help="a campaign's output folder")],
    cost: Annotated[CostUnit | None, typer.Option(help="default: the campaign's")] = None,
    view: Annotated[View, typer.Option(help="which cost")] = View.INCLUDING,
    confidence: Annotated[float, typer.Option(help="of every interval and test")] = 0.95,
    resamples: Annotated[int, typer.Option(help="of the bootstrap")] = 10_000,
    seed: Annotated[int, typer.Option(help="of the bootstrap")] = 0,
    format: Annotated[
        Format, typer.Option(help="how to print it; csv: every number")
    ] = Format.TABLE,
    hardware: _Hardware = None,
    mix_hardware: _Mix = False,
) -> None:
    """Print how sure the scores of LOGS are: intervals, comparisons, ranks (docs/statistics.md)."""
    with one_line_errors("analysis"):
        from analysis.hardware import HardwareChoice
        from analysis.inference import infer
        from analysis.samples import samples_of_path

        currency = None if cost is None else cost.value
        choice = HardwareChoice(tuple(hardware or ()), mix_hardware)
        samples, currency, notes = samples_of_path(logs, currency, view.value, choice)
        found = infer(
            samples, currency, view.value, confidence=confidence, resamples=resamples, seed=seed
        )
        _print_inference(found, notes, format)


def _print_inference(found: "Inference", notes: tuple[str, ...], format: Format) -> None:
    from rich.console import Console

    from analysis.inference_tables import (
        ROWS_HEADER,
        inference_document,
        inference_rows,
        inference_tables,
    )
    from analysis.pages import csv_text
    from analysis.terminal import print_tables

    if format is Format.JSON:
        typer.echo(json.dumps(inference_document(found) | {"notes": notes}, allow_nan=False))
    elif format is Format.CSV:
        typer.echo(csv_text(ROWS_HEADER, inference_rows(found)), nl=False)
    elif format is Format.TABLE:
        print_tables(inference_tables(found), (*notes, *found.warnings), Console())
    else:
        for table in inference_tables(found):
            _print(table, format)


@app.command("hardware")
def show_hardware(
    logs: Annotated[list[Path], typer.Argument(help="output folders of campaigns")],
    reference: Annotated[
        str | None, typer.Option(help="contender that ran on each: seconds over its seconds")
    ] = None,
    view: Annotated[View, typer.Option(help="which cost")] = View.INCLUDING,
    format: Annotated[Format, typer.Option(help="how to print it; not json")] = Format.TABLE,
) -> None:
    """List the hardware of LOGS; with --reference, compare costs across it."""
    with one_line_errors("analysis"):
        from rich.console import Console

        from analysis.calibration import across_hardware_table, costs_by_hardware, hardware_table
        from analysis.reading import read_logs
        from analysis.terminal import print_tables

        if format is Format.JSON:
            raise ValueError("--format json is not offered here, only table, csv, markdown, latex.")
        read = [read_logs(path) for path in logs]
        tables = [hardware_table(read)]
        if reference is not None:
            tables.append(across_hardware_table(costs_by_hardware(read, view.value), reference))
        if format is Format.TABLE:
            print_tables(tables, (), Console())
        else:
            for table in tables:
                _print(table, format)


_Board = Annotated[
    Path | None, typer.Option("--board", help="folder; default: this checkout's leaderboard")
]


@app.command()
def leaderboard(
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; exit code 1 if anything would change")
    ] = False,
    board: _Board = None,
) -> None:
    """Rebuild the pages of the leaderboard from its records."""
    with one_line_errors("analysis"):
        from analysis.leaderboard.pages import BOARD, outdated_files, write_leaderboard

        folder = board or BOARD
        if not check:
            for path in write_leaderboard(folder):
                typer.echo(path)
            return
        if outdated := outdated_files(folder):
            for path in outdated:
                typer.echo(f"analysis: {path} is not what its records make of it", err=True)
            typer.echo("analysis: run `python -m analysis leaderboard`", err=True)
            raise typer.Exit(1)


@app.command()
def submit(
    runs: Annotated[Path, typer.Argument(help="a campaign's output folder")],
    command: Annotated[
        str | None, typer.Option(help="that repeats it; default: tuning compare with its name")
    ] = None,
    board: _Board = None,
) -> None:
    """Check RUNS and add their records to the leaderboard; exit code 1 if they may not be added."""
    from analysis.leaderboard.pages import BOARD
    from analysis.leaderboard.submitting import RefusedRuns
    from analysis.leaderboard.submitting import submit as write_records
    from analysis.text import plain

    with one_line_errors("analysis"):
        try:
            for path in write_records(runs, board or BOARD, command):
                typer.echo(path)
        except RefusedRuns as error:
            for problem in error.problems:
                typer.echo(f"analysis: {plain(problem)}", err=True)
            raise typer.Exit(1) from None


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


def _choice(names: list[str] | None, mix: bool) -> "HardwareChoice":
    from analysis.hardware import HardwareChoice

    return HardwareChoice(tuple(names or ()), mix)


def _print_strict(
    logs: Path, cost: CostUnit | None, view: View, format: Format, hardware: "HardwareChoice"
) -> None:
    from analysis.report import scores_csv
    from analysis.scoring import score_path
    from analysis.tables import flags_of, score_table
    from analysis.terminal import print_scores

    currency = None if cost is None else cost.value
    if format is Format.TABLE:
        print_scores(logs, cost=currency, view=view.value, hardware=hardware)
        return
    read, scores = score_path(logs, currency, hardware)
    scores = scores.sorted_by(view.value)
    if format is Format.JSON:
        values = {name: scores.scores[name][view.value] for name in scores.contenders}
        typer.echo(json.dumps({"rules": "strict", "scores": values}))
    elif format is Format.CSV:
        typer.echo(scores_csv(read, scores), nl=False)
    else:
        _print(score_table(scores, flags_of(read)), format)


def _print(table: "Table", format: Format) -> None:
    from analysis.formats import render

    typer.echo(render(table, format.value), nl=False)
