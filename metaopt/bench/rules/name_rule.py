"""The rule that only the batch size depends on which workload it is: an experiment.

The same steps on the same data are taken under other names. A submission learns the name from
``get_batch_size`` and from the workload's class, here as with AlgoPerf. The batch size stays that
of the true name.
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
from metaopt.bench.records.findings import Problem
from metaopt.bench.rules.checked_submission import Subject
from metaopt.bench.rules.dry_run import Walker, workload_of
from metaopt.bench.trial.audits.counting import norm

_STEPS = 2
# Names to try, with the classes that AlgoPerf's workloads of these names have; and a random name.
_TRIED = {
    "wmt": "WmtWorkload",
    "ogbg": "OgbgWorkload",
    "librispeech_conformer": "LibriSpeechConformerWorkload",
    "breast_cancer_logistic": "Facade",
}


def find_dependence_on_names(subject: Subject) -> Iterator[Problem]:
    """Under another name the same steps give the same parameters."""
    if subject.walk is None or not subject.walk.complete:
        return
    true_name = workload_of(subject).name
    start, expected = Walker(subject).take(_STEPS)
    moved = norm(_difference(start, expected))
    allowed = DEVIATION * moved + ROUNDING * norm(expected)
    _, again = Walker(subject).take(_STEPS)
    if not norm(_difference(expected, again)) <= allowed:
        return  # it does not depend on its arguments alone, which is the rule `replay`
    unknown = "".join(random.choices(string.ascii_lowercase, k=8))
    for name, class_name in {**_TRIED, unknown: f"{unknown.title()}Workload"}.items():
        subject.say(f"a step under the name {name!r}")
        walker = Walker(subject, _facade_type(name, class_name))  # asks for the true batch size
        try:
            with _told(subject, name):
                _, found = walker.take(_STEPS)
        except (Exception, SystemExit) as error:
            raised = walker.walk.crash[1] if walker.walk.crash else error
            yield _problem(subject, true_name, name, f"raises {describe(raised)}")
            return
        apart = norm(_difference(expected, found))
        if not apart <= allowed:
            what = (
                f"moves the parameters elsewhere: {apart:.2g} away after a distance of {moved:.2g}"
            )
            yield _problem(subject, true_name, name, what)
            return


def _problem(subject: Subject, true_name: str, name: str, what: str) -> Problem:
    return Problem(
        f"on {true_name} under the name {name!r}, the submission {what}",
        subject.where("update_params"),
        "Decide by what every workload tells about its problem (shapes, loss_type, step_hint), or "
        "not at all: only get_batch_size may depend on which workload it is.",
    )


@contextlib.contextmanager
def _told(subject: Subject, name: str) -> Iterator[None]:
    """Ask for the batch size of another name, and at the end for that of the true one."""
    _ask(subject, name)
    try:
        yield
    finally:
        _ask(subject, workload_of(subject).name)


def _ask(subject: Subject, name: str) -> None:
    with contextlib.suppress(Exception, SystemExit):  # has a rule of its own
        subject.module.get_batch_size(name)  # type: ignore[union-attr]


def _facade_type(name: str, class_name: str) -> type[Facade]:
    """Return a class of facades whose name and module are those of AlgoPerf's workload."""
    module = f"algoperf.workloads.{name}.{name}_jax.workload"
    return type(class_name, (Facade,), {"__module__": module, "__qualname__": class_name})


def _difference(one: Any, other: Any) -> list[Any]:
    return [a - b for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)]
