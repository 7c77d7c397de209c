"""Apply the rules to a workload: the contract that runners and submissions rely on."""

import functools
import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.records.failures import describe
from metaopt.bench.records.findings import Finding, Problem, Rule
from metaopt.bench.rules.workload_loss_rules import LOSS_RULES
from metaopt.bench.rules.workload_rules import INTERFACE_RULES, find_missing_parts, problem


def _guarded(find: Callable[[Any], Iterable[Problem]]) -> Callable[[Any], Iterator[Problem]]:
    """Return a rule that reports exceptions as problems and skips incomplete workloads."""

    def find_or_report(workload: Any) -> Iterator[Problem]:
        if any(find_missing_parts(workload)):
            return
        try:
            with pinned_randomness():
                yield from find(workload)
        except Exception as error:  # from any function of the workload
            place = traceback.extract_tb(error.__traceback__)[-1]
            fix = f"See {Path(place.filename).name}:{place.lineno}, in {place.name}."
            yield problem(workload, f"it raises {describe(error)}", fix)

    return find_or_report


WORKLOAD_RULES = (
    INTERFACE_RULES[0],
    *(Rule(r.id, r.title, _guarded(r.find)) for r in (*INTERFACE_RULES[1:], *LOSS_RULES)),
)


def load_workload(name: str) -> Any:
    """Return a workload by its name in the registry, or an object as ``package.module:object``.

    Raises:
        ValueError: There is no such workload, module or object.
    """
    module, colon, path = name.partition(":")
    if not colon:
        from metaopt.workloads.registry import get_workload

        return get_workload(name)
    try:
        return functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"No workload {name!r}: {describe(error)}") from None


def check_workload(workload: Any) -> list[Finding]:
    """Return the findings of all rules in a workload."""
    return [finding for rule in WORKLOAD_RULES for finding in rule.check(workload)]
