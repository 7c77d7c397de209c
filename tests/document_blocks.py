"""The code blocks of the documents, and whether the commands in them can be parsed."""

import inspect
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

from metaopt.bench.rules import pytest_plugin
from tests.document_tables import APPS, PAGES, ROOT, commands_of
from tuning.campaign import list_campaigns


class Block(NamedTuple):
    """A fenced code block of a document."""

    page: Path
    line: int
    info: str  # after the three backticks
    code: str

    @property
    def language(self) -> str:
        """The first word of the info string."""
        return self.info.partition(" ")[0]

    @property
    def reason(self) -> str | None:
        """Why the block is not executed; ``None`` if it is."""
        _, marked, reason = self.info.partition(" not-run: ")
        return reason if marked else None

    @property
    def commands(self) -> list[str]:
        """The command lines, continued lines joined, without what they print."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def find_blocks() -> list[Block]:
    """Return every fenced block of the documents."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(
            r"^ *```(\S[^\n]*)?\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE
        ):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[1] or "", match[2]))
    return found


def strip_command(line: str) -> list[list[str]]:
    """Return the words of each command on a line, without variables that are set before it."""
    commands: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word == "&&":
            commands.append([])
        elif commands[-1] or not re.match(r"[A-Z_]+=", word):
            commands[-1].append(word)
    return commands


def parse_command(words: list[str]) -> None:
    """Fail unless a documented command names programs, files and options that exist."""
    program, *arguments = words
    if program == "python" and arguments[:2] in (["-m", "tuning"], ["-m", "analysis"]):
        parse_own_command(arguments[1], arguments[2:])
    elif program == "metaopt-bench":
        if arguments[0].startswith("--"):
            assert arguments in (["--help"], ["--version"], ["--install-completion"])
        else:
            (name,) = (name for name in APPS if arguments[0] in commands_of(name))
            parse_own_command(name, [word.removesuffix("<TAB>") for word in arguments])
    elif program == "python":
        if arguments[0] == "-m":
            script = ROOT / f"{arguments[1].replace('.', '/')}.py"
        else:
            script = ROOT / arguments[0]
        text = script.read_text("utf-8")
        options = [word for word in arguments if word.startswith("--")]
        assert [option for option in options if option not in text] == []
    elif program == "make":
        subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True)
    elif program == "pytest":
        known = inspect.getsource(pytest_plugin)
        options = [word for word in arguments if word.startswith("--")]
        assert [option for option in options if f'"{option}"' not in known] == []
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
            "optional-dependencies"
        ]
        asked = re.findall(r"\[(.+?)\]", " ".join(arguments))
        assert arguments[0] == "install" and set(asked) <= set(extras)
    elif program == "ray":
        from ray.scripts.scripts import cli

        cli.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    else:
        assert program in {"cat", "echo", "optuna-dashboard"}, f"add the program {program!r}"


def parse_own_command(name: str, arguments: list[str]) -> None:
    """Fail unless a command of ours takes these arguments and knows the campaign named."""
    if arguments == ["--help"]:
        return
    commands = commands_of(name)
    command, *rest = arguments
    if "--help" in rest:
        assert command in commands
        return
    parameters = commands[command].make_context(command, rest).params
    campaign = parameters.get("campaign", "x.toml")
    if not campaign.isupper() and Path(campaign).suffix == "":
        assert campaign in list_campaigns()
