"""``python -m tuning stability``: measure whether products of transitions decay, and report it."""

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress

from analysis.command_line import shown_command
from analysis.report.stability import stability_summary
from analysis.report.stability_report import write_stability_report
from analysis.report.terminal import print_table
from tuning.stability import StabilityCampaign, run_stability


def measure_and_report(campaign: StabilityCampaign, out: Path) -> None:
    """Measure every trial that ``out`` does not hold yet, write the report, print its summary.

    Raises:
        FileNotFoundError: As :func:`~tuning.stability.run_stability`.
        ValueError: As :func:`~tuning.stability.run_stability`.
    """
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(campaign.name, total=None)
        record = run_stability(
            campaign, out, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    report = write_stability_report(out, out / "report", command=shown_command("tuning"))
    print_table(stability_summary(record), Console())
    typer.echo(f"report: {report}")
