"""Digests of files and modules: equal if nothing that runs differs.

Python files are hashed by their syntax tree without docstrings, so a comment changes nothing. Empty
fields of the tree are left out, because versions of Python add some. Every other file is hashed by
its bytes.
"""

import ast
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metaopt.bench.contract.imported_modules import modules_imported_by, modules_with_imports

_DIGITS = 16  # hexadecimal, of a digest
_LEFTOVERS = (".pyc", ".swp", "~", ".DS_Store")  # of Python, editors and desktops
_HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def digest_folder(folder: Path) -> dict[str, str]:
    """Return the digest of every file below ``folder``, by path; caches are left out."""
    return {
        path.relative_to(folder).as_posix(): digest_file(path) for path in sorted(_files(folder))
    }


def digest_file(path: Path) -> str:
    """Return the digest of a file; a file of another size or time of change is read again."""
    status = path.stat()
    return _digest_file(path, status.st_size, status.st_mtime_ns)


def digest_value(value: Any) -> str:
    """Return the digest of JSON data."""
    return _shortened(json.dumps(value, sort_keys=True).encode())


def digest_imports(files: Iterable[Path]) -> dict[str, str]:
    """Return the digests of the modules that Python files import, directly or not.

    Relative imports are left out: they lead to files of the same folder.
    """
    return {name: digest_file(path) for name, path in modules_imported_by(files).items()}


def digest_modules(names: Iterable[str]) -> dict[str, str]:
    """Return the digests of modules and of those that they import, by path."""
    return {name: digest_file(path) for name, path in modules_with_imports(names).items()}


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


@functools.cache
def _digest_file(path: Path, size: int, changed: int) -> str:
    del size, changed  # a changed file is read again
    if path.suffix != ".py":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
    source = path.read_bytes()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the import itself reports it
        return _shortened(source)
    words: list[str] = []
    _spell(tree, words)
    return _shortened("\n".join(words).encode())


def _shortened(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _spell(node: Any, words: list[str]) -> None:
    """Append the words of a syntax tree, without docstrings and empty fields."""
    if isinstance(node, list):
        for entry in node:
            _spell(entry, words)
        words.append("]")
    elif isinstance(node, ast.AST):
        words.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(node, _HAS_DOCSTRING):
                value = node.body[1:] if ast.get_docstring(node, clean=False) is not None else value
            if value is not None and value != []:
                words.append(name)
                _spell(value, words)
        words.append(")")
    else:
        words.append(repr(node))
