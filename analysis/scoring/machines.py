"""Costs and speeds on different hardware.

Seconds are not comparable between machines. Hardware is compared by seconds per gradient evaluation
without compilation (seconds per step for AlgoPerf's logs), relative to a reference contender that
ran on all of the machines.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from analysis.logs.hardware import HardwareChoice, hardware_of
from analysis.logs.logs import Logs
from analysis.scoring.costs import View, costs_by_pair
from metaopt.bench.measure.budget import Currency

MediansByPair = Mapping[
    tuple[str, str], Mapping[Currency, float]
]  # medians by (contender, workload)


@dataclasses.dataclass(frozen=True)
class HardwareMeasurements:
    """Measurements on one kind of hardware, by contender and workload.

    Attributes:
        slug: The slug of the hardware.
        costs: Median costs to target in steps and gradient evaluations.
        seconds: Seconds per gradient evaluation without compilation, for pairs with any.
    """

    slug: str
    costs: MediansByPair
    seconds: Mapping[tuple[str, str], float]


def measure_hardware(campaigns: Sequence[Logs], view: View) -> list[HardwareMeasurements]:
    """Return costs and speeds on each hardware.

    Args:
        campaigns: The logs. If two hold the same contender on the same workload and hardware, the
            later one counts.
        view: The view of the costs.
    """
    costs: dict[str, dict[tuple[str, str], dict[Currency, float]]] = {}
    seconds: dict[str, dict[tuple[str, str], float]] = {}
    for logs in campaigns:
        units: tuple[Currency, ...] = (
            ("steps", "gradient_evaluations") if logs.is_ours else ("steps",)
        )
        for slug in hardware_of(logs):
            here = HardwareChoice((slug,)).select(logs)
            tables = {unit: costs_by_pair(here, unit) for unit in units}
            for pair in here.by_pair:
                mine = costs.setdefault(slug, {}).setdefault(pair, {})
                mine.update((unit, tables[unit][pair].median(view)) for unit in units)
            seconds.setdefault(slug, {}).update(seconds_per_gradient(here))
    return [HardwareMeasurements(slug, costs[slug], seconds[slug]) for slug in sorted(costs)]


def seconds_per_gradient(logs: Logs) -> dict[tuple[str, str], float]:
    """Return seconds per gradient evaluation without compilation, by contender and workload.

    AlgoPerf's logs hold neither gradient evaluations nor compilation times; for them, the result is
    seconds per step with compilation.
    """
    found = {}
    for pair, trials in logs.by_pair.items():
        ledgers = [trial.record.ledger for trial in trials if trial.record.ledger.cost.steps > 0]
        seconds = sum(
            one.cost.seconds - getattr(one, "compilation_seconds", 0.0) for one in ledgers
        )
        unit: Currency = "gradient_evaluations" if logs.is_ours else "steps"
        count = sum(one.cost.amount(unit) for one in ledgers)
        if count > 0:
            found[pair] = seconds / count
    return found


def reference_ratio(
    seconds: Mapping[tuple[str, str], float], contender: str, workload: str, reference: str
) -> float:
    """Return a contender's seconds over the reference's on one machine; NaN if unknown."""
    mine, theirs = seconds.get((contender, workload)), seconds.get((reference, workload))
    return mine / theirs if mine is not None and theirs else math.nan
