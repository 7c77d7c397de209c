"""The Python files of a package: the submission's own, and copies of the modules of ``metaopt``.

The modules import each other relatively, so their copies work below any package, unchanged. In the
submission's own files ``from metaopt`` becomes ``from .metaopt``.
"""

import ast
import dataclasses
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from metaopt.bench.contract.imported_modules import modules_imported_by

OURS = "metaopt"
_NEVER_PACKAGED = {"tuning", "analysis", "submissions", "leaderboard", "tests"}

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


@dataclasses.dataclass(frozen=True)
class Sources:
    """The Python files of a package.

    Attributes:
        own: The text of the submission's files by their path in the folder.
        copied: The files of the modules of ``metaopt`` by their path in the folder.
        extras: The files that import a module, by modules that AlgoPerf's environment lacks.
    """

    own: dict[str, str]
    copied: dict[str, Path]
    extras: dict[str, list[str]]


def collect_sources(folder: Path) -> Sources:
    """Return the Python files of a submission and the modules of ``metaopt`` that they need.

    Raises:
        ValueError: An import cannot be packaged; names file, line and remedy.
    """
    paths = [path for path in own_files(folder) if path.suffix == ".py"]
    texts = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in paths}
    own = {name: _with_relative_imports(name, text) for name, text in texts.items()}
    modules = modules_imported_by(paths)
    copied = {name: path for name, path in modules.items() if name.startswith(f"{OURS}/")}
    copied = dict(sorted((_packages_of(copied) | copied).items()))
    extras = defaultdict(list)
    every = own | {name: path.read_text("utf-8") for name, path in copied.items()}
    for name, text in every.items():
        for module in _modules_that_algoperf_lacks(name, text):
            extras[module].append(name)
    return Sources(own, copied, dict(sorted(extras.items())))


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


def _with_relative_imports(name: str, text: str) -> str:
    """Return a file's text in which ``metaopt`` is a package beside ``submission.py``."""
    dots = "." * len(PurePosixPath(name).parts)
    return re.sub(rf"^([ \t]*from )({OURS}[. ])", rf"\1{dots}\2", text, flags=re.MULTILINE)


def _packages_of(modules: dict[str, Path]) -> dict[str, Path]:
    """Return the ``__init__.py`` of every package that holds one of the modules."""
    return {
        f"{parent}/__init__.py": path.parents[depth] / "__init__.py"
        for name, path in modules.items()
        for depth, parent in enumerate(PurePosixPath(name).parents[:-1])
    }


def _modules_that_algoperf_lacks(name: str, text: str) -> list[str]:
    """Return the top-level modules that a file imports and AlgoPerf's environment lacks.

    Raises:
        ValueError: The file is not Python, or an import is of something that is never packaged.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{name}:{error.lineno}: not Python: {error.msg}.") from None
    lacking = set()
    for node in _imports(tree):
        modules = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            modules = [] if node.level else [node.module or ""]
        for top in {module.partition(".")[0] for module in modules}:
            if top == OURS:
                raise ValueError(
                    f"{name}:{node.lineno}: this import cannot be made relative. Write 'from "
                    f"{OURS} import NAME' on a line of its own."
                )
            if top in _NEVER_PACKAGED:
                raise ValueError(
                    f"{name}:{node.lineno}: {top!r} is never packaged, only {OURS!r} is. Copy the "
                    "code into the submission."
                )
            if top not in ALGOPERF_HAS and top not in sys.stdlib_module_names:
                lacking.add(top)
    return sorted(lacking)


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements that run, so not those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (found for part in child.orelse for found in _imports(part))
        else:
            yield from _imports(child)
