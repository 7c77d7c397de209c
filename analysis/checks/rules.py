"""The type of a rule on logs, and the list of all rules.

A rule is a function with its text beside it. It takes :class:`~analysis.logs.logs.Logs` and yields
a place and a sentence for each problem. The reader notes some problems itself, as oddities under a
rule's id. A rule may have such oddities, a function, or both.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from analysis.logs.logs import Logs
from metaopt.bench.records.findings import Severity

Find = Callable[[Logs], Iterable[tuple[str, str]]]


@dataclasses.dataclass(frozen=True)
class LogRule:
    """One rule on logs.

    Attributes:
        id: The stable name of the rule, for settings and tests.
        title: A sentence that holds for good logs.
        means: The consequence of a problem.
        fix: The remedy.
        severity: The severity of a problem for `validate` and `verify`.
        strict: The severity of a problem for `submit`.
        find: The function that yields problems; ``None`` if the reader notes all of them.
    """

    id: str
    title: str
    means: str
    fix: str
    severity: Severity
    strict: Severity
    find: Find | None = None

    def problems(self, logs: Logs) -> Iterator[tuple[str, str]]:
        """Yield the place and the sentence of each problem, those of the reader first."""
        for oddity in logs.oddities:
            if oddity.rule == self.id:
                yield oddity.where, oddity.what
        if self.find is not None:
            yield from self.find(logs)


RULES: list[LogRule] = []  # in the order of the report


def rule(
    id: str,
    title: str,
    *,
    means: str,
    fix: str,
    severity: Severity = "error",
    strict: Severity | None = None,
) -> Callable[[Find], Find]:
    """Add the decorated function to the list; ``strict`` is ``severity`` by default."""

    def register(find: Find) -> Find:
        RULES.append(LogRule(id, title, means, fix, severity, strict or severity, find))
        return find

    return register


def oddity_rule(id: str, title: str, *, means: str, fix: str, severity: Severity = "error") -> None:
    """Add a rule without a function: the reader notes all of its problems."""
    RULES.append(LogRule(id, title, means, fix, severity, severity))
