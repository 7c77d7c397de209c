"""Apply the rules to a submission in a separate process.

The process can be ended if the submission never returns, a crash of the process is a finding, and
the submission's output is kept apart from the findings.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from metaopt.bench.contract.loading import SUBMISSION_FILE
from metaopt.bench.records import write_text
from metaopt.bench.records.findings import Finding
from metaopt.bench.rules.check import RULES, TIMEOUT, Report, check
from metaopt.bench.trial.environment import CHECKOUT

DEFAULT_TIMEOUT_SECONDS = 120.0


def check_in_subprocess(folder: Path, *, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> Report:
    """Return the findings of all rules in a submission that runs in a separate process.

    If the process never returns or crashes, the report has that finding and those in the text and
    the files.

    Args:
        folder: The submission's folder.
        timeout: Seconds for the whole check, the import of JAX included.
    """
    if not (folder / SUBMISSION_FILE).is_file():
        return check(folder)
    with tempfile.TemporaryDirectory() as scratch:
        report, progress = Path(scratch) / "report.json", Path(scratch) / "progress"
        finding = run_module(
            "metaopt.bench.rules", folder, report, progress, result=report, progress=progress,
            timeout=timeout,
        )  # fmt: skip
        if finding is None:
            return _from_json(report.read_text("utf-8"))
    return _with_finding(check(folder, importing=False), finding)


def run_module(
    module: str,
    *arguments: object,
    result: Path,
    progress: Path,
    timeout: float,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Finding | None:
    """Run a module that calls a submission in a separate process; ``None`` if it left its result.

    Args:
        module: The module, as for ``python -m``.
        arguments: Its arguments.
        result: The file that it writes last.
        progress: The file in which it describes each step before it begins.
        timeout: Seconds for the process.
        environment: Variables in addition to those of this process.

    Returns:
        The finding that the process did not return in time, or that it ended without the result.
    """
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return Finding(
            TIMEOUT.id,
            "error",
            f"{_read_progress(progress)} had not returned after {timeout:g} s",
            "submission.py",
            "Look for an endless loop, or for work that belongs on the accelerator. Give a "
            "slow but finite submission more time with --timeout.",
        )
    if result.exists():
        return None
    last = (ended.stderr.strip().splitlines() or ["nothing"])[-1]
    return Finding(
        "crash",
        "error",
        f"{_read_progress(progress)} ended the process with exit code {ended.returncode}; "
        f"its last output: {last[:200]}",
        "submission.py",
        "Raise an exception instead of ending the process. If compiled code ended it, look "
        "for too much memory.",
    )


def write_report(folder: Path, report: Path, progress: Path) -> None:
    """Check a submission; write a description of each step before it begins, and then the report.

    Args:
        folder: The submission's folder.
        report: The file of the report, written at the end.
        progress: The file of the current step's description.
    """
    found = check(folder, on_start=lambda description: write_text(progress, description))
    write_text(report, json.dumps(dataclasses.asdict(found)))


def _from_json(text: str) -> Report:
    document = json.loads(text)
    findings = [Finding(**finding) for finding in document["findings"]]
    return Report(findings, document["not_applied"])


def _with_finding(report: Report, finding: Finding) -> Report:
    """Return a report with one more finding, in the order of the rules."""
    order = [rule.id for rule in RULES]
    findings = sorted([*report.findings, finding], key=lambda found: order.index(found.rule))
    return Report(findings, [rule for rule in report.not_applied if rule != finding.rule])


def _read_progress(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else "the start of the interpreter"
