"""Take what a submission imports of ``metaopt`` along: copies of modules, imports made relative.

Everything is decided on the syntax tree. The copies keep their place under ``metaopt/``, whose
``__init__.py`` are empty: ``from metaopt import X`` becomes an import from the module that has X.
"""

import ast
import dataclasses
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import util
from pathlib import Path, PurePosixPath

OURS = "metaopt"
_NOT_PACKAGED = {"tuning", "analysis", "submissions", "leaderboard", "tests"}

# What AlgoPerf's own environment has for JAX, as modules: its requirements and what they bring.
ALGOPERF_HAS = frozenset(
    [
        *("absl", "algoperf", "chex", "clu", "etils", "flax", "jax", "jaxlib", "matplotlib"),
        *("ml_dtypes", "msgpack", "networkx", "numpy", "opt_einsum", "optax", "orbax", "pandas"),
        *("psutil", "scipy", "tabulate", "tensorflow", "tensorflow_datasets"),
        *("tensorflow_probability", "tensorstore", "torch", "tqdm", "typing_extensions", "wandb"),
        "yaml",
    ]
)

_GUARD = "\nif TYPE_CHECKING:\n    "

Module = tuple[str, ...]  # ("metaopt", "bench", "spec")


@dataclasses.dataclass(frozen=True)
class Sources:
    """The Python files of a package."""

    files: dict[str, str]  # text by path in the folder
    needed: tuple[Module, ...]  # the modules of ours among them
    extras: dict[
        str, tuple[str, ...]
    ]  # modules that AlgoPerf's environment lacks: who imports them


def collect_sources(folder: Path) -> Sources:
    """Return the Python files in ``folder`` and what they need of ``metaopt``, all rewritten.

    Raises:
        ValueError: An import cannot be rewritten, or is of something that is never packaged; names
            file, line and remedy.
    """
    files, extras = {}, defaultdict(set)
    todo = [
        (path.relative_to(folder).as_posix(), path.read_text("utf-8"))
        for path in own_files(folder)
        if path.suffix == ".py"
    ]
    needed: dict[Module, None] = {}
    while todo:
        name, text = todo.pop()
        editor = _Editor(name, text, is_copy=name in {f"{'/'.join(m)}.py" for m in needed})
        files[name] = editor.rewrite()
        for module in editor.extras:
            extras[module].add(name)
        for module in editor.needed:
            if module not in needed:
                needed[module] = None
                todo.append((f"{'/'.join(module)}.py", _source(module)))
    for module in needed:
        for depth in range(1, len(module)):
            files.setdefault(f"{'/'.join(module[:depth])}/__init__.py", "")
    return Sources(
        dict(sorted(files.items())),
        tuple(sorted(needed)),
        {module: tuple(sorted(users)) for module, users in sorted(extras.items())},
    )


