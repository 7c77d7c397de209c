"""Write a submission as a folder that needs nothing of this project, and try it first."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

import metaopt
from metaopt.bench.contract.loading import SPACE_FILE, Submission, load_submission
from metaopt.bench.contract.requirements import (
    ALGOPERF_PINS,
    REQUIREMENTS_FILE,
    beyond_algoperf,
    read_requirements,
)
from metaopt.bench.contract.spaces import parse_space
from metaopt.bench.records.submission_info import INFO_FILE, INFO_GLOBS, read_info, unchanged_keys
from metaopt.bench.trial.environment import CHECKOUT, describe_checkout
from tuning.contenders import SUBMISSIONS
from tuning.packaging import first_step
from tuning.packaging.info import SubmissionInfo, complete_info
from tuning.packaging.pull_request import PULL_REQUEST_FILE, pull_request_text
from tuning.packaging.sources import OURS, Sources, collect_sources, own_files

NOTICE = "NOTICE"

_RULESET_FOLDERS = {"external": "external_tuning", "self-tuning": "self_tuning"}
_STEP_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Packaged:
    """What :func:`package_submission` wrote."""

    folder: Path
    destination: str  # where it belongs in mlcommons/submissions_algorithms
    info: SubmissionInfo
    files: tuple[str, ...]
    warnings: tuple[str, ...]
    versions: str  # of the step that was tried, beside AlgoPerf's


def package_submission(
    name_or_path: str | Path,
    out: Path,
    flags: Mapping[str, str | None] | None = None,
    ask: Callable[[str], str] | None = None,
    evidence: Callable[[], str] = lambda: "",
) -> Packaged:
    """Write a submission to ``out`` for a pull request; a failure leaves nothing there.

    The package has been imported in an empty process, and has taken a step there, before ``out``
    appears.

    Args:
        name_or_path: Name or folder of a submission.
        out: New or empty folder.
        flags: Values of ``submission_info.yml`` that go before the submission's own.
        ask: Asked for values that are missing; ``None`` makes them an error.
        evidence: Called after the step; returns Markdown for ``PULL_REQUEST.md``. What it raises
            stops the packaging.

    Raises:
        ValueError: ``out`` is not empty, a value is missing or wrong, an import cannot be packaged,
            or the step failed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; use another --out, or empty it.")
    submission = load_submission(name_or_path, SUBMISSIONS)
    point = _middle_of_space(submission)
    info = _complete(submission, flags or {}, ask)
    sources = collect_sources(submission.folder)
    if sources.copied and (submission.folder / OURS).exists():
        raise ValueError(f"{submission.folder / OURS} is in the way of what is copied; rename it.")
    destination = Path("submissions", _RULESET_FOLDERS[info.ruleset], info.submission_folder)
    warnings = tuple(_warnings(submission.folder, sources))
    with _staging(out) as root:
        folder = root / destination
        _write(folder, submission, info, sources)
        _try_step(root, destination, point)
        text = pull_request_text(info, evidence(), [*_origin(), *warnings])
        (folder / PULL_REQUEST_FILE).write_text(text, "utf-8")
        out.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, out)
    files = tuple(str(p.relative_to(out)) for p in sorted(out.rglob("*")) if p.is_file())
    return Packaged(
        out,
        destination.as_posix(),
        info,
        files,
        warnings,
        _versions(),
    )


def _middle_of_space(submission: Submission) -> dict | None:
    if submission.ruleset == "self-tuning":
        return None
    return parse_space(submission.read_space(), submission.name).middle()


