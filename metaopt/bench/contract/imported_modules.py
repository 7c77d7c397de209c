"""Find the modules of this project that Python files import, without importing them.

Imports are read from the syntax tree, those inside functions and under ``TYPE_CHECKING`` too; an
import by a computed name is not seen. Modules of Python and of installed packages are left out,
except for packages that add workloads, submissions or tuners.
"""

import ast
import functools
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from metaopt.bench.contract.plugins import plugin_packages

_OURS = ("metaopt", "tuning")
_INSTALLED = {"site-packages", "dist-packages"}


class Import(NamedTuple):
    """One imported name of a file."""

    module: str  # without the dots of a relative import
    name: str | None  # as in `from module import name`
    level: int  # dots of a relative import
    bound_as: str  # the name in the file
    line: int


def modules_imported_by(files: Iterable[Path]) -> dict[str, Path]:
    """Return the files of the modules that Python files import, directly or not.

    Relative imports of ``files`` are left out: they lead to files of the same folder.

    Returns:
        The files by their path from the root of the package: ``metaopt/bench/contract/kit.py``.
    """
    imports = [entry for path in files for entry in read_imports(path) if not entry.level]
    return _follow((entry.module, entry.name) for entry in imports)


def modules_with_imports(names: Iterable[str]) -> dict[str, Path]:
    """Return the files of modules and of the modules that they import, directly or not."""
    return _follow((name, None) for name in names)


def read_imports(path: Path) -> tuple[Import, ...]:
    """Return all imports of a file; none if it is not Python."""
    status = path.stat()
    return _read_imports(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _read_imports(path: Path, size: int, changed: int) -> tuple[Import, ...]:
    del size, changed  # a changed file is read again
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # the import itself reports it
        return ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound_as = alias.asname or alias.name.partition(".")[0]
                found.append(Import(alias.name, None, 0, bound_as, node.lineno))
        elif isinstance(node, ast.ImportFrom):
            module, level = node.module or "", node.level
            for alias in node.names:
                bound_as = alias.asname or alias.name
                found.append(Import(module, alias.name, level, bound_as, node.lineno))
    return tuple(found)


def _follow(wanted: Iterable[tuple[str, str | None]]) -> dict[str, Path]:
    """Return the files of modules and of their imports.

    If a package's ``__init__.py`` imports the name, only that import of it is followed.
    """
    found: dict[str, Path] = {}
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
        found[module.replace(".", "/") + ("/__init__.py" if is_package else path.suffix)] = path
        imports = read_imports(path) if path.suffix == ".py" else ()
        of_name = [entry for entry in imports if is_package and entry.bound_as == name]
        package = module if is_package else module.rpartition(".")[0]
        for entry in of_name or imports:
            todo.append((_absolute(entry, package), entry.name))
    return dict(sorted(found.items()))


def _absolute(entry: Import, package: str) -> str:
    if not entry.level:
        return entry.module
    base = package.split(".")
    base = base[: len(base) - entry.level + 1]
    return ".".join([*base, entry.module] if entry.module else base)


@functools.cache
def _find(module: str) -> Path | None:
    """Return the file of a module; ``None`` without one, or if the module is left out."""
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
