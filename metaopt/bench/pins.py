"""What of optax a source uses that AlgoPerf's pinned version does not have.

``optax_names.json`` lists the public names of optax from that version on, with the parameters of
its functions, each under the version it first appears in. A name that is in no list counts as newer
than all of them.
"""

import ast
import functools
import inspect
import json
from collections import deque
from importlib import resources
from types import ModuleType
from typing import Any, NamedTuple

OPTAX_PIN = "0.2.2"  # AlgoPerf's

_FILE = "optax_names.json"
_ANY_KEYWORD = "**"


class Need(NamedTuple):
    """One use of something that the pinned optax lacks."""

    name: str  # "optax.contrib.dog", or with a keyword: "optax.scale_by_rms(eps_in_sqrt)"
    since: str | None  # version of optax; None: later than the last one that is listed
    line: int


def optax_needs(source: str) -> list[Need]:
    """Return what ``source`` uses of optax that version 0.2.2 lacks, in the order of the lines.

    Names are followed through imports (``from optax import contrib as c``), keywords are those of
    direct calls. It leaves out positional arguments, private names, ``getattr`` and changed
    behaviour, and does not see that a use is guarded by ``hasattr``.

    Args:
        source: Text of a Python file.

    Raises:
        SyntaxError: ``source`` is not Python.

    Examples:
        >>> for need in optax_needs("import optax; optax.contrib.muon(0.1, consistent_rms=0.2)"):
        ...     print(need.name, need.since)
        optax.contrib.muon 0.2.5
        optax.contrib.muon(consistent_rms) 0.2.7
    """
    finder = _Finder(ast.parse(source))
    return sorted(finder.needs, key=lambda need: (need.line, need.name))


def required_optax(needs: list[Need]) -> str:
    """Return the requirement that covers ``needs``, as pip reads it.

    Examples:
        >>> required_optax([Need("optax.contrib.dog", "0.2.3", 1), Need("optax.tree", "0.2.5", 2)])
        'optax>=0.2.5'
    """
    listed = list(_versions())
    if any(need.since is None for need in needs):
        return f"optax>{listed[-1]}"
    return f"optax>={max((need.since for need in needs if need.since), key=listed.index)}"


def list_names(optax: ModuleType) -> dict[str, str | None]:
    """Return the public names of optax: ``None`` for modules, else parameters in one string.

    This wrote ``optax_names.json``, once for each version.
    """
    names: dict[str, str | None] = {}
    seen, todo = {optax}, deque([("optax", optax)])
    while todo:
        prefix, module = todo.popleft()
        names[prefix] = None
        for name in dir(module):
            value, dotted = getattr(module, name), f"{prefix}.{name}"
            if name.startswith("_") or not _is_optax(value):
                continue
            if not inspect.ismodule(value):
                names[dotted] = " ".join(_parameters(value))
            elif value not in seen and "._src" not in value.__name__:
                seen.add(value)
                todo.append((dotted, value))
    return names


def _is_optax(value: Any) -> bool:
    """Whether a module, class or function is optax's own; true for everything else."""
    if inspect.ismodule(value):
        return value.__name__.startswith("optax")
    foreign = inspect.isclass(value) or inspect.isfunction(value)
    return not foreign or value.__module__.startswith("optax")


def _parameters(function: Any) -> list[str]:
    if not inspect.isfunction(function):
        return [_ANY_KEYWORD]  # classes, constants, transformed functions: not known
    found = inspect.signature(function).parameters.values()
    return [_ANY_KEYWORD if p.kind is p.VAR_KEYWORD else p.name for p in found]


@functools.cache
def _versions() -> dict[str, dict[str, str | None]]:
    """Return what each version has that those before it have not, by version in their order."""
    text = resources.files("metaopt.bench").joinpath(_FILE).read_text("utf-8")
    return json.loads(text)["versions"]


@functools.cache
def _since() -> dict[str, str]:
    """Return the version in which a name, or ``name(parameter)``, is first there."""
    first: dict[str, str] = {}
    for version, names in _versions().items():
        for name, parameters in names.items():
            first.setdefault(name, version)
            for parameter in (parameters or "").split():
                first.setdefault(f"{name}({parameter})", version)
    return first


@functools.cache
def _modules() -> frozenset[str]:
    lists = _versions().values()
    return frozenset(name for names in lists for name, value in names.items() if value is None)


class _Finder(ast.NodeVisitor):
    """Collects the needs of one file."""

    def __init__(self, tree: ast.Module) -> None:
        self.needs: set[Need] = set()
        self._called: dict[str, str] = {}  # what a name of the file is in optax
        for node in ast.walk(tree):
            self._follow_import(node)
        self.visit(tree)

    def _follow_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "optax":
                    self._called[alias.asname or "optax"] = alias.name if alias.asname else "optax"
                    self._note(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "optax":
            for alias in node.names if node.level == 0 else ():
                name = f"{node.module}.{alias.name}"
                self._called[alias.asname or alias.name] = name
                self._note(name, node.lineno)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._name(node)
        if name is None:
            self.generic_visit(node)
        else:
            self._note(name, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        name = self._name(node.func)
        if name is None:
            self.visit(node.func)
        else:
            self._note(name, node.lineno, [k.arg for k in node.keywords if k.arg is not None])
        for argument in [*node.args, *node.keywords]:
            self.visit(argument)

    def _name(self, node: ast.AST) -> str | None:
        """Return the name in optax of ``a.b.c``; ``None`` if it is something else."""
        if isinstance(node, ast.Name):
            return self._called.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self._name(node.value)
            return None if base is None else f"{base}.{node.attr}"
        return None

    def _note(self, dotted: str, line: int, keywords: list[str] | None = None) -> None:
        if "._" in dotted or dotted.endswith(".*"):
            return
        name = _public_part(dotted)
        self._need(name, _since().get(name), line)
        if name == dotted and f"{name}({_ANY_KEYWORD})" not in _since():
            for keyword in keywords or ():
                use = f"{name}({keyword})"
                if name in _since() and _since().get(use) != _since()[name]:
                    self._need(use, _since().get(use), line)

    def _need(self, name: str, since: str | None, line: int) -> None:
        if since != OPTAX_PIN:
            self.needs.add(Need(name, since, line))


def _public_part(dotted: str) -> str:
    """Return the name up to the first thing that is no module: ``optax.adam.__doc__`` is adam."""
    parts = dotted.split(".")
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        if name not in _modules():
            return name
    return dotted
