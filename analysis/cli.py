"""The commands of ``python -m analysis``: parse, call one function, print one result."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.command_line import one_line_errors, shown_command
from analysis.report.formats import Format
from analysis.text import plain

if TYPE_CHECKING:
    from analysis.logs.hardware import HardwareChoice

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


class Ruleset(StrEnum):
    """Which of AlgoPerf's rulesets."""

    EXTERNAL = "external"
    SELF = "self"


Logs = Annotated[Path, typer.Argument(help="folder or tar: a campaign's output, or AlgoPerf logs")]
Within = Annotated[str | None, typer.Option(help="a folder inside of LOGS")]
Targets = Annotated[
    Path | None,
    typer.Option(help="AlgoPerf's workload_targets.json; default: our records' own targets"),
]
Hardware = Annotated[
    list[str] | None,
    typer.Option("--hardware", help="only runs on this fingerprint; several: mix their seconds"),
]
Board = Annotated[
    Path | None, typer.Option("--board", help="folder; default: this checkout's leaderboard")
]
Rerun = Annotated[
    Path | None, typer.Option(help="another run of the campaign: says who is verified by it")
]
MixHardware = Annotated[
    bool, typer.Option("--mix-hardware", help="put seconds of different hardware in one table")
]


@app.command()
def score(
    logs: Logs,
    within: Within = None,
    targets: Targets = None,
    rules: Annotated[Rules, typer.Option(help="strict, or as the official scorer")] = Rules.STRICT,
    ruleset: Annotated[
        Ruleset, typer.Option(help="says how many trials and how much time (with --targets)")
    ] = Ruleset.EXTERNAL,
    cost: Annotated[
        CostUnit | None, typer.Option(help="default: the campaign's; AlgoPerf logs: seconds")
    ] = None,
    view: Annotated[
        View | None, typer.Option(help="default: including tuning; rules algoperf: given")
    ] = None,
    studies: Annotated[
        int | None, typer.Option(help="that each submission should have; default: the ruleset's")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="that a study may have; default: the ruleset's")
    ] = None,
    budget_factor: Annotated[
        float | None, typer.Option(help="times max_allowed_runtime_sec; default: the ruleset's")
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="where the two rules differ, and why")
    ] = False,
    times: Annotated[bool, typer.Option("--times", help="times to target in JSON too")] = False,
    format: Annotated[Format, typer.Option(help="how to print it")] = Format.TABLE,
    hardware: Hardware = None,
    mix_hardware: MixHardware = False,
) -> None:
    """Print the score of every contender under LOGS."""
    from analysis.commands.score import Request, print_diff, print_score

    with one_line_errors("analysis"):
        request = Request(
            logs,
            within,
            targets,
            rules.value,
            ruleset.value,
            None if cost is None else cost.value,
            None if view is None else view.value,
            studies,
            trials,
            budget_factor,
            times,
            format,
            _choice(hardware, mix_hardware),
        )
        (print_diff if diff else print_score)(request)


@app.command()
def report(
    logs: Annotated[Path, typer.Argument(help="a campaign's output folder")],
    out: Annotated[Path | None, typer.Option(help="default: LOGS/report")] = None,
    rerun: Rerun = None,
    hardware: Hardware = None,
    mix_hardware: MixHardware = False,
) -> None:
    """Write the report of a campaign and print its path."""
    from analysis.report.stability import STABILITY_FILE

    with one_line_errors("analysis"):
        folder = out or logs / "report"
        if (logs / STABILITY_FILE).is_file():
            from analysis.report.stability_report import write_stability_report

            typer.echo(write_stability_report(logs, folder, command=shown_command("analysis")))
            return
        from analysis.report.report import write_report

        choice = _choice(hardware, mix_hardware)
        path = write_report(
            logs, folder, command=shown_command("analysis"), hardware=choice, rerun=rerun
        )
        typer.echo(path)


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
    hardware: Hardware = None,
    mix_hardware: MixHardware = False,
) -> None:
    """Print how sure the scores of LOGS are: intervals, comparisons, ranks (docs/statistics.md)."""
    with one_line_errors("analysis"):
        from analysis.checks.fairness import missing_studies
        from analysis.commands.statistics import print_inference
        from analysis.scoring.scores import score_path
        from analysis.statistics.inference import infer
        from analysis.statistics.samples import samples_of

        unit, choice = None if cost is None else cost.value, _choice(hardware, mix_hardware)
        read, scores = score_path(logs, unit, choice)
        samples = samples_of(scores, view.value)
        found = infer(
            samples, scores.unit, view.value, confidence=confidence, resamples=resamples, seed=seed
        )
        missing = tuple(f"MISSING, counted as a miss: {entry}" for entry in missing_studies(read))
        print_inference(found, scores.notes + missing, format)


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
        from analysis.commands.statistics import print_listed
        from analysis.logs.reader import read_logs
        from analysis.scoring.machines import (
            across_hardware_table,
            costs_by_hardware,
            hardware_table,
        )

        read = [read_logs(path) for path in logs]
        tables = [hardware_table(read)]
        if reference is not None:
            tables.append(across_hardware_table(costs_by_hardware(read, view.value), reference))
        print_listed(tables, (), format)


