"""The commands of ``python -m analysis``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.command_line import one_line_errors, shown_command
from analysis.commands.options import (
    BoardOption,
    BudgetFactorOption,
    CostOption,
    CostView,
    FormatOption,
    HardwareOption,
    LogsArgument,
    MixHardwareOption,
    ReferenceOption,
    RerunOption,
    RulesetName,
    RulesetOption,
    StudiesOption,
    TargetsOption,
    TrialsOption,
    ViewOption,
    WithinOption,
)
from analysis.report.formats import Format
from analysis.wording import plain

if TYPE_CHECKING:
    from analysis.commands.log_options import LogOptions

app = typer.Typer(
    help="Turn the logs of training runs into costs to target, scores and reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def score(
    logs: LogsArgument,
    within: WithinOption = None,
    targets: TargetsOption = None,
    rules: Annotated[
        Literal["strict", "algoperf"],
        typer.Option(help="Scoring rules: ours, or those of AlgoPerf's official scorer."),
    ] = "strict",
    ruleset: RulesetOption = None,
    cost: CostOption = None,
    view: Annotated[
        CostView | None,
        typer.Option(
            help="Score to sort by: including tuning, or given tuned. Default: including; with "
            "--rules algoperf: given."
        ),
    ] = None,
    studies: StudiesOption = None,
    trials: TrialsOption = None,
    budget_factor: BudgetFactorOption = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show where the two sets of scoring rules differ.")
    ] = False,
    format: FormatOption = Format.TABLE,
    hardware: HardwareOption = None,
    mix_hardware: MixHardwareOption = False,
) -> None:
    """Print the scores of LOGS.

    The exit code is 1 if some contender failed in every trial.

    Example: python -m analysis score runs/demo --format json
    """
    from analysis.commands.score_command import exit_code, print_diff, print_score

    with one_line_errors("analysis"):
        options = _log_options(
            logs, within, targets, ruleset, studies, trials, budget_factor, hardware, mix_hardware
        )
        if diff:
            if rules != "strict":
                raise ValueError("--diff compares both sets of rules. Leave --rules out.")
            read = print_diff(options, cost, view, format)
        else:
            read = print_score(options, rules, cost, view, format)
        code = exit_code(read)
    raise typer.Exit(code)


@app.command()
def report(
    logs: LogsArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report. Default: LOGS/report.")
    ] = None,
    within: WithinOption = None,
    targets: TargetsOption = None,
    ruleset: RulesetOption = None,
    cost: CostOption = None,
    studies: StudiesOption = None,
    trials: TrialsOption = None,
    budget_factor: BudgetFactorOption = None,
    reference: ReferenceOption = "adamw+random",
    rerun: RerunOption = None,
    hardware: HardwareOption = None,
    mix_hardware: MixHardwareOption = False,
) -> None:
    """Write a report on LOGS (HTML, Markdown, CSV, plots) and print its path.

    The exit code is 1 if some contender failed in every trial.

    Example: python -m analysis report logs.tar.xz --targets workload_targets.json --out report
    """
    from analysis.commands.score_command import exit_code
    from metaopt.bench.records.stability import STABILITY_FILE

    with one_line_errors("analysis"):
        if out is None and logs.is_file():
            raise ValueError("The report of an archive needs a folder. Add --out FOLDER.")
        folder = out or logs / "report"
        if (logs / STABILITY_FILE).is_file():
            from analysis.report.stability_report import write_stability_report

            asked = [within, targets, ruleset, cost, studies, trials, budget_factor, rerun]
            if mix_hardware or hardware or any(option is not None for option in asked):
                raise ValueError("The report of a stability record has no options but --out.")
            typer.echo(write_stability_report(logs, folder, command=shown_command("analysis")))
            return
        from analysis.logs.reader import read_logs
        from analysis.report.report import write_report

        options = _log_options(
            logs, within, targets, ruleset, studies, trials, budget_factor, hardware, mix_hardware
        )
        read = options.read()
        path = write_report(
            read, folder, command=shown_command("analysis"), unit=cost, hardware=options.hardware,
            rerun=None if rerun is None else read_logs(rerun), reference=reference,
            title=(within or "").rstrip("/").rpartition("/")[2],
        )  # fmt: skip
        typer.echo(path)
        code = exit_code(read)
    raise typer.Exit(code)


@app.command()
def statistics(
    logs: LogsArgument,
    within: WithinOption = None,
    targets: TargetsOption = None,
    ruleset: RulesetOption = None,
    cost: CostOption = None,
    view: ViewOption = "including",
    studies: StudiesOption = None,
    trials: TrialsOption = None,
    budget_factor: BudgetFactorOption = None,
    confidence: Annotated[
        float, typer.Option(help="Confidence of the intervals and tests, between 0 and 1.")
    ] = 0.95,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    reference: ReferenceOption = "adamw+random",
    format: Annotated[
        Format, typer.Option(help="Format of the output; csv and json hold every number.")
    ] = Format.TABLE,
    hardware: HardwareOption = None,
    mix_hardware: MixHardwareOption = False,
) -> None:
    """Print intervals of the scores of LOGS, repeatability, speed-ups, comparisons and ranks.

    The formulas are in docs/statistics.md. The exit code is 1 if some contender failed in every
    trial.

    Example: python -m analysis statistics runs/demo --view given
    """
    from analysis.commands.score_command import exit_code

    with one_line_errors("analysis"):
        from analysis.commands.statistics_command import print_statistics

        options = _log_options(
            logs, within, targets, ruleset, studies, trials, budget_factor, hardware, mix_hardware
        )
        read = print_statistics(
            options, cost, view, confidence=confidence, resamples=resamples, seed=seed,
            reference=reference, format=format,
        )  # fmt: skip
        code = exit_code(read)
    raise typer.Exit(code)


@app.command("hardware")
def show_hardware(
    logs: Annotated[
        list[Path], typer.Argument(help="One or more outputs of campaigns, or AlgoPerf logs.")
    ],
    within: WithinOption = None,
    targets: TargetsOption = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Contender that ran on all of the hardware: adds each contender's seconds per "
            "gradient evaluation over the reference's."
        ),
    ] = None,
    view: ViewOption = "including",
    format: FormatOption = Format.TABLE,
) -> None:
    """List the hardware of LOGS, with the costs and the speed on each.

    The exit code is 1 if some contender failed in every trial.

    Example: python -m analysis hardware runs/here runs/there --reference adamw+random
    """
    with one_line_errors("analysis"):
        from analysis.commands.hardware_command import print_hardware
        from analysis.commands.score_command import exit_code

        code = exit_code(*print_hardware(logs, within, targets, reference, view, format))
    raise typer.Exit(code)


@app.command()
def leaderboard(
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Write nothing; exit with code 1 if a page is outdated or has no record.",
        ),
    ] = False,
    board: BoardOption = None,
) -> None:
    """Rebuild the pages of the leaderboard from its records, and delete pages without records.

    Example: python -m analysis leaderboard --check
    """
    with one_line_errors("analysis"):
        from analysis.leaderboard.board_pages import BOARD, write_leaderboard, wrong_files

        folder = board or BOARD
        if not check:
            for path in write_leaderboard(folder):
                typer.echo(path)
            return
        if wrong := wrong_files(folder):
            for path, problem in wrong.items():
                typer.echo(f"analysis: {plain(path)} {problem}.", err=True)
            typer.echo("analysis: Run `python -m analysis leaderboard` to rebuild it.", err=True)
            raise typer.Exit(1)


@app.command()
def submit(
    runs: Annotated[Path, typer.Argument(help="Output folder of a campaign.")],
    command: Annotated[
        str | None,
        typer.Option(
            help="Command that repeats the campaign. Default: `tuning compare` with its name."
        ),
    ] = None,
    rerun: RerunOption = None,
    board: BoardOption = None,
) -> None:
    """Check RUNS by the strict rules and add their records to the leaderboard.

    If a rule is broken, nothing is written and the exit code is 1.

    Example: python -m analysis submit runs/mine --rerun runs/again
    """
    from analysis.leaderboard.board_pages import BOARD
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
    runs: Annotated[Path, typer.Argument(help="Output folder of a campaign.")],
    rerun: Annotated[Path, typer.Argument(help="Output folder of a second run, on any machine.")],
    format: FormatOption = Format.TABLE,
) -> None:
    """Print whether the costs of RERUN agree with those of RUNS.

    The exit code is 1 if they do not agree, or if either breaks a rule.

    Example: python -m analysis verify runs/mine runs/again
    """
    from analysis.commands.verify_command import print_verdicts

    with one_line_errors("analysis"):
        verified, problems = print_verdicts(runs, rerun, format)
    _print_problems(problems)
    if problems or not verified:
        raise typer.Exit(1)


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        typer.echo(f"analysis: {plain(problem)}", err=True)


@app.command()
def validate(
    logs: Annotated[
        Path | None,
        typer.Argument(help="Folder or tar archive: the output of a campaign, or AlgoPerf logs."),
    ] = None,
    within: WithinOption = None,
    targets: Annotated[
        Path | None, typer.Option(help="AlgoPerf's workload_targets.json to compare with.")
    ] = None,
    ruleset: RulesetOption = None,
    studies: StudiesOption = None,
    trials: TrialsOption = None,
    budget_factor: BudgetFactorOption = None,
    accept: Annotated[
        Path | None, typer.Option(help="TOML file with the findings that are accepted.")
    ] = None,
    explain: Annotated[
        str | None, typer.Option(help="Print the meaning and the remedy of this rule.")
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules.")] = False,
    all: Annotated[
        bool, typer.Option("--all", help="Print all findings, not only five per rule.")
    ] = False,
    format: Annotated[
        Format, typer.Option(help="Format of the output: table, markdown or json.")
    ] = Format.TABLE,
) -> None:
    """Print the problems of LOGS, rule by rule.

    The exit code is 1 if there is an error that is not accepted.

    Example: python -m analysis validate runs/demo --all
    """
    from analysis.commands.log_options import LogOptions
    from analysis.commands.validate_command import print_findings, print_rules

    with one_line_errors("analysis"):
        if format not in (Format.TABLE, Format.MARKDOWN, Format.JSON):
            raise ValueError(f"`--format` must be table, markdown or json, got {format.value}.")
        asked = (within, targets, ruleset, studies, trials, budget_factor)
        if rules or explain is not None:
            if logs is not None or all or accept is not None or any(a is not None for a in asked):
                raise ValueError("--rules and --explain read no logs. Use only --format with them.")
            if rules and explain is not None:
                raise ValueError("--rules lists all rules, --explain only one. Choose one of them.")
            print_rules(explain, format)
            return
        if logs is None:
            raise ValueError("Missing argument 'logs'. Give a folder or an archive.")
        if all and format is not Format.TABLE:
            raise ValueError(
                f"--all needs --format table, got {format.value}, which prints all findings anyway."
            )
        options = LogOptions(logs, within, targets, ruleset, studies, trials, budget_factor)
        code = print_findings(options, accept=accept, format=format, everything=all)
    raise typer.Exit(code)


@app.command()
def table(
    logs: LogsArgument,
    within: WithinOption = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.")
    ] = None,
    format: FormatOption = Format.CSV,
) -> None:
    """Write all metrics of all evaluations in LOGS as one long table.

    Example: python -m analysis table runs/demo --out evaluations.csv
    """
    from analysis.commands.table_command import print_evaluations

    with one_line_errors("analysis"):
        print_evaluations(logs, within, out, format)


def _log_options(
    logs: Path, within: str | None, targets: Path | None, ruleset: RulesetName | None,
    studies: int | None, trials: int | None, budget_factor: float | None,
    hardware: list[str] | None, mix_hardware: bool,
) -> "LogOptions":  # fmt: skip
    from analysis.commands.log_options import LogOptions
    from analysis.logs.hardware import HardwareChoice

    choice = HardwareChoice(tuple(hardware or ()), mix_hardware)
    return LogOptions(logs, within, targets, ruleset, studies, trials, budget_factor, choice)