def _complete(
    submission: Submission, flags: Mapping[str, str | None], ask: Callable[[str], str] | None
) -> SubmissionInfo:
    found = {"submission_folder": submission.name} | read_info(submission.folder)
    facts = {"ruleset": submission.ruleset, "framework": "JAX"}
    for key, fact in facts.items():
        if found.get(key, fact) != fact:
            space = "has a" if submission.ruleset == "external" else "has no"
            why = f"it {space} {SPACE_FILE}" if key == "ruleset" else "only JAX can be tried here"
            raise ValueError(f"{submission.folder}: {key} is {found[key]!r}, but {why}.")
    copied = unchanged_keys(submission.folder, SUBMISSIONS / "template")
    own = {key: value for key, value in found.items() if key not in copied}
    return complete_info(own | facts, flags, ask, copied)


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Make a folder on the file system of ``out``, and delete it afterwards."""
    near = next(parent for parent in out.absolute().parents if parent.is_dir())
    root = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=near))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def _write(
    folder: Path,
    submission: Submission,
    info: SubmissionInfo,
    sources: Sources,
) -> None:
    texts = {"__init__.py": "", **sources.own}
    if sources.copied:
        texts[f"{OURS}/LICENSE"] = _license()
    texts[NOTICE] = _notice(info, sources)
    texts[REQUIREMENTS_FILE] = _requirements(submission.folder, sources)
    texts[INFO_FILE] = info.to_yaml()
    own = set(own_files(submission.folder))
    own -= {path for pattern in INFO_GLOBS for path in submission.folder.glob(pattern)}
    files = {path.relative_to(submission.folder).as_posix(): path for path in own} | sources.copied
    for name, path in files.items():
        if name not in texts:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


def _requirements(folder: Path, sources: Sources) -> str:
    """Return pip's lines: the submission's own, then what they lack, each with its reason."""
    named = {line.name for line in read_requirements(folder)}
    path = folder / REQUIREMENTS_FILE
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    distributions = metadata.packages_distributions() if sources.extras else {}
    for module, users in sources.extras.items():
        distribution = distributions.get(module, [module])[0]
        version = f">={metadata.version(distribution)}" if module in distributions else ""
        if canonicalize_name(distribution) not in named:
            lines.append(f"{distribution}{version}  # imported by {_some(users)}")
    return "\n".join(lines or ["# Nothing beyond AlgoPerf's own environment for JAX."]) + "\n"


def _notice(info: SubmissionInfo, sources: Sources) -> str:
    lines = [
        info.submission_name,
        "",
        "Submitted under the Apache License, Version 2.0, as mlcommons/submissions_algorithms is.",
    ]
    if sources.copied:
        commit = describe_checkout(CHECKOUT)["commit"]
        lines += [
            "",
            f"{OURS}/ holds unchanged modules of metaopt-bench {metaopt.__version__}"
            + (f", commit {commit}" if commit else "")
            + f", under the Apache License,\nVersion 2.0 ({OURS}/LICENSE).",
        ]
    return "\n".join(lines) + "\n"


def _license() -> str:
    """Return the licence's text, from the checkout or from the installed distribution."""
    if (CHECKOUT / "LICENSE").is_file():
        return (CHECKOUT / "LICENSE").read_text("utf-8")
    text = metadata.distribution("metaopt-bench").read_text("licenses/LICENSE")
    assert text is not None, "the distribution has its licence"
    return text


def _try_step(root: Path, destination: Path, point: dict | None) -> None:
    """Import the package under AlgoPerf's name in an empty process and take a step.

    Raises:
        ValueError: It failed; the message ends as the process did.
    """
    module = ".".join([*destination.parts, "submission"])
    argument = {"root": str(root), "module": module, "hyperparameters": point}
    command = [sys.executable, "-I", "-B", first_step.__file__, json.dumps(argument)]
    with tempfile.TemporaryDirectory() as empty:
        try:
            run = subprocess.run(
                command, cwd=empty, capture_output=True, text=True, timeout=_STEP_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"The first step took more than {_STEP_SECONDS:g} s.") from None
    if run.returncode:
        last = run.stderr.strip().rpartition("\n")[2]
        where = [line for line in run.stderr.splitlines() if str(root / destination) in line]
        at = re.search(r'([^/"]+)", line (\d+)', where[-1]) if where else None
        raise ValueError(
            f"The package failed in an empty process{f', {at[1]}:{at[2]}' if at else ''}: {last}"
        )


def _origin() -> Iterator[str]:
    commit = describe_checkout(CHECKOUT)["commit"]
    at = f", commit {commit}" if commit else ""
    yield f"Packaged with metaopt-bench {metaopt.__version__}{at}."
    yield f"The folder was loaded in an empty process and took a step, with {_versions()}."


def _versions() -> str:
    """Say with which versions the step was tried, and which AlgoPerf has."""
    pairs = ((name, metadata.version(name)) for name in ("jax", "flax", "optax"))
    return ", ".join(
        f"{name} {version}"
        + (f" (AlgoPerf: {ALGOPERF_PINS[name]})" if version != ALGOPERF_PINS[name] else "")
        for name, version in pairs
    )


def _warnings(folder: Path, sources: Sources) -> Iterator[str]:
    for line, pin in beyond_algoperf(folder):
        yield (
            f"{line.where}: {line.requirement} is required, but AlgoPerf pins {line.name} {pin}. "
            "Copy the newer code into the submission, or agree on a newer version."
        )
    for module, users in sources.extras.items():
        yield f"{module}, imported by {_some(users)}, is not in AlgoPerf's environment."


def _some(files: list[str]) -> str:
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
