"""The commands of ``python -m analysis``; over 400 lines: every option is declared here."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.command_line import one_line_errors, shown_command
from analysis.report.formats import Format
from analysis.text import plain

if TYPE_CHECKING:
    from analysis.commands.source import Source
    from analysis.logs.hardware import HardwareChoice

app = typer.Typer(
    help="Turn run logs into costs to target, scores and reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Rules(StrEnum):
    """The rules of scoring."""

    STRICT = "strict"
    ALGOPERF = "algoperf"


class CostUnit(StrEnum):
    """The unit of costs."""

    STEPS = "steps"
    GRADIENT_EVALUATIONS = "gradient_evaluations"
    SECONDS = "seconds"
    ADJUSTED = "adjusted"


class View(StrEnum):
    """The view of costs."""

    INCLUDING = "including"
    GIVEN = "given"


class Ruleset(StrEnum):
    """AlgoPerf's rulesets."""

    EXTERNAL = "external"
    SELF = "self"


Logs = Annotated[Path, typer.Argument(help="folder or tar: a campaign's output, or AlgoPerf logs")]
Within = Annotated[str | None, typer.Option(help="a folder inside of LOGS")]
Targets = Annotated[
    Path | None,
    typer.Option(
        help="AlgoPerf's workload_targets.json; default: our records' targets, or those that "
        "AlgoPerf's meta data name"
    ),
]
LogRuleset = Annotated[
    Ruleset | None, typer.Option(help="refuse AlgoPerf logs of another; default: their flags'")
]
Studies = Annotated[
    int | None, typer.Option(help="of AlgoPerf logs, that there should be; default: the ruleset's")
]
Trials = Annotated[
    int | None, typer.Option(help="of AlgoPerf logs, that a study may have; default: the ruleset's")
]
BudgetFactor = Annotated[
    float | None, typer.Option(help="of max_allowed_runtime_sec; default: the ruleset's")
]
Cost = Annotated[
    CostUnit | None,
    typer.Option(
        help="default: that of the budgets; adjusted: gradient evaluations times the time factor"
    ),
]
Hardware = Annotated[
    list[str] | None,
    typer.Option("--hardware", help="only runs on this fingerprint; several: mix their seconds"),
]
Board = Annotated[
    Path | None, typer.Option("--board", help="folder; default: this checkout's leaderboard")
]
Rerun = Annotated[
    Path | None, typer.Option(help="another run of the campaign, which verifies contenders")
]
MixHardware = Annotated[
    bool, typer.Option("--mix-hardware", help="put seconds of different hardware in one table")
]
AnyFormat = Annotated[Format, typer.Option(help="how to print it")]


@app.command()
def score(
    logs: Logs,
    within: Within = None,
    targets: Targets = None,
    rules: Annotated[Rules, typer.Option(help="strict, or as the official scorer")] = Rules.STRICT,
    ruleset: LogRuleset = None,
    cost: Cost = None,
    view: Annotated[
        View | None, typer.Option(help="default: including tuning; rules algoperf: given")
    ] = None,
    studies: Studies = None,
    trials: Trials = None,
    budget_factor: BudgetFactor = None,
    diff: Annotated[bool, typer.Option("--diff", help="where the two rules differ")] = False,
    format: AnyFormat = Format.TABLE,
    hardware: Hardware = None,
    mix_hardware: MixHardware = False,
) -> None:
    """Print the scores of LOGS; exit code 1 if a contender failed throughout.

    Example: python -m analysis score runs/demo --format json
    """
    from analysis.commands.score import exit_code, print_diff, print_score

    with one_line_errors("analysis"):
        choice = _choice(hardware, mix_hardware)
        source = _source(logs, within, targets, ruleset, studies, trials, budget_factor, choice)
        if diff:
            if rules is not Rules.STRICT:
                raise ValueError("--diff compares both sets of rules; leave --rules out.")
            print_diff(source, _value(cost), _value(view), format)
            return
        code = exit_code(print_score(source, rules.value, _value(cost), _value(view), format))
    raise typer.Exit(code)


