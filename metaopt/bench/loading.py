"""Find submissions by name or by path and load them; they are never installed.

A submission is a folder with ``submission.py`` (AlgoPerf's functions), for external tuning also
``tuning_search_space.json`` and, if it likes, further spaces in ``spaces/<name>.json``.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from metaopt.bench.spaces import DuplicateNameError, read_space

Ruleset = Literal["external", "self-tuning"]

REQUIRED = ("get_batch_size", "init_optimizer_state", "update_params", "data_selection")
SPACE_FILE = "tuning_search_space.json"
SUBMISSION_FILE = "submission.py"


@dataclasses.dataclass(frozen=True)
class Submission:
    """A loaded submission: its module and the files beside it."""

    name: str
    folder: Path
    module: ModuleType = dataclasses.field(compare=False)

    @property
    def ruleset(self) -> Ruleset:
        """External tuning if there is a search space, self-tuning if not."""
        return "external" if (self.folder / SPACE_FILE).exists() else "self-tuning"

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the Python files in the folder: whether it is still the same submission."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*.py")):
            digest.update(str(path.relative_to(self.folder)).encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

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

    def spaces(self) -> list[str]:
        """Return the names of the further search spaces."""
        return sorted(path.stem for path in (self.folder / "spaces").glob("*.json"))

    def read_space(self, name: str | None = None) -> Any:
        """Return a search space as JSON data, the one a user would search today by default.

        Raises:
            ValueError: There is no such space; the message lists the others.
        """
        path = self.folder / (SPACE_FILE if name is None else f"spaces/{name}.json")
        if not path.exists():
            what = "search space" if name is None else f"search space {name!r}"
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


def load_submission(name_or_path: str | Path, root: Path) -> Submission:
    """Load a submission by its name under ``root`` or by the path of its folder.

    Raises:
        ValueError: There is no such submission, or it lacks functions of the contract.
    """
    folder = find_submission_folder(name_or_path, root)
    if not (folder / SUBMISSION_FILE).is_file():
        raise _no_submission(name_or_path, root)
    module = import_submission(folder)
    missing = [name for name in REQUIRED if not callable(getattr(module, name, None))]
    if missing:
        raise ValueError(f"{folder / SUBMISSION_FILE} does not define {', '.join(missing)}.")
    return Submission(folder.name, folder, module)


def find_submission_folder(name_or_path: str | Path, root: Path) -> Path:
    """Return the folder of a submission by its name under ``root`` or by its path.

    Raises:
        ValueError: There is no such folder. Whether a submission is in it is another question.
    """
    folder = find_submissions(root).get(str(name_or_path), Path(name_or_path))
    if folder.name == SUBMISSION_FILE:
        folder = folder.parent
    if not folder.is_dir():
        raise _no_submission(name_or_path, root)
    return folder.resolve()


def _no_submission(name_or_path: str | Path, root: Path) -> ValueError:
    return ValueError(
        f"No submission {str(name_or_path)!r}: it is neither one of "
        f"{sorted(find_submissions(root))} nor a folder with {SUBMISSION_FILE}."
    )


def import_submission(folder: Path) -> ModuleType:
    """Import ``submission.py`` as part of a package of its own: modules beside it can be found."""
    package = f"_submission_{folder.name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if package not in sys.modules:
        parent = ModuleType(package)
        parent.__path__ = [str(folder)]
        sys.modules[package] = parent
    return importlib.import_module(f"{package}.submission")
