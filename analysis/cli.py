"""The commands of ``python -m analysis``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.command_line import given_options, one_line_errors, shown_command
from analysis.commands.board_commands import rebuild_leaderboard, submit_records, verify_records
from analysis.commands.options import (
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
    SeveralLogs,
    StudiesOption,
    SubmissionsOption,
    TargetsOption,
    TrialsOption,
    ViewOption,
    WithinOption,
)
from analysis.report.formats import Format

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
    logs: SeveralLogs,
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
    submissions: SubmissionsOption = None,
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
            logs, within, targets, ruleset, studies, trials, budget_factor, hardware, mix_hardware,
            submissions,
        )  # fmt: skip
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
    context: typer.Context,
    logs: SeveralLogs,
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
    submissions: SubmissionsOption = None,
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
        if out is None and (len(logs) > 1 or logs[0].is_file()):
            what = "an archive" if len(logs) == 1 else "several folders or archives"
            raise ValueError(f"The report of {what} needs a folder. Add --out FOLDER.")
        folder = out or logs[0] / "report"
        if len(logs) == 1 and (logs[0] / STABILITY_FILE).is_file():
            from analysis.report.stability_report import write_stability_report

            if idle := sorted(given_options(context) - {"--out"}):
                raise ValueError(f"The report of a stability record takes no {idle[0]}.")
            typer.echo(write_stability_report(logs[0], folder, command=shown_command("analysis")))
            return
        from analysis.logs.reader import read_logs
        from analysis.report.report import write_report

        options = _log_options(
            logs, within, targets, ruleset, studies, trials, budget_factor, hardware, mix_hardware,
            submissions,
        )  # fmt: skip
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
    logs: SeveralLogs,
    within: WithinOption = None,
    targets: TargetsOption = None,
    ruleset: RulesetOption = None,
    cost: CostOption = None,
    view: ViewOption = "including",
    studies: StudiesOption = None,
    trials: TrialsOption = None,
    budget_factor: BudgetFactorOption = None,
    submissions: SubmissionsOption = None,
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
            logs, within, targets, ruleset, studies, trials, budget_factor, hardware, mix_hardware,
            submissions,
        )  # fmt: skip
        read = print_statistics(
            options, cost, view, confidence=confidence, resamples=resamples, seed=seed,
            reference=reference, format=format,
        )  # fmt: skip
        code = exit_code(read)
    raise typer.Exit(code)


@app.command()
def merge(
    logs: SeveralLogs,
    out: Annotated[Path, typer.Option(help="Folder to write; empty or missing.")],
    within: WithinOption = None,
    targets: TargetsOption = None,
) -> None:
    """Write the studies of several LOGS of one protocol into one folder, and print its path.

    Campaigns join if seeds, budgets, targets, evaluation schedules and versions agree. The other
    commands read several LOGS in the same way, without a copy.

    Example: python -m analysis merge runs/here runs/there --out runs/all
    """
    with one_line_errors("analysis"):
        from analysis.commands.log_options import LogOptions
        from analysis.logs.merging import merge_logs, write_merged

        read = [LogOptions((path,), within, targets).read() for path in logs]
        merge_logs(read)
        write_merged([(path, within) for path in logs], read, out)
        typer.echo(out)


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
        options = LogOptions((logs,), within, targets, ruleset, studies, trials, budget_factor)
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
    logs: list[Path], within: str | None, targets: Path | None, ruleset: RulesetName | None,
    studies: int | None, trials: int | None, budget_factor: float | None,
    hardware: list[str] | None, mix_hardware: bool, submissions: Path | None,
) -> "LogOptions":  # fmt: skip
    from analysis.commands.log_options import LogOptions
    from analysis.logs.hardware import HardwareChoice

    choice = HardwareChoice(tuple(hardware or ()), mix_hardware)
    return LogOptions(
        tuple(logs), within, targets, ruleset, studies, trials, budget_factor, choice, submissions
    )


app.command("leaderboard")(rebuild_leaderboard)
app.command("submit")(submit_records)
app.command("verify")(verify_records)
