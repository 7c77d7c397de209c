"""Rules and their findings, for submissions, workloads and logs. Nothing here needs JAX."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "note"]


class Problem(NamedTuple):
    """A violation of a rule by a submission, a workload or logs."""

    what: str
    where: str  # "file:line", relative to the folder; the name of a workload
    fix: str  # a sentence that its author can act on
    severity: Severity = "error"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A problem under the name of its rule: plain data, what ``--format json`` prints."""

    rule: str
    severity: Severity
    what: str
    where: str
    fix: str


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: Stable: reports, tests and other people's settings name it.
        title: The requirement, as a sentence.
        find: Yields the problems of a submission, of a workload, or of logs.
    """

    id: str
    title: str
    find: Callable[[Any], Iterable[Problem]]

    def check(self, subject: Any) -> list[Finding]:
        """Return the findings of this rule."""
        return [
            Finding(self.id, problem.severity, problem.what, problem.where, problem.fix)
            for problem in self.find(subject)
        ]
