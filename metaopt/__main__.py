"""``metaopt-bench``: the commands of ``python -m tuning`` and ``python -m analysis`` in one.

Only ``metaopt`` is installed. This file therefore finds a checkout and starts its two modules by
name. It is the one file that may do so, see ``tests/test_layers.py``.
"""

import copy
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import metaopt
from metaopt.extras import one_line_hint

PROGRAM = "metaopt-bench"
MODULES = {  # with the titles of their commands in the help
    "tuning": "Train, compare and package: python -m tuning",
    "analysis": "Scores, reports and leaderboards: python -m analysis",
}

_HELP = f"""Usage: {PROGRAM} COMMAND ...

The commands of `python -m tuning` and `python -m analysis` in one program. They need a checkout of
metaopt-bench and the extra `bench`: run `pip install -e '.[bench]'` in a checkout, and then
`{PROGRAM} --help` for the commands.

  --version  Show the version and exit.
  --help     Show this message and exit."""

_OWN = Path(metaopt.__file__).resolve().parents[1]  # the checkout of an editable install
_COMPLETING = "_METAOPT_BENCH_COMPLETE"  # set by the completion scripts of shells


def find_checkout(folder: Path) -> Path | None:
    """Return the checkout that holds a folder, else that of an editable install, if any."""
    folder = folder.resolve()
    return next(filter(_is_checkout, (folder, *folder.parents, _OWN)), None)


def _is_checkout(folder: Path) -> bool:
    return all((folder / name / "__main__.py").is_file() for name in ("metaopt", *MODULES))


def run_program() -> int:
    """Run a command and return its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--version"]:  # also without typer
        print(f"{PROGRAM} {metaopt.__version__}")
        return 0
    checkout = find_checkout(Path.cwd())
    if checkout is None and arguments[:1] == ["--help"]:
        print(_HELP)
        return 0
    if checkout is None:
        if _COMPLETING not in os.environ:
            print(
                f"{PROGRAM}: no checkout of metaopt-bench in this folder or above it. Change into "
                "one, or run `pip install -e '.[bench]'` there.",
                file=sys.stderr,
            )
        return 2
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if paths[:1] != [str(checkout)]:  # processes that a command starts need the checkout, too
        os.environ["PYTHONPATH"] = os.pathsep.join([str(checkout), *paths])
        if checkout != _OWN:  # its `metaopt` is another one than this
            # -P: a folder such as analysis/statistics/ must not hide a module of Python's.
            command = [sys.executable, "-P", "-m", "metaopt", *arguments]
            os.execv(sys.executable, command)
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    with one_line_hint(PROGRAM):
        apps = {name: importlib.import_module(f"{name}.cli").app for name in MODULES}
        for name, app in apps.items():
            if arguments and arguments[0] in _verbs(app):
                return importlib.import_module(f"{name}.__main__").run_command(PROGRAM)
        run_app = importlib.import_module("analysis.command_line").run_app
        return run_app(_join(apps), PROGRAM, program=PROGRAM)


def _verbs(app: Any) -> set[str]:
    return {
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
    }


def _join(apps: dict[str, Any]) -> Any:
    """Return one app with the commands of both modules, for help, completion and misspelt verbs."""
    import typer

    joined = typer.Typer(
        help="The commands of `python -m tuning` and `python -m analysis` in one program.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @joined.callback()
    def show_version(
        version: bool = typer.Option(False, "--version", help="Show the version and exit."),
    ) -> None:
        del version  # `run_program` shows it; here it is for the help and for completion

    for name, app in apps.items():
        for command in app.registered_commands:
            command = copy.copy(command)
            command.rich_help_panel = MODULES[name]
            joined.registered_commands.append(command)
    return joined


if __name__ == "__main__":
    sys.exit(run_program())
