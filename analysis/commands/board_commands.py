"""``python -m analysis leaderboard``, ``submit`` and ``verify``: the leaderboard's records."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from analysis.command_line import one_line_errors
from analysis.commands.options import BoardOption, FormatOption, RerunOption
from analysis.report.formats import Format
from analysis.wording import counted, plain


def rebuild_leaderboard(
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
        if not folder.is_dir():
            raise ValueError(f"There is no folder {folder}. `submit --board` makes one.")
        if not check:
            typer.echo(_summary(write_leaderboard(folder), folder))
            return
        if wrong := wrong_files(folder):
            for path, problem in wrong.items():
                typer.echo(f"analysis: {plain(path)} {problem}.", err=True)
            option = f" --board {shlex.quote(str(board))}" if board else ""
            command = f"python -m analysis leaderboard{option}"
            typer.echo(f"analysis: Run `{plain(command)}` to rebuild it.", err=True)
            raise typer.Exit(1)


def submit_records(
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
            typer.echo(
                _summary(write_records(runs, board or BOARD, command, rerun), board or BOARD)
            )
        except RefusedRuns as error:
            _print_problems(error.problems)
            raise typer.Exit(1) from None


def verify_records(
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


def _summary(paths: list[Path], board: Path) -> str:
    """Return the number of written files of a leaderboard, the records apart."""
    if not paths:
        return f"{plain(board)} is up to date."
    from analysis.leaderboard.entries import RECORDS

    count = sum((board / RECORDS) in path.parents for path in paths)
    if not count:
        return f"Wrote {counted(len(paths), 'file')} to {plain(board)}."
    others = counted(len(paths) - count, "other file")
    return f"Wrote {counted(count, 'record')} and {others} to {plain(board)}."


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        typer.echo(f"analysis: {plain(problem)}", err=True)
