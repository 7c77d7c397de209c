"""``python -m tuning package``: a submission as a folder for a pull request, with its text."""

import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from metaopt.bench.contract.loading import load_submission
from tuning.commands.evidence import campaign_evidence, rehearsal_evidence
from tuning.commands.rehearse_command import rehearse_and_print
from tuning.contenders import SUBMISSIONS
from tuning.packaging import package_submission
from tuning.packaging.info import check_value, question
from tuning.packaging.pull_request import BRANCH, PULL_REQUEST_FILE, pull_request_title


def package_and_print(
    submission: str,
    out: Path,
    flags: Mapping[str, str | None],
    *,
    runs: Path | None,
    rehearsals: Path | None,
    timeout: float,
) -> None:
    """Package a submission, and print the files and what to do with them.

    Args:
        submission: Name or folder.
        out: New or empty folder.
        flags: Values of ``submission_info.yml``, by key; those that are missing are asked for on a
            terminal.
        runs: The output folder of a campaign, as evidence.
        rehearsals: The folder of the rehearsal's page; ``None`` leaves the rehearsal out.
        timeout: Seconds for each miniature of the rehearsal.

    Raises:
        ValueError: As :func:`~tuning.packaging.package_submission`, or the campaign is no evidence,
            or the rehearsal found errors.
    """
    of_campaign = ""
    if runs is not None:  # before anything takes long
        of_campaign = campaign_evidence(load_submission(submission, SUBMISSIONS), runs)

    def find_evidence() -> str:
        if rehearsals is None:
            return of_campaign
        found = rehearse_and_print(submission, rehearsals, timeout=timeout)
        if found.errors:
            raise ValueError(
                "The rehearsal found errors, so nothing was written. Fix them, or pass "
                "--no-rehearsal."
            )
        return f"{of_campaign}\n{rehearsal_evidence(found)}"

    ask = _ask if sys.stdin.isatty() else None
    packaged = package_submission(submission, out, flags, ask, find_evidence)
    for warning in packaged.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for file in packaged.files:
        typer.echo(packaged.folder / file)
    typer.echo(
        f"Loaded in an empty process and took a step, with {packaged.versions}. It belongs in "
        f"{packaged.destination} of mlcommons/submissions_algorithms, without {PULL_REQUEST_FILE}: "
        f"this is the text of the pull request to the branch {BRANCH}, with the title "
        f'"{pull_request_title(packaged.info)}".'
    )


def _ask(key: str) -> str:
    """Ask for a value until it passes."""

    def checked(text: str) -> str:
        try:
            return check_value(key, text)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.") from None

    return typer.prompt(question(key), value_proc=checked)
