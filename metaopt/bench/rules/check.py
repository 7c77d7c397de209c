"""Apply the rules to a submission, here or in a process of its own.

A process of its own can be ended when the submission never returns, and survives nothing that kills
it; what the submission prints is not mixed with what is found.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metaopt.bench.contract.loading import SPACE_FILE
from metaopt.bench.records.findings import Finding, Problem, Rule
from metaopt.bench.rules.checked_submission import Subject
from metaopt.bench.rules.file_rules import (
    find_unknown_hyperparameters,
    find_unreadable_spaces,
    find_workload_spaces,
    find_wrong_ruleset,
    space_problems,
)
from metaopt.bench.rules.module_rules import (
    find_failing_import,
    find_missing_functions,
    find_newer_requirements,
    find_unreadable_source,
    find_wrong_arguments,
    find_wrong_order,
)
from metaopt.bench.trial.environment import CHECKOUT

DEFAULT_TIMEOUT_SECONDS = 120.0
# Where one of these is broken, nothing more can be learned from running the submission.
_FIRST = ("source", "import", "functions", "arguments", "arguments-order", "timeout", "crash")
# Where one of these is broken, there is no point of the search space to run it with.
_NO_POINT = (
    "workload-spaces", "space-json", "space-form", "space-names", "space-scalar", "space-range",
    "space-points",
)  # fmt: skip
_NEED_STEPS = (
    "batch-size", "crash", "state", "state-checkpoint", "return", "params", "recompilation",
    "early-return", "workload-branches",
)  # fmt: skip
# Where one of these is broken, the runner refuses the trial that these rules audit.
_REFUSED = ("batch-size", "state-checkpoint")
_NEED_TRIAL = ("passes", "set-up", "replay", "fresh-start")


def _running(module: str, name: str, *arguments: Any) -> Callable[[Subject], Any]:
    """Return a rule that runs the submission; its module is imported, with JAX, when it is applied.

    Args:
        module: In this package.
        name: A function of a subject; with ``arguments`` one that returns such a function.
        arguments: Of the function.
    """

    def find(subject: Subject) -> Any:
        if subject.module is None:
            return ()
        found = getattr(importlib.import_module(f"metaopt.bench.rules.{module}"), name)
        return (found(*arguments) if arguments else found)(subject)

    return find


def _found_outside(subject: Subject) -> Any:
    """Nothing: what never returns is found from another process."""
    del subject
    return ()


RULES = (
    Rule("source", "submission.py is there and is Python", find_unreadable_source),
    Rule("import", "the module can be imported", find_failing_import),
    Rule("functions", "the functions of the contract are there", find_missing_functions),
    Rule("arguments", "functions take the runner's arguments", find_wrong_arguments),
    Rule("arguments-order", "arguments stand in AlgoPerf's order", find_wrong_order),
    Rule("workload-spaces", "one search space serves all workloads", find_workload_spaces),
    Rule("requirements", "AlgoPerf's versions meet requirements.txt", find_newer_requirements),
    Rule("ruleset", "external tuning has a search space, self-tuning none", find_wrong_ruleset),
    Rule("space-json", "search spaces are JSON with unique names", find_unreadable_spaces),
    Rule("space-form", "entries are ranges, lists of values or points", space_problems("form")),
    Rule("space-names", "hyperparameters have Python identifiers", space_problems("names")),
    Rule("space-scalar", "feasible_points are lists", space_problems("scalar")),
    Rule("space-range", "no range is empty, no log scale has 0", space_problems("range")),
    Rule("space-points", "all points have the same hyperparameters", space_problems("points")),
    Rule("space-defaults", "DEFAULTS has every hyperparameter", find_unknown_hyperparameters),
    Rule("batch-size", "get_batch_size returns a number or raises ValueError",
         _running("step_rules", "find_wrong_batch_size")),
    Rule("crash", "no function raises", _running("step_rules", "find_crash")),
    Rule("timeout", "every function returns", _found_outside),
    Rule("state", "the optimizer state is a pytree and a function",
         _running("step_rules", "find_wrong_state")),
    Rule("state-checkpoint", "the state survives AlgoPerf's checkpoints",
         _running("step_rules", "find_state_without_checkpoint")),
    Rule("return", "steps return state, parameters and model state",
         _running("step_rules", "find_wrong_return")),
    Rule("params", "parameters keep structure, shapes and dtypes",
         _running("step_rules", "find_changed_params")),
    Rule("recompilation", "a step is compiled once", _running("step_rules", "find_recompilation")),
    Rule("early-return", "a step returns when the device is done",
         _running("step_rules", "find_early_return")),
    Rule("workload-branches", "only the batch size depends on the workload's name",
         _running("name_rule", "find_dependence_on_names")),
    Rule("passes", "what is charged covers the passes through the model",
         _running("audit_rules", "audit_problems", "passes")),
    Rule("set-up", "passes of init_optimizer_state are declared",
         _running("audit_rules", "audit_problems", "set-up")),
    Rule("replay", "a step depends on its arguments alone",
         _running("audit_rules", "audit_problems", "replay")),
    Rule("fresh-start", "trials and episodes start from fresh parameters",
         _running("audit_rules", "audit_problems", "fresh-start")),
)  # fmt: skip


def check(
    folder: Path,
    *,
    workload: Any = None,
    importing: bool = True,
    say: Callable[[str], None] = lambda doing: None,
) -> list[Finding]:
    """Return what the rules find in a submission, in the order of the rules.

    The submission runs in this process: it may print, and it may never return.

    Args:
        folder: The submission's.
        workload: What the steps are taken on; by default ``digits_mlp``.
        importing: Whether to import it; if not, only its text and files are looked at.
        say: Told what runs next.
    """
    subject = Subject(folder, workload=workload, importing=importing, say=say)
    return [finding for rule in RULES for finding in rule.check(subject)]


def rules_left_out(found: list[Finding]) -> list[str]:
    """Return the rules that were not applied, because errors of others come before them."""
    errors = [finding for finding in found if finding.severity == "error"]
    broken = {finding.rule for finding in errors}
    no_point = any(e.where == SPACE_FILE and e.rule in _NO_POINT for e in errors)
    if not broken & set(_FIRST) and not no_point:
        return [*_NEED_TRIAL] if broken & set(_REFUSED) else []
    # The batch size is asked for whatever else raises.
    asked = {"batch-size"} if broken & set(_FIRST) <= {"crash"} else set()
    needed = [*_NEED_STEPS, *_NEED_TRIAL]
    return [name for name in needed if name not in broken | asked]


def check_apart(
    folder: Path, *, timeout: float = DEFAULT_TIMEOUT_SECONDS, python: Sequence[str] = ()
) -> list[Finding]:
    """Return what the rules find in a submission that runs in a process of its own.

    If that process does not come to its end, what did not return or what killed it is a finding,
    beside what the text and the files alone show.

    Args:
        folder: The submission's.
        timeout: Seconds for all of it, the import of JAX included.
        python: The interpreter's command; by default this one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report, doing = Path(scratch) / "findings.json", Path(scratch) / "doing"
        command = [*(python or [sys.executable]), "-m", "metaopt.bench.rules"]
        paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            ended = subprocess.run(
                [*command, str(folder), str(report), str(doing)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            broken = (
                "timeout",
                Problem(
                    f"{_read(doing)} had not returned when {timeout:g} s were up",
                    "submission.py",
                    "Look for a loop without an end or for work that belongs on the accelerator; "
                    "give a slow but finite submission more time with --timeout.",
                ),
            )
        else:
            if report.exists():
                return [Finding(**entry) for entry in json.loads(report.read_text("utf-8"))]
            said = (ended.stderr.strip().splitlines() or ["nothing"])[-1]
            broken = (
                "crash",
                Problem(
                    f"{_read(doing)} ended the process with exit code {ended.returncode}; "
                    f"its last words: {said[:200]}",
                    "submission.py",
                    "Raise an exception instead of ending the process; where compiled code did it, "
                    "look for too much memory.",
                ),
            )
    rule, problem = broken
    found = check(folder, importing=False)
    order = [entry.id for entry in RULES]
    outside = Rule(rule, "", lambda _: [problem]).check(None)
    return sorted([*found, *outside], key=lambda finding: order.index(finding.rule))


def write_findings(folder: Path, report: Path, doing: Path) -> None:
    """Check a submission and write what is found, and before that what is being done."""
    found = check(folder, say=lambda text: _write(doing, text))
    _write(report, json.dumps([dataclasses.asdict(finding) for finding in found]))


def _write(path: Path, text: str) -> None:
    """Write a file that whoever reads it finds whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else "the start of the interpreter"
