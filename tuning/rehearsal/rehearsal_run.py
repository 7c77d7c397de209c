"""Rehearse a submission on all miniatures, and check it, in processes of their own.

A submission that ends its process, or never returns, loses one miniature; the others go on.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from metaopt.bench.records.findings import Finding
from metaopt.bench.records.trials import read_model
from metaopt.bench.rules.check import Report
from metaopt.bench.rules.subprocess_check import check_in_subprocess, run_module
from tuning.cores import available_cores
from tuning.rehearsal.miniature_result import MINIATURES, MiniatureResult

_PROCESSES = 4  # at most: each needs a gigabyte
# The processes share a GPU if there is one.
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found.

    Attributes:
        name: The submission's name.
        miniatures: The results, in the order of :data:`MINIATURES`.
        check: The report of ``tuning check``.
    """

    name: str
    miniatures: tuple[MiniatureResult, ...]
    check: Report

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """All findings, each with the miniatures that it was found on; first those of the check."""
        found: dict[Finding, list[str]] = {}
        for result in self.miniatures:
            for finding in result.findings:
                found.setdefault(finding, []).append(result.workload)
        every = len(self.miniatures)
        on = [(_places(names, every), finding) for finding, names in found.items()]
        return [
            *(("tuning check", finding) for finding in self.check.findings),
            *((places, finding) for places, finding in on),
            *(("", finding) for finding in self._of_all()),
        ]

    def _of_all(self) -> list[Finding]:
        """Return the finding that no loss falls: one point may be bad, but not everywhere."""
        falls = [result.falls for result in self.miniatures]
        if True in falls or False not in falls:
            return []
        what = "the training loss falls on no miniature"
        fix = "Check the sign of the update and the learning rate."
        return [Finding("loss", "error", what, "submission.py", fix)]

    @property
    def errors(self) -> int:
        """The number of findings that would fail in a competition."""
        return sum(finding.severity == "error" for _, finding in self.findings)


def rehearse(
    folder: Path,
    cache: Path,
    *,
    timeout: float,
    miniatures: Sequence[str] = tuple(MINIATURES),
    on_end: Callable[[str], None] = lambda line: None,
) -> Rehearsal:
    """Rehearse a submission on miniatures, and check it.

    Args:
        folder: The submission's folder.
        cache: The folder of compiled programs, kept for the next rehearsal.
        timeout: Seconds for the check, and for each miniature.
        miniatures: The names of the miniatures.
        on_end: Called with a line about each part that has ended.
    """
    processes = max(1, min(_PROCESSES, len(available_cores()) or os.cpu_count() or 1))
    with ThreadPoolExecutor(processes) as pool:
        check = pool.submit(check_in_subprocess, folder, timeout=timeout)
        parts: dict[Future, str] = {check: "tuning check"}
        parts |= {
            pool.submit(_in_process, folder, name, cache, timeout): name for name in miniatures
        }
        for number, ended in enumerate(as_completed(parts), start=1):
            errors = sum(finding.severity == "error" for finding in ended.result().findings)
            verdict = f"{errors} error{'s' if errors != 1 else ''}" if errors else "passed"
            on_end(f"{number} of {len(parts)}: {parts[ended]}: {verdict}")
    with contextlib.suppress(OSError):  # not there, or a process that was ended left its lock
        (cache / "cores").rmdir()
    results = tuple(part.result() for part in parts if part is not check)
    return Rehearsal(folder.name, results, check.result())


def _in_process(folder: Path, name: str, cache: Path, timeout: float) -> MiniatureResult:
    """Rehearse one miniature in a process; its crash or timeout is a finding."""
    with tempfile.TemporaryDirectory() as scratch:
        result, progress = Path(scratch) / "result.json", Path(scratch) / "progress"
        finding = run_module(
            "tuning.rehearsal", folder, name, result, progress, cache.resolve(),
            result=result, progress=progress, timeout=timeout, environment=_ENVIRONMENT,
        )  # fmt: skip
        if finding is not None:
            return MiniatureResult(workload=name, findings=(finding,))
        return read_model(result, MiniatureResult)


def _places(names: list[str], every: int) -> str:
    if len(names) == every > 1:
        return "all miniatures"
    return ", ".join(names)