def own_files(folder: Path) -> list[Path]:
    """Return the files of a submission: all but caches, hidden ones and further search spaces."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(
            part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts
        )
        and path.relative_to(folder).parts[0] != "spaces"
    ]


class _Editor:
    """Rewrites one file."""

    def __init__(self, name: str, text: str, is_copy: bool) -> None:
        self.name, self.text, self.is_copy = name, text, is_copy
        self.package: Module = PurePosixPath(name).parts[:-1]
        self.needed: list[Module] = []
        self.extras: list[str] = []
        try:
            self.tree = ast.parse(text)
        except SyntaxError as error:
            raise ValueError(f"{name}:{error.lineno}: not Python: {error.msg}.") from None

    def rewrite(self) -> str:
        """Return the new text, and note what it needs."""
        edits: list[tuple[ast.stmt, str]] = []
        for node in _imports(self.tree.body):
            if isinstance(node, ast.ImportFrom) and node.level:
                self._note_relative(node)
                continue
            tops = {name.split(".")[0] for name in _imported(node)}
            if tops & _NOT_PACKAGED:
                raise self._error(node, f"{min(tops)!r} is never packaged; only 'metaopt' is")
            if OURS in tops:
                edits.append((node, self._relative(node)))
            elif extras := sorted(tops - ALGOPERF_HAS - sys.stdlib_module_names):
                if node in self.tree.body and self._is_for_annotations(node):
                    edits.append((node, f"{_GUARD}{ast.unparse(node)}"))
                else:
                    self.extras += extras
        text = self._apply(edits)
        if any(edit.startswith(_GUARD) for _, edit in edits):
            text = _postpone_annotations(text)
        return text

    def _relative(self, node: ast.stmt) -> str:
        lines: dict[str, list[str]] = {}
        for package, name, shown in self._targets(node):
            lines.setdefault(_dots(self.package, package), []).append(
                name if shown in (None, name) else f"{name} as {shown}"
            )
        separator = "\n" + " " * node.col_offset
        return separator.join(f"from {where} import {', '.join(n)}" for where, n in lines.items())

    def _targets(self, node: ast.stmt) -> Iterator[tuple[Module, str, str | None]]:
        """Say for every name where it really is: (package or module, name, name in this file)."""
        assert isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names:
            if isinstance(node, ast.Import):
                module = tuple(alias.name.split("."))
                if alias.asname is None or len(module) == 1:
                    raise self._error(node, "write 'from metaopt import NAME' instead")
                yield self._note(module)[:-1], module[-1], alias.asname
                continue
            base = tuple((node.module or "").split("."))
            if _path(*base, alias.name) is not None:
                yield self._note((*base, alias.name))[:-1], alias.name, alias.asname
                continue
            home = base if not _is_package(base) else _home(base, alias.name)
            if home is None:
                raise self._error(node, f"no module of metaopt defines {alias.name!r}")
            yield self._note(home), alias.name, alias.asname

    def _note_relative(self, node: ast.ImportFrom) -> None:
        """Note a module of ours that another one imports relatively; it stays as it is."""
        if not self.is_copy:
            return  # the file of the submission comes along
        base = self.package[: len(self.package) - node.level + 1]
        base = (*base, *(node.module or "").split(".")) if node.module else base
        for alias in node.names:
            inner = (*base, alias.name)
            self._note(base if _path(*inner) is None else inner)

    def _note(self, module: Module) -> Module:
        if _is_package(module):
            return module  # its __init__.py comes along empty
        self.needed.append(module)
        return module

    def _is_for_annotations(self, node: ast.stmt) -> bool:
        """Whether the imported names are in annotations only, which need not be evaluated."""
        assert isinstance(node, ast.Import | ast.ImportFrom)
        names = {alias.asname or alias.name.split(".")[0] for alias in node.names}
        inside = {id(part) for root in _annotations(self.tree) for part in ast.walk(root)}
        return all(
            id(part) in inside
            for part in ast.walk(self.tree)
            if isinstance(part, ast.Name) and part.id in names
        )

    def _apply(self, edits: list[tuple[ast.stmt, str]]) -> str:
        lines = self.text.splitlines(keepends=True)
        for node, new in sorted(edits, key=lambda edit: edit[0].lineno, reverse=True):
            assert node.end_lineno is not None
            first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()
            before, after = first[: node.col_offset].decode(), last[node.end_col_offset :].decode()
            if before.strip():  # a second statement on a line: where would a second line go?
                raise self._error(node, "put the import on a line of its own")
            lines[node.lineno - 1 : node.end_lineno] = [before + new + after]
        return "".join(lines)

    def _error(self, node: ast.stmt, remedy: str) -> ValueError:
        line = (ast.get_source_segment(self.text, node) or "").partition("\n")[0]
        return ValueError(f"{self.name}:{node.lineno}: `{line}`: {remedy}.")


def _imports(body: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Return the imports that are executed; those for type checkers are not."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            negated = isinstance(node.test, ast.UnaryOp)
            yield from _imports(node.body if negated else node.orelse)
        else:
            yield from _imports(ast.iter_child_nodes(node))


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def _annotations(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if (found := getattr(node, field, None)) is not None:
                yield found


def _postpone_annotations(text: str) -> str:
    """Put ``from __future__ import annotations`` after the docstring, and get TYPE_CHECKING."""
    tree, lines = ast.parse(text), text.splitlines(keepends=True)
    has_docstring = ast.get_docstring(tree) is not None
    after = (tree.body[0].end_lineno or 0) if has_docstring else 0
    while after < len(lines) and not has_docstring and lines[after].startswith("#"):
        after += 1
    futures = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    new = ["from typing import TYPE_CHECKING\n"]
    if futures:
        after = futures[-1].end_lineno or 0
    if not any(alias.name == "annotations" for node in futures for alias in node.names):
        new = ["from __future__ import annotations\n", "\n", *new]
    gap = ["\n"] if after else []
    return "".join([*lines[:after], *gap, *new, *lines[after:]])


def _dots(package: Module, target: Module) -> str:
    """Return ``target`` relative to ``package``, as an import statement writes it."""
    shared = 0
    while shared < min(len(package), len(target)) and package[shared] == target[shared]:
        shared += 1
    return "." * (len(package) - shared + 1) + ".".join(target[shared:])


# The modules of ours, found without importing them.


def _path(*module: str) -> Path | None:
    """Return the file of a module, or the folder of a package; ``None`` if it is neither."""
    spec = util.find_spec(OURS)
    assert spec is not None and spec.submodule_search_locations is not None
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*module[1:])
    if path.is_dir():
        return path
    file = path.with_suffix(".py")
    return file if file.is_file() else None


def _is_package(module: Module) -> bool:
    path = _path(*module)
    return path is not None and path.is_dir()


def _home(package: Module, name: str) -> Module | None:
    """Return the module that a package's ``__init__.py`` says ``name`` is from."""
    path = _path(*package)
    assert path is not None
    for node in ast.walk(ast.parse((path / "__init__.py").read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level or not node.module:
            continue
        if name in [alias.asname or alias.name for alias in node.names]:
            return (*package, *node.module.split("."))
    return None


def _source(module: Module) -> str:
    path = _path(*module)
    if path is None:
        raise ValueError(f"metaopt has no module {'.'.join(module)!r}.")
    return path.read_text("utf-8")