@app.command()
def leaderboard(
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; exit code 1 if anything would change")
    ] = False,
    board: Board = None,
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
    rerun: Rerun = None,
    board: Board = None,
) -> None:
    """Check RUNS by the strict rules and add their records to the leaderboard; else exit code 1."""
    from analysis.leaderboard.pages import BOARD
    from analysis.leaderboard.submitting import RefusedRuns
    from analysis.leaderboard.submitting import submit as write_records

    with one_line_errors("analysis"):
        try:
            for path in write_records(runs, board or BOARD, command, rerun):
                typer.echo(path)
        except RefusedRuns as error:
            _print_problems(error.problems)
            raise typer.Exit(1) from None


@app.command()
def verify(
    runs: Annotated[Path, typer.Argument(help="a campaign's output folder")],
    rerun: Annotated[Path, typer.Argument(help="that of another run of it, on any machine")],
    format: Annotated[Format, typer.Option(help="how to print it; not json")] = Format.TABLE,
) -> None:
    """Print whether RERUN agrees with RUNS; exit code 1 if not, or if either breaks a rule."""
    from analysis.checks.check import errors_by_rule, validate
    from analysis.checks.verification import verdicts_table
    from analysis.checks.verification import verify as compare
    from analysis.commands.statistics import print_listed
    from analysis.logs.reader import read_logs

    with one_line_errors("analysis"):
        claimed, again = read_logs(runs), read_logs(rerun)
        verdicts = compare(claimed, again)
        print_listed([verdicts_table(verdicts, claimed, again)], (), format)
        problems = [
            f"{name}: {problem}"
            for name, logs in (("runs", claimed), ("rerun", again))
            for problem in errors_by_rule(validate(logs))
        ]
    _print_problems(problems)
    if problems or not all(verdict.verified for verdict in verdicts):
        raise typer.Exit(1)


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        typer.echo(f"analysis: {plain(problem)}", err=True)


@app.command()
def validate(
    logs: Annotated[Path | None, typer.Argument(help="folder or tar, ours or AlgoPerf's")] = None,
    within: Within = None,
    targets: Annotated[
        Path | None, typer.Option(help="AlgoPerf's workload_targets.json to compare with")
    ] = None,
    ruleset: Annotated[
        Ruleset | None, typer.Option(help="that the logs must be of; default: their flags'")
    ] = None,
    studies: Annotated[int | None, typer.Option(help="that there should be")] = None,
    trials: Annotated[int | None, typer.Option(help="that a study should have")] = None,
    budget_factor: Annotated[
        float | None, typer.Option(help="times max_allowed_runtime_sec; default: the ruleset's")
    ] = None,
    accept: Annotated[
        Path | None, typer.Option(help="TOML file of findings that are known and accepted")
    ] = None,
    explain: Annotated[str | None, typer.Option(help="print the meaning of this rule")] = None,
    rules: Annotated[bool, typer.Option("--rules", help="list the rules")] = False,
    all: Annotated[
        bool, typer.Option("--all", help="print every finding, not five a rule")
    ] = False,
    format: Annotated[Format, typer.Option(help="table, markdown or json")] = Format.TABLE,
) -> None:
    """Print the problems of LOGS, rule by rule; exit code 1 if there is an error."""
    from analysis.commands.source import Source
    from analysis.commands.validate import print_findings, print_rules

    with one_line_errors("analysis"):
        if format not in (Format.TABLE, Format.MARKDOWN, Format.JSON):
            raise ValueError(f"`--format` must be table, markdown or json, got {format.value}.")
        asked = (within, targets, ruleset, studies, trials, budget_factor)
        if rules or explain is not None:
            if logs is not None or all or accept is not None or any(a is not None for a in asked):
                raise ValueError("--rules and --explain go with --format only: they read no logs.")
            if rules and explain is not None:
                raise ValueError("--rules lists all rules, --explain one: choose one of them.")
            print_rules(explain, format)
            return
        if logs is None:
            raise ValueError("Missing argument 'logs'.")
        if all and format is not Format.TABLE:
            raise ValueError("--all goes with --format table: the others have every finding.")
        kind = None if ruleset is None else ruleset.value
        source = Source(logs, within, targets, kind, studies, trials, budget_factor)
        code = print_findings(source, accept=accept, format=format, everything=all)
    raise typer.Exit(code)


@app.command()
def table(
    logs: Logs,
    within: Within = None,
    out: Annotated[Path | None, typer.Option(help="a CSV file; default: standard output")] = None,
) -> None:
    """Write every metric of every evaluation under LOGS as one long table (CSV)."""
    from analysis.report.evaluations import read_table
    from analysis.report.pages import write_csv

    with one_line_errors("analysis"):
        found, notes = read_table(logs, within)
        write_csv(found, out)
        if notes:
            typer.echo(f"analysis: {len(notes)} oddities; python -m analysis validate names them.",
                       err=True)  # fmt: skip


def _choice(names: list[str] | None, mix: bool) -> "HardwareChoice":
    from analysis.logs.hardware import HardwareChoice

    return HardwareChoice(tuple(names or ()), mix)
