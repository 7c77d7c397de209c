"""``python -m tuning worker``: one of several machines that run a campaign together."""

import os
import signal
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from analysis.commands.score_command import exit_code
from analysis.logs.reader import read_logs
from analysis.report.summary import warning_lines
from analysis.report.terminal import print_note
from metaopt.bench.records import RUN_FILE
from metaopt.bench.records.redaction import redact
from tuning.campaign import Campaign
from tuning.commands.compare_command import report_campaign
from tuning.executor import list_studies
from tuning.locks import hold
from tuning.slots import LOCKS
from tuning.worker import missing_studies, run_worker


def join_campaign(
    campaign: Campaign, out: Path, storage: str, *, workers: int | None, lease_seconds: float
) -> int:
    """Run studies beside other workers until all have ended; the first to see it writes the report.

    Returns:
        The exit code: 1 if a contender failed throughout on a workload, in the studies in ``out``.

    Raises:
        FileNotFoundError: As :func:`~tuning.worker.run_worker`.
        ValueError: As :func:`~tuning.worker.run_worker`.
    """
    _leave_on_sigterm()
    run_worker(
        campaign, out, storage, workers=workers, lease_seconds=lease_seconds,
        console=Console(stderr=True),
    )  # fmt: skip
    if elsewhere := missing_studies(campaign, out):
        count = len(list_studies(campaign)) - len(elsewhere)
        typer.echo(
            f"All studies have ended. {count} of them are in {out}, {len(elsewhere)} in other "
            "workers' folders. Put all into one folder and run python -m analysis report."
        )
    else:
        lock = out / LOCKS / "report.lock"
        with hold(lock, f"The report of {out}", wait_seconds=600.0):
            if not (out / "report" / "report.html").exists():
                return report_campaign(campaign, out)
    if next(out.rglob(RUN_FILE), None) is None:  # all trials are in the folders of other workers
        return 0
    logs = read_logs(out)
    for line in warning_lines(logs, serious=True):
        print_note(line, Console())
    return exit_code(logs)


def submit_to_slurm(
    campaign: str,
    out: Path,
    storage: str,
    *,
    jobs: int,
    options: list[str],
    workers: int | None,
    lease_seconds: float,
    variable: str,
) -> None:
    """Submit workers as a SLURM array job and print their numbers.

    Args:
        campaign: Name or file of the campaign.
        out: Output folder.
        storage: URL through which the workers share the studies.
        jobs: Number of workers.
        options: ``name=value`` for ``sbatch``.
        workers: Processes of each worker.
        lease_seconds: Of each worker.
        variable: Environment variable that passes a storage with a password: job files and logs
            hold command lines, and jobs inherit the environment.

    Raises:
        ValueError: An option has another form, or submitit or SLURM is missing.
    """
    from tuning.slurm import submit_workers

    command = ["-m", "tuning", "worker", campaign, "--out", str(out)]
    command += ["--lease-seconds", f"{lease_seconds:g}"]
    command += [] if workers is None else ["--workers", str(workers)]
    if redact(storage) == storage:
        command += ["--storage", storage]
    else:
        os.environ[variable] = storage
    typer.echo(submit_workers(command, jobs, out, options)[0])


def _leave_on_sigterm() -> None:
    """Return studies to the queue when a cluster's scheduler stops this worker."""

    def leave(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
