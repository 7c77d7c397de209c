"""A submission under check: its files, their syntax trees, and the module."""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from metaopt.bench.contract import loading
from metaopt.bench.contract.spaces import find_problems, parse_space, read_space
from metaopt.bench.records.failures import describe, line_of

_INFO_FILE = "submission_info.yml"
_RULESET = re.compile(r"""^ruleset\s*:\s*["']?(external|self-tuning)\b""", re.MULTILINE)


class Unreadable(NamedTuple):
    """A file that cannot be parsed, or a module that cannot be imported."""

    reason: str
    where: str  # "file:line"


class CheckedSubmission:
    """The facts about a submission that rules need, each computed on first use.

    Args:
        folder: The submission's folder.
        importing: Whether the module may be imported. If not, rules use the text alone.
        on_start: Called with a description of each step of the check before it begins. If the
            process never returns, the last description says where it stopped.
    """

    def __init__(
        self,
        folder: Path,
        *,
        importing: bool = True,
        on_start: Callable[[str], None] = lambda description: None,
    ) -> None:
        self.folder = folder.resolve()
        self.importing = importing
        self.on_start = on_start

    # Files.

    @property
    def has_source(self) -> bool:
        """Whether there is a ``submission.py``."""
        return (self.folder / loading.SUBMISSION_FILE).is_file()

    @functools.cached_property
    def _parsed(self) -> tuple[dict[str, ast.Module], list[Unreadable]]:
        trees, unreadable = {}, []
        if not self.has_source:  # a wrong folder, such as /tmp, may be large
            return trees, unreadable
        for path in sorted(self.folder.rglob("*.py")):
            name = path.relative_to(self.folder).as_posix()
            try:
                trees[name] = ast.parse(path.read_bytes(), filename=name)
            except SyntaxError as error:
                unreadable.append(Unreadable(f"not Python: {error.msg}", f"{name}:{error.lineno}"))
            except ValueError as error:  # null bytes
                unreadable.append(Unreadable(f"not Python: {error}", name))
        return trees, unreadable

    @property
    def trees(self) -> dict[str, ast.Module]:
        """The syntax tree of every Python file, by its path in the folder."""
        return self._parsed[0]

    @property
    def unreadable(self) -> list[Unreadable]:
        """The Python files that cannot be parsed."""
        return self._parsed[1]

    @functools.cached_property
    def spaces(self) -> dict[str, str]:
        """The text of every search space, by its path in the folder; the main one first."""
        paths = [self.folder / loading.SPACE_FILE, *sorted(self.folder.glob("spaces/*.json"))]
        return {
            path.relative_to(self.folder).as_posix(): path.read_text("utf-8", "replace")
            for path in paths
            if path.is_file()
        }

    def documents(self) -> Iterator[tuple[str, Any]]:
        """Yield the search spaces that can be read, by path."""
        for name, text in self.spaces.items():
            try:
                yield name, read_space(text)
            except ValueError:  # reported by a rule of its own
                continue

    @property
    def declared_ruleset(self) -> str | None:
        """The ruleset by ``submission_info.yml``, else by the folder above; ``None`` if neither."""
        path = self.folder / _INFO_FILE
        found = _RULESET.search(path.read_text("utf-8", "replace")) if path.is_file() else None
        if found:
            return found[1]
        folders = {"external_tuning": "external", "self_tuning": "self-tuning"}
        return folders.get(self.folder.parent.name)

    # The module.

    @functools.cached_property
    def _imported(self) -> tuple[ModuleType | None, Unreadable | None]:
        if not self.importing or not self.has_source:
            return None, None
        if loading.SUBMISSION_FILE not in self.trees:  # reported by a rule of its own
            return None, None
        self.on_start("the import of submission.py")
        try:
            return loading.import_submission(self.folder), None
        except SyntaxError:  # reported by a rule of its own
            return None, None
        except (Exception, SystemExit) as error:
            return None, Unreadable(describe(error), self.line_of(error))

    @property
    def module(self) -> ModuleType | None:
        """The imported module; ``None`` if that failed or was not tried."""
        return self._imported[0]

    @property
    def import_failure(self) -> Unreadable | None:
        """Why the module cannot be imported."""
        return self._imported[1]

    @functools.cached_property
    def _bindings(self) -> dict[str, ast.stmt]:
        """The last statement of ``submission.py`` that binds a name, by name."""
        tree = self.trees.get(loading.SUBMISSION_FILE)
        bindings: dict[str, ast.stmt] = {}
        for statement in _flat(tree.body if tree else []):
            for name in _bound_by(statement):
                bindings[name] = statement
        return bindings

    def where(self, name: str) -> str:
        """Return where ``submission.py`` binds a name, as ``file:line``."""
        statement = self._bindings.get(name)
        line = f":{statement.lineno}" if statement else ""
        return f"{loading.SUBMISSION_FILE}{line}"

    def has_function(self, name: str) -> bool:
        """Return whether the module, or its text if it is not imported, has a function ``name``."""
        if self.module is not None:
            return callable(getattr(self.module, name, None))
        return name in self._bindings or "*" in self._bindings

    def signature(self, name: str) -> inspect.Signature | None:
        """Return a function's signature; ``None`` if it cannot be read."""
        if self.module is not None:
            try:
                return inspect.signature(getattr(self.module, name))
            except (AttributeError, TypeError, ValueError):
                return None
        statement = self._bindings.get(name)
        return _signature(statement.args) if isinstance(statement, ast.FunctionDef) else None

    def line_of(self, error: BaseException) -> str:
        """Return the last line of the submission that an error passed through, ``file:line``."""
        return line_of(error, self.folder) or loading.SUBMISSION_FILE

    def point(self) -> tuple[bool, dict[str, Any] | None]:
        """Return whether the steps can run, and their hyperparameters.

        Hyperparameters are the middle of the search space, or ``None`` for self-tuning. Steps
        cannot run if the search space cannot be read.
        """
        if loading.SPACE_FILE not in self.spaces or self.declared_ruleset == "self-tuning":
            return True, None
        document = dict(self.documents()).get(loading.SPACE_FILE)
        if document is None or any(find_problems(document)):
            return False, None
        return True, parse_space(document, loading.SPACE_FILE).middle()


def with_batch_size(module: ModuleType, size: int) -> ModuleType:
    """Return a copy of a submission's module whose batches have ``size`` examples."""
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module))
    vars(copy)["get_batch_size"] = lambda workload_name: size
    return copy


def _flat(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, including those under ``if``, ``try`` and ``with``."""
    for statement in statements:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for field in ("body", "orelse", "finalbody"):
                yield from _flat(getattr(statement, field, []))


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _signature(arguments: ast.arguments) -> inspect.Signature:
    """Return the signature of a function definition."""
    kind = inspect.Parameter
    positional = [
        *((a, kind.POSITIONAL_ONLY) for a in arguments.posonlyargs),
        *((a, kind.POSITIONAL_OR_KEYWORD) for a in arguments.args),
    ]
    required = len(positional) - len(arguments.defaults)
    parameters = [
        kind(argument.arg, how, default=kind.empty if index < required else None)
        for index, (argument, how) in enumerate(positional)
    ]
    if arguments.vararg:
        parameters.append(kind(arguments.vararg.arg, kind.VAR_POSITIONAL))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        given = kind.empty if default is None else None
        parameters.append(kind(argument.arg, kind.KEYWORD_ONLY, default=given))
    if arguments.kwarg:
        parameters.append(kind(arguments.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(parameters)