@app.command()
def report(
    logs: Logs,
    out: Annotated[Path | None, typer.Option(help="default: LOGS/report")] = None,
    within: Within = None,
    targets: Targets = None,
    ruleset: LogRuleset = None,
    cost: Cost = None,
    studies: Studies = None,
    trials: Trials = None,
    budget_factor: BudgetFactor = None,
    rerun: Rerun = None,
    hardware: Hardware = None,
    mix_hardware: MixHardware = False,
) -> None:
    """Write the report of LOGS and print its path; exit code 1 if a contender failed throughout.

    Example: python -m analysis report logs.tar.xz --targets workload_targets.json --out report
    """
    from analysis.commands.score import exit_code
    from analysis.report.stability import STABILITY_FILE

    with one_line_errors("analysis"):
        if out is None and logs.is_file():
            raise ValueError("The report of an archive needs --out.")
        folder = out or logs / "report"
        if (logs / STABILITY_FILE).is_file():
            from analysis.report.stability_report import write_stability_report

            typer.echo(write_stability_report(logs, folder, command=shown_command("analysis")))
            return
        from analysis.logs.reader import read_logs
        from analysis.report.report import write_report

        choice = _choice(hardware, mix_hardware)
        source = _source(logs, within, targets, ruleset, studies, trials, budget_factor, choice)
        read = source.read()
        path = write_report(
            read, folder, command=shown_command("analysis"), unit=_value(cost), hardware=choice,
            rerun=None if rerun is None else read_logs(rerun),
            title=(within or "").rstrip("/").rpartition("/")[2],
        )  # fmt: skip
        typer.echo(path)
        code = exit_code(read)
    raise typer.Exit(code)


@app.command()
def statistics(
    logs: Logs,
    within: Within = None,
    targets: Targets = None,
    ruleset: LogRuleset = None,
    cost: Cost = None,
    view: Annotated[View, typer.Option(help="of costs")] = View.INCLUDING,
    studies: Studies = None,
    trials: Trials = None,
    budget_factor: BudgetFactor = None,
    confidence: Annotated[float, typer.Option(help="of every interval and test")] = 0.95,
    resamples: Annotated[int, typer.Option(help="of the bootstrap")] = 10_000,
    seed: Annotated[int, typer.Option(help="of the bootstrap")] = 0,
    format: Annotated[
        Format, typer.Option(help="how to print it; csv and json: every number")
    ] = Format.TABLE,
    hardware: Hardware = None,
    mix_hardware: MixHardware = False,
) -> None:
    """Print how sure the scores of LOGS are: intervals, comparisons, ranks (docs/statistics.md).

    Example: python -m analysis statistics runs/demo --view given
    """
    with one_line_errors("analysis"):
        from analysis.commands.statistics import print_statistics

        choice = _choice(hardware, mix_hardware)
        source = _source(logs, within, targets, ruleset, studies, trials, budget_factor, choice)
        print_statistics(
            source, _value(cost), view.value, confidence=confidence, resamples=resamples,
            seed=seed, format=format,
        )  # fmt: skip


@app.command("hardware")
def show_hardware(
    logs: Annotated[list[Path], typer.Argument(help="campaigns' outputs, or AlgoPerf logs")],
    within: Within = None,
    targets: Targets = None,
    reference: Annotated[
        str | None,
        typer.Option(help="contender that ran on each: seconds per gradient evaluation over its"),
    ] = None,
    view: Annotated[View, typer.Option(help="of costs")] = View.INCLUDING,
    format: AnyFormat = Format.TABLE,
) -> None:
    """List the hardware of LOGS, with costs and speed on each.

    Example: python -m analysis hardware runs/here runs/there --reference adamw+random
    """
    with one_line_errors("analysis"):
        from analysis.report.formats import print_tables
        from analysis.report.tables.hardware import across_hardware_table, hardware_table
        from analysis.scoring.machines import measure_hardware

        read = [
            _source(path, within, targets, None, None, None, None, _choice(None, False)).read()
            for path in logs
        ]
        measured = measure_hardware(read, view.value)
        tables = [hardware_table(read), across_hardware_table(measured, reference)]
        print_tables(tables, (), format)


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
    format: AnyFormat = Format.TABLE,
) -> None:
    """Print whether RERUN agrees with RUNS; exit code 1 if not, or if either breaks a rule."""
    from analysis.checks.check import errors_by_rule, validate
    from analysis.checks.verification import verify as compare
    from analysis.logs.reader import read_logs
    from analysis.report.formats import print_tables
    from analysis.report.tables.verification import verdicts_table

    with one_line_errors("analysis"):
        claimed, again = read_logs(runs), read_logs(rerun)
        verdicts = compare(claimed, again)
        print_tables([verdicts_table(verdicts, claimed, again)], (), format)
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
        source = Source(logs, within, targets, _value(ruleset), studies, trials, budget_factor)
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


def _source(
    logs: Path,
    within: str | None,
    targets: Path | None,
    ruleset: Ruleset | None,
    studies: int | None,
    trials: int | None,
    budget_factor: float | None,
    hardware: "HardwareChoice",
) -> "Source":
    from analysis.commands.source import Source

    kind = _value(ruleset)
    return Source(logs, within, targets, kind, studies, trials, budget_factor, hardware)


def _choice(names: list[str] | None, mix: bool) -> "HardwareChoice":
    from analysis.logs.hardware import HardwareChoice

    return HardwareChoice(tuple(names or ()), mix)


def _value(option: StrEnum | None) -> Any:
    return None if option is None else option.value
