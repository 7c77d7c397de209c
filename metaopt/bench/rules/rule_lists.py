"""Lists of rules, to which decorated functions are added."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from metaopt.bench.records.findings import Problem, Rule

Find = TypeVar("Find", bound=Callable[[Any], Iterable[Problem]])


def rule(rules: list[Rule], id: str, title: str) -> Callable[[Find], Find]:
    """Add the decorated function, which yields the problems that it finds, to ``rules``.

    Args:
        rules: The list, in the order of reports.
        id: The rule's stable name.
        title: The requirement, as a sentence.
    """

    def add(find: Find) -> Find:
        rules.append(Rule(id, title, find))
        return find

    return add
