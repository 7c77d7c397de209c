"""``python -m tuning compare``: run a campaign and report it, or measure what it would take."""

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import track

from analysis.command_line import shown_command
from analysis.commands.score_command import exit_code, print_scores
from analysis.logs.reader import read_logs
from analysis.report.report import write_report
from analysis.report.terminal import print_table
from analysis.scoring.scores import score_logs
from metaopt.bench.records import STUDY_FILE, read_study
from tuning.campaign import Campaign
from tuning.cores import available_cores, kept_to, share_cores
from tuning.estimate import estimate_table, list_probes, probe_all
from tuning.executor import (
    UnfinishedError,
    check_budgets,
    check_data,
    count_workers,
    list_studies,
    run_campaign,
)


def run_and_report(campaign: Campaign, out: Path, workers: int | None) -> int:
    """Run the studies that ``out`` does not hold yet, write the report and print the scores.

    Returns:
        The exit code: 1 if a study could not continue, or a contender failed throughout on a
        workload.

    Raises:
        FileNotFoundError: As :func:`~tuning.executor.run_campaign`.
        ValueError: As :func:`~tuning.executor.run_campaign`, or no study could continue.
    """
    unfinished = None
    try:
        run_campaign(campaign, out, workers=workers, console=Console(stderr=True))
    except UnfinishedError as error:
        if not error.finished:
            raise
        unfinished = error
    code = report_campaign(campaign, out)
    if unfinished is not None:
        typer.echo(f"tuning: {unfinished}", err=True)
        return 1
    return code


def report_campaign(campaign: Campaign, out: Path) -> int:
    """Write the report, print the scores and check that spent budgets are equal.

    Returns:
        The exit code: 1 if a contender failed throughout on a workload.

    Raises:
        ValueError: A study missed its budget, see :func:`~tuning.executor.check_budgets`.
    """
    logs = read_logs(out)
    report = write_report(logs, out / "report", command=shown_command("tuning"))
    print_scores(logs, score_logs(logs))
    typer.echo(f"report: {report}")
    paths = [key.folder(out) / STUDY_FILE for key in list_studies(campaign)]
    check_budgets([read_study(path) for path in paths if path.exists()])
    return exit_code(logs)


def print_estimates(campaign: Campaign, workers: int | None) -> None:
    """Print what every contender would do and how long it would take, from a few measured steps.

    Raises:
        FileNotFoundError: The campaign needs data that is missing.
        ValueError: A contender cannot run; the message has its error.
    """
    processes = count_workers(campaign, workers, len(list_studies(campaign)))
    check_data(campaign)
    console = Console(stderr=True)
    probes = track(
        list_probes(campaign), "measuring", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with kept_to(share_cores(available_cores(), processes)[0]):  # like a process of the campaign
        estimates = probe_all(campaign, probes)
    print_table(estimate_table(estimates, processes), Console())
    for estimate in estimates:
        if estimate.failures is not None:
            where = f"{estimate.key.contender} on {estimate.key.workload}"
            typer.echo(f"warning: {where}: {estimate.failures}", err=True)
