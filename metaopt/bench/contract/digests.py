"""Digests of files and modules: equal where nothing that runs differs.

Python files are hashed by their syntax tree without docstrings: a comment changes nothing. Fields
that are empty are left out, because versions of Python add some. Every other file is hashed by its
bytes.

Imports are read from the syntax tree, those inside functions too; an import by a computed name is
not seen. Modules of Python and of installed packages are left out, except for packages that add
workloads, submissions or tuners.
"""

import ast
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from metaopt.bench.contract.plugins import plugin_packages

_DIGITS = 16  # hexadecimal, of a digest
_LEFTOVERS = (".pyc", ".swp", "~", ".DS_Store")  # of Python, editors and desktops
_OURS = ("metaopt", "tuning")
_INSTALLED = {"site-packages", "dist-packages"}


def digest_folder(folder: Path) -> dict[str, str]:
    """Return the digest of every file below ``folder``, by path; caches are left out."""
    return {
        path.relative_to(folder).as_posix(): digest_file(path) for path in sorted(_files(folder))
    }


def digest_file(path: Path) -> str:
    """Return the digest of a file; it is read again when its size or time of change is another."""
    return _read(path).digest


def digest_value(value: Any) -> str:
    """Return the digest of JSON data."""
    return _shortened(json.dumps(value, sort_keys=True).encode())


def digest_imports(files: Iterable[Path]) -> dict[str, str]:
    """Return the digests of the modules that Python files import, directly or not.

    Relative imports are left out: they lead to files of the same folder.
    """
    imports = [entry for path in files for entry in _read(path).imports if not entry.level]
    return _closure((entry.module, entry.name) for entry in imports)


def digest_modules(names: Iterable[str]) -> dict[str, str]:
    """Return the digests of modules and of those that they import, by path."""
    return _closure((name, None) for name in names)


class _Import(NamedTuple):
    module: str
    name: str | None  # what is taken out of it, as in `from module import name`
    level: int  # dots of a relative import
    binds: str  # the name that the file has for it


class _Content(NamedTuple):
    digest: str
    imports: tuple[_Import, ...] = ()


def _files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()  # a link may lead back into its own folder
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [f for f in folders if f != "__pycache__" and not f.startswith(".")]
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if not name.endswith(_LEFTOVERS):
                yield Path(parent, name)


def _closure(wanted: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return the digests of modules and of what they import.

    What a package's ``__init__.py`` only hands on is followed to its home, and nothing beside it.
    """
    found: dict[str, str] = {}
    todo, seen = list(wanted), set()
    while todo:
        module, name = request = todo.pop()
        if request in seen:
            continue
        seen.add(request)
        if name is not None and _find(f"{module}.{name}") is not None:
            todo.append((f"{module}.{name}", None))
            continue
        path = _find(module)
        if path is None:
            continue
        is_package = path.name == "__init__.py"
        content = _read(path)
        tail = "/__init__.py" if is_package else path.suffix
        found[module.replace(".", "/") + tail] = content.digest
        handed_on = [entry for entry in content.imports if is_package and entry.binds == name]
        package = module if is_package else module.rpartition(".")[0]
        for entry in handed_on or content.imports:
            todo.append((_absolute(entry, package), entry.name))
    return dict(sorted(found.items()))


def _absolute(entry: _Import, package: str) -> str:
    if not entry.level:
        return entry.module
    base = package.split(".")
    base = base[: len(base) - entry.level + 1]
    return ".".join([*base, entry.module] if entry.module else base)


@functools.cache
def _find(module: str) -> Path | None:
    """Return the file of a module; ``None`` without one, and for those that are left out."""
    spec = _spec(module) if _is_followed(module.partition(".")[0]) else None
    if spec is None or spec.origin is None or not spec.has_location:
        return None
    return Path(spec.origin)


@functools.cache
def _is_followed(package: str) -> bool:
    if package in sys.stdlib_module_names or not package:
        return False
    if package in _OURS or package in plugin_packages():
        return True
    spec = _spec(package)
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else ())]
    return not any(_INSTALLED & set(Path(place).parts) for place in places)


def _spec(module: str) -> ModuleSpec | None:
    try:
        return find_spec(module)
    except (ImportError, AttributeError, ValueError):  # no module, or nothing inside it
        return None


def _read(path: Path) -> _Content:
    status = path.stat()
    return _content(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _content(path: Path, size: int, changed: int) -> _Content:
    del size, changed  # what makes another file of the same path
    if path.suffix != ".py":
        with path.open("rb") as file:
            return _Content(hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS])
    source = path.read_bytes()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # whoever imports it hears why
        return _Content(_shortened(source))
    imports = tuple(_imports(tree))
    words: list[str] = []
    _spell(tree, words)
    return _Content(_shortened("\n".join(words).encode()), imports)


def _shortened(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _imports(tree: ast.Module) -> Iterator[_Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _Import(alias.name, None, 0, alias.asname or alias.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield _Import(node.module or "", alias.name, node.level, alias.asname or alias.name)


_HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _spell(node: Any, words: list[str]) -> None:
    """Append what a syntax tree says, without docstrings and without fields that are empty."""
    if isinstance(node, list):
        for entry in node:
            _spell(entry, words)
        words.append("]")
    elif isinstance(node, ast.AST):
        words.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(node, _HAS_DOCSTRING):
                value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
            if value is not None and value != []:
                words.append(name)
                _spell(value, words)
        words.append(")")
    else:
        words.append(repr(node))
