"""``python -m tuning compare``: run a campaign and report it, or measure what it would take."""

import os
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
from tuning.campaign import Campaign
from tuning.campaign_folder import check_data
from tuning.cluster import Resources
from tuning.cores import available_cores, kept_to
from tuning.estimate import estimate_table, list_probes, probe_all
from tuning.executor import UnfinishedError, check_budgets, has_ray, run_campaign
from tuning.obstacles import find_obstacles
from tuning.output_folders import choose_folder
from tuning.studies import campaign_currency, list_studies

# What an option leaves without effect.
_IDLE = {
    "--in-process": ("--cpus-per-study", "--gpus-per-study", "--address", "--dashboard", "--slurm"),
    "--dry-run": ("--gpus-per-study", "--address", "--dashboard", "--slurm"),
    "--slurm": ("--address", "--dashboard"),
    "--address": ("--dashboard",),
}


def refuse_idle_options(given: set[str]) -> None:
    """Refuse options of ``compare`` that would have no effect.

    Raises:
        ValueError: There is one; the message names it.
    """
    for option, idle in _IDLE.items():
        for other in idle:
            if option in given and other in given:
                raise ValueError(f"{other} has no effect with {option}.")
    if "--slurm-option" in given and "--slurm" not in given:
        raise ValueError("--slurm-option has no effect without --slurm.")


def begin(campaign: Campaign, out: Path | None, *, require_clean: bool, dry_run: bool) -> Path:
    """Choose the output folder, and say early what would keep the records off the leaderboard.

    Args:
        campaign: The campaign.
        out: Its output folder; by default see :func:`~tuning.output_folders.choose_folder`.
        require_clean: Whether an obstacle is an error.
        dry_run: Whether nothing will run, so that the folder does not matter.

    Returns:
        The output folder.

    Raises:
        ValueError: There is an obstacle and ``require_clean``.
    """
    console = Console(stderr=True)

    def note(line: str) -> None:
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)

    chosen, line = (out, "") if out is not None else choose_folder(campaign)
    if line and not dry_run:
        note(line)
    if obstacles := find_obstacles(campaign, chosen):
        why = " ".join(obstacles)
        if require_clean:
            raise ValueError(f"The leaderboard would refuse the records (--require-clean). {why}")
        note(f"the leaderboard would refuse the records. {why}")
    return chosen


def run_and_report(campaign: Campaign, out: Path, resources: Resources | None) -> int:
    """Run the studies that ``out`` does not hold yet, write the report and print the scores.

    Args:
        campaign: The campaign.
        out: Its output folder.
        resources: Where studies run on Ray; ``None`` runs them in this process.

    Returns:
        The exit code: 1 if a study could not continue, or a contender failed throughout on a
        workload.

    Raises:
        FileNotFoundError: As :func:`~tuning.executor.run_campaign`.
        ValueError: As :func:`~tuning.executor.run_campaign`, or no study could continue.
    """
    console, unfinished = Console(stderr=True), None
    if resources is not None and not has_ray():
        if resources.address is not None:
            raise ValueError("--address needs Ray: pip install ray.")
        console.print("note: Ray is not installed; studies run one after another in this process.")
        resources = None
    try:
        run_campaign(campaign, out, resources=resources, console=console)
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
    print_scores(logs, score_logs(logs), report=report)
    keys = set(list_studies(campaign))
    check_budgets([s for s in logs.studies if (s.contender, s.workload, s.study) in keys])
    return exit_code(logs)


def print_estimates(campaign: Campaign, cpus: int | None, *, in_process: bool) -> None:
    """Print what every contender would do and how long it would take, from a few measured steps.

    Args:
        campaign: The campaign.
        cpus: The cores of each study on this machine; by default one.
        in_process: Whether the studies would run one after another.

    Raises:
        FileNotFoundError: The campaign needs data that is missing.
        ValueError: A contender cannot run; the message has its error.
    """
    check_data(campaign)
    cores, processes = len(available_cores()) or os.cpu_count() or 1, 1
    if not in_process and campaign_currency(campaign) != "seconds":
        processes = max(1, min(cores // (cpus or 1), len(list_studies(campaign))))
    console = Console(stderr=True)
    probes = track(
        list_probes(campaign), "measuring", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with kept_to(available_cores()[: cores // processes]):  # like a process of the campaign
        estimates = probe_all(campaign, probes)
    print_table(estimate_table(estimates, processes), Console())
    for estimate in estimates:
        if estimate.failures is not None:
            where = f"{estimate.key.contender} on {estimate.key.workload}"
            typer.echo(f"warning: {where}: {estimate.failures}", err=True)
