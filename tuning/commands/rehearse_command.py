"""``python -m tuning rehearse``: train a submission on miniatures of AlgoPerf's workloads."""

from pathlib import Path

import typer
from rich.console import Console

from analysis.command_line import shown_command
from analysis.report.terminal import print_table
from analysis.wording import plain
from metaopt.bench.contract.loading import find_submission_folder
from tuning.contenders import SUBMISSIONS
from tuning.rehearsal.rehearsal_page import (
    describe_findings,
    rehearsal_table,
    rules_sentence,
    verdict,
    write_rehearsal_page,
)
from tuning.rehearsal.rehearsal_run import Rehearsal, rehearse


def rehearse_and_report(submission: str, out: Path, *, timeout: float) -> int:
    """Rehearse a submission as :func:`rehearse_and_print`; return the exit code.

    It is 1 if something would fail in a competition.
    """
    return int(bool(rehearse_and_print(submission, out, timeout=timeout).errors))


def rehearse_and_print(submission: str, out: Path, *, timeout: float) -> Rehearsal:
    """Rehearse a submission, write the page, and print the results.

    Args:
        submission: Name or folder.
        out: The folder of the page, and of the compiled programs that the next rehearsal reads.
        timeout: Seconds for the check, and for each miniature.

    Raises:
        ValueError: There is no such submission.
    """
    folder = find_submission_folder(submission, SUBMISSIONS)
    console = Console(stderr=True)
    found = rehearse(
        folder, out, timeout=timeout,
        on_end=lambda line: console.print(line, markup=False, highlight=False),
    )  # fmt: skip
    page = write_rehearsal_page(found, out, command=shown_command("tuning"))
    print_table(rehearsal_table(found), Console())
    for severity in ("note", "error"):
        for what, fix in describe_findings(found, severity):
            typer.echo(f"{severity}: {plain(what)}\n    {plain(fix)}")
    typer.echo(rules_sentence(found))
    typer.echo(verdict(found))
    typer.echo(f"page: {page}")
    return found
