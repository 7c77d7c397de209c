"""The rule that only the batch size may depend on the workload's name, tested by an experiment.

The same steps are taken on the same data under other names. As under AlgoPerf, a submission can get
the name from ``get_batch_size`` and from the workload's class. The batch size stays that of the
true name.
"""

import contextlib
import random
import string
from collections.abc import Iterator
from typing import Any

import jax

from metaopt.bench.contract.facade import Facade
from metaopt.bench.records.audit import DEVIATION, ROUNDING
from metaopt.bench.records.failures import describe
from metaopt.bench.records.findings import Problem, Rule
from metaopt.bench.rules.checked_submission import CheckedSubmission
from metaopt.bench.rules.dry_run import DryRun, StepRunner
from metaopt.bench.rules.rule_lists import rule
from metaopt.bench.trial.audits.counting import norm

_STEPS = 2
# Names to try, with the classes that AlgoPerf's workloads of these names have; and a random name.
_TRIED = {
    "wmt": "WmtWorkload",
    "ogbg": "OgbgWorkload",
    "librispeech_conformer": "LibriSpeechConformerWorkload",
    "breast_cancer_logistic": "Facade",
}

NAME_RULES: list[Rule] = []


@rule(NAME_RULES, "workload-branches", "only the batch size depends on the workload's name")
def _dependence_on_the_name(run: DryRun) -> Iterator[Problem]:
    submission, true_name = run.submission, run.workload.name
    fresh = DryRun(submission, run.workload)  # used only for its crashes
    start, expected = StepRunner(fresh).take(_STEPS)
    distance = norm(_difference(start, expected))
    allowed = DEVIATION * distance + ROUNDING * norm(expected)
    _, again = StepRunner(fresh).take(_STEPS)
    if not norm(_difference(expected, again)) <= allowed:
        return  # steps do not depend on their arguments alone: the rule `replay` reports this
    unknown = "".join(random.choices(string.ascii_lowercase, k=8))
    for name, class_name in {**_TRIED, unknown: f"{unknown.title()}Workload"}.items():
        submission.on_start(f"a step under the name {name!r}")
        runner = StepRunner(fresh, _facade_type(name, class_name))  # asks for the true batch size
        try:
            with _told(submission, name, true_name):
                _, found = runner.take(_STEPS)
        except (Exception, SystemExit) as error:
            raised = fresh.crash[1] if fresh.crash else error
            yield _problem(submission, true_name, name, f"raises {describe(raised)}")
            return
        deviation = norm(_difference(expected, found))
        if not deviation <= allowed:
            what = (
                f"takes other steps: after a distance of {distance:.2g}, the parameters differ by "
                f"{deviation:.2g}"
            )
            yield _problem(submission, true_name, name, what)
            return


def _problem(submission: CheckedSubmission, true_name: str, name: str, what: str) -> Problem:
    return Problem(
        f"on {true_name} under the name {name!r}, the submission {what}",
        submission.where("update_params"),
        "Use only public properties of workloads (shapes, loss_type, step_hint): only "
        "get_batch_size may depend on the workload's name.",
    )


@contextlib.contextmanager
def _told(submission: CheckedSubmission, name: str, true_name: str) -> Iterator[None]:
    """Call ``get_batch_size`` with another name, and on exit with the true name."""
    _ask(submission, name)
    try:
        yield
    finally:
        _ask(submission, true_name)


def _ask(submission: CheckedSubmission, name: str) -> None:
    with contextlib.suppress(Exception, SystemExit):  # reported by a rule of its own
        submission.module.get_batch_size(name)  # type: ignore[union-attr]


def _facade_type(name: str, class_name: str) -> type[Facade]:
    """Return a facade class with the name and module of AlgoPerf's workload class."""
    module = f"algoperf.workloads.{name}.{name}_jax.workload"
    return type(class_name, (Facade,), {"__module__": module, "__qualname__": class_name})


def _difference(one: Any, other: Any) -> list[Any]:
    return [a - b for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)]
