"""Find submissions by name or by path, and load them.

A submission is a folder with ``submission.py`` (AlgoPerf's functions). For external tuning it also
has ``tuning_search_space.json``. Optional files: further spaces in ``spaces/<name>.json``, and
``developed_on.json``, which lists the workloads that it was designed with.
"""

import dataclasses
import hashlib
import importlib
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from metaopt.bench.contract import spec
from metaopt.bench.contract.plugins import (
    SUBMISSIONS,
    Plugin,
    find_plugin,
    list_plugins,
    plugin_names,
)
from metaopt.bench.contract.spaces import DuplicateNameError, read_space
from metaopt.bench.contract.suggestions import did_you_mean
from metaopt.bench.records.failures import describe_with_place

Ruleset = Literal["external", "self-tuning"]

REQUIRED = ("get_batch_size", "init_optimizer_state", "update_params", "data_selection")
SPACE_FILE = "tuning_search_space.json"
SUBMISSION_FILE = "submission.py"
DEVELOPED_FILE = "developed_on.json"


@dataclasses.dataclass(frozen=True)
class Submission:
    """A loaded submission: its module and the files beside it."""

    name: str
    folder: Path
    module: ModuleType = dataclasses.field(compare=False)
    # Workloads that it was designed with, by its own declaration.
    developed_on: tuple[str, ...] = ()

    @property
    def ruleset(self) -> Ruleset:
        """External tuning if there is a search space, else self-tuning."""
        return "external" if (self.folder / SPACE_FILE).exists() else "self-tuning"

    @property
    def defaults(self) -> dict[str, Any]:
        """The hyperparameters of an untuned run; empty for self-tuning submissions."""
        return dict(getattr(self.module, "DEFAULTS", {}))

    @property
    def summary(self) -> str:
        """The first line of the module's docstring."""
        return (inspect.getdoc(self.module) or "").partition("\n")[0]

    @property
    def wants_train_state(self) -> bool:
        """Whether ``update_params`` names ``train_state`` (AlgoPerf passes it only then)."""
        return "train_state" in inspect.signature(self.module.update_params).parameters

    def describe(self) -> str:
        """Return one line: its summary, its ruleset and its further spaces."""
        spaces = "".join(f", {self.name}@{space}" for space in self.spaces())
        return f"{self.summary} [{self.ruleset}{spaces}]"

    def spaces(self) -> list[str]:
        """Return the names of the further search spaces."""
        return sorted(path.stem for path in (self.folder / "spaces").glob("*.json"))

    def read_space(self, name: str | None = None) -> Any:
        """Return a search space as JSON data, by default the submission's own.

        Raises:
            ValueError: There is no such space; the message lists the others.
        """
        path = self.folder / (SPACE_FILE if name is None else f"spaces/{name}.json")
        if not path.exists():
            what = "search space"
            if name is not None:
                what += f" {name!r}{did_you_mean(name, self.spaces())}"
            raise ValueError(
                f"Submission {self.name!r} has no {what}, only {self.spaces() or 'none'}."
            )
        try:
            return read_space(path.read_text("utf-8"))
        except DuplicateNameError as error:
            raise ValueError(f"{path}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from None


def find_submissions(root: Path) -> dict[str, Path]:
    """Return the folder of every submission under ``root``, by name."""
    return {
        path.parent.name: path.parent
        for path in sorted(root.glob(f"*_tuning/*/{SUBMISSION_FILE}"))
        if path.parent.name != "template"
    }


def list_plugin_submissions(root: Path) -> tuple[dict[str, Submission], dict[str, str]]:
    """Return the submissions of installed packages, and the reasons why others are unavailable."""
    return list_plugins(SUBMISSIONS, find_submissions(root), _load_plugin)


def load_submission(name_or_path: str | Path, root: Path) -> Submission:
    """Load a submission by its name under ``root`` or in a package, or by its folder's path.

    Raises:
        ValueError: There is no such submission, it cannot be imported, it lacks functions of the
            contract, or the package that adds it is broken.
    """
    known = find_submissions(root)
    name = str(name_or_path)
    plugin = None if name in known else find_plugin(SUBMISSIONS, name, known)
    if plugin is not None:
        return _load_plugin(plugin)
    folder = find_submission_folder(name_or_path, root)
    if not (folder / SUBMISSION_FILE).is_file():
        raise _no_submission(name_or_path, root)
    return _load(folder.name, folder)


def _load_plugin(plugin: Plugin) -> Submission:
    """Load the folder that a package names, or the folder of the module that it names."""
    found = plugin.load()
    if isinstance(found, ModuleType):
        found = [*getattr(found, "__path__", [])] or [Path(found.__file__ or "").parent]
        found = found[0]
    if not isinstance(found, str | Path) or not (Path(found) / SUBMISSION_FILE).is_file():
        raise plugin.broken(f"{found!r} is neither a folder with {SUBMISSION_FILE} nor a module")
    try:
        return _load(plugin.name, Path(found))
    except Exception as error:  # a package's module may raise anything
        raise plugin.broken(error) from error


def _load(name: str, folder: Path) -> Submission:
    folder = folder.resolve()
    try:
        module = import_submission(folder)
    except (Exception, SystemExit) as error:  # its code may raise anything
        why = describe_with_place(error, folder)
        raise ValueError(f"{folder / SUBMISSION_FILE} cannot be imported: {why}.") from error
    missing = [function for function in REQUIRED if not callable(getattr(module, function, None))]
    if missing:
        raise ValueError(f"{folder / SUBMISSION_FILE} does not define {', '.join(missing)}.")
    return Submission(name, folder, module, _read_developed_on(folder / DEVELOPED_FILE))


def _read_developed_on(path: Path) -> tuple[str, ...]:
    """Read a list of workloads. It is a file because the code may not name any workload."""
    if not path.exists():
        return ()
    try:
        names = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: must be a list of names of workloads.")
    return tuple(names)


def find_submission_folder(name_or_path: str | Path, root: Path) -> Path:
    """Return the folder of a submission by its name under ``root`` or by its path.

    Raises:
        ValueError: There is no such folder. A ``submission.py`` in it is not checked.
    """
    folder = find_submissions(root).get(str(name_or_path), Path(name_or_path))
    if folder.name == SUBMISSION_FILE:
        folder = folder.parent
    if not folder.is_dir():
        raise _no_submission(name_or_path, root)
    return folder.resolve()


def _no_submission(name_or_path: str | Path, root: Path) -> ValueError:
    known = find_submissions(root)
    names = sorted([*known, *plugin_names(SUBMISSIONS, known)])
    return ValueError(
        f"No submission {str(name_or_path)!r}{did_you_mean(name_or_path, names)}: it is neither "
        f"one of {names} nor a folder with {SUBMISSION_FILE}."
    )


def import_submission(folder: Path) -> ModuleType:
    """Import ``submission.py`` as part of its own package, so that it finds the modules beside it.

    A packaged submission has a copy of ``metaopt.bench.contract.spec``. It gets the referee's
    module instead, because members of two enums are never equal.
    """
    package = f"_submission_{folder.name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if package not in sys.modules:
        parent = ModuleType(package)
        parent.__path__ = [str(folder)]
        sys.modules[package] = parent
        if (folder / "metaopt" / "bench" / "contract" / "spec.py").is_file():
            sys.modules[f"{package}.metaopt.bench.contract.spec"] = spec
    return importlib.import_module(f"{package}.submission")


def import_again(submission: Submission) -> Any:
    """Return the submission's module without anything that it has kept since its first import.

    A module that was not imported from the folder is returned as it is.
    """
    if not isinstance(submission.module, ModuleType):
        return submission.module
    package = submission.module.__name__.rpartition(".")[0]
    kept = _pop_modules(package)
    try:
        return import_submission(submission.folder)
    finally:
        _pop_modules(package)
        sys.modules.update(kept)


def _pop_modules(package: str) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == package]
    return {name: sys.modules.pop(name) for name in names}
