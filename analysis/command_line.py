"""Run the commands: a user's mistake is one line on stderr and exit code 2.

Secrets are redacted from everything that is printed.
"""

import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from analysis.wording import plain
from metaopt.bench.records.redaction import redact
from metaopt.extras import hint_for

# Typer's usage errors are click's, which newer versions of typer bundle.
_UsageError: Any = typer.BadParameter.__mro__[1]

# Each module's commands, to answer a command of the other. Importing both would take seconds.
VERBS = {
    "tuning": {
        "check", "compare", "download", "export", "list", "package", "rehearse", "run",
        "stability", "targets",
    },
    "analysis": {
        "hardware", "leaderboard", "merge", "report", "score", "statistics", "submit", "table",
        "validate", "verify",
    },
}  # fmt: skip


def run_app(
    app: typer.Typer,
    name: str,
    arguments: Sequence[str] | None = None,
    *,
    program: str | None = None,
) -> int:
    """Run a command of ``python -m NAME`` and return its exit code.

    Args:
        app: The commands.
        name: The name of the package.
        arguments: The arguments on the command line; by default those of this process.
        program: The program that a usage line names; by default ``python -m NAME``.
    """
    try:
        code = app(arguments, prog_name=program or f"python -m {name}", standalone_mode=False)
    except _UsageError as error:
        message = error.format_message()
        known = getattr(error.ctx.command, "commands", None) if error.ctx else None
        if message:  # else the help was shown
            if message.startswith("Got unexpected extra argument"):
                message = f"{message}. {_arguments(error.ctx)}"
            elif known:
                message = _other_module(name, arguments) or f"{message} There are {sorted(known)}."
            _say(name, message)
        return 2
    except typer.Abort:
        return 130
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (hint := hint_for(error)):
            _say(name, hint)
            return 2
        typer.echo(redact(traceback.format_exc()), err=True)  # a bug in this project
        return 1
    return code if isinstance(code, int) else 0


def _other_module(name: str, arguments: Sequence[str] | None) -> str | None:
    """Return the answer to a command of the other module; ``None`` if it is not one."""
    first = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    others = (other for other, verbs in VERBS.items() if name in VERBS and first in verbs)
    return next((f"`{first}` is a command of `python -m {other}`." for other in others), None)


def _arguments(context: Any) -> str:
    """Return which arguments the command of a usage error takes at a time."""
    names = [
        one.name.upper() for one in context.command.params if one.param_type_name == "argument"
    ]
    if not names:
        return f"`{context.info_name}` takes no arguments."
    count = "one argument" if len(names) == 1 else f"{len(names)} arguments"
    return f"`{context.info_name}` takes {count} at a time: {', '.join(names)}."


def shown_command(name: str) -> str:
    """Return the command line of this process, quoted for a shell, with secrets redacted."""
    return shlex.join(["python", "-m", name, *map(redact, sys.argv[1:])])


def given_options(context: typer.Context) -> set[str]:
    """Return the options that stand on the command line; not those of the environment."""
    given = set()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.param_type_name == "option" and source and source.name == "COMMANDLINE":
            given.add(option.opts[0])
    return given


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Turn a user's mistake in the block into one line and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        _say(name, str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        _say(name, "interrupted; run the same command again to continue.")
        raise typer.Exit(130) from None


def _say(name: str, message: str) -> None:
    typer.echo(f"{name}: {plain(redact(' '.join(message.split())))}", err=True)
