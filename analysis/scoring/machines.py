"""Across hardware: speed over a reference's on the same machine, beside steps and gradients.

A second on one machine is not a second on another. Hardware is compared by seconds per gradient
evaluation without compilation (of AlgoPerf's logs: seconds per step), as a ratio to a reference
contender that ran on each.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from analysis.logs.hardware import Fingerprint, HardwareChoice, hardware_of
from analysis.logs.logs import Logs
from analysis.report.tables import Shown, Table
from analysis.scoring.costs import View, cost_table
from analysis.text import plain
from metaopt.bench.budget import Currency

Costs = Mapping[tuple[str, str], Mapping[Currency, float]]  # medians by (contender, workload)


@dataclasses.dataclass(frozen=True)
class OnHardware:
    """Measurements on one kind of hardware, by contender and workload.

    Attributes:
        slug: The hardware's.
        costs: Median costs to target in steps and gradient evaluations.
        seconds: Seconds per gradient evaluation without compilation; where there are none, absent.
    """

    slug: str
    costs: Costs
    seconds: Mapping[tuple[str, str], float]


def measure_hardware(campaigns: Sequence[Logs], view: View) -> list[OnHardware]:
    """Return costs and speeds on each hardware.

    Args:
        campaigns: Logs. Where two have the same contender on the same workload and hardware, the
            later one's counts.
        view: Which costs.
    """
    costs: dict[str, dict[tuple[str, str], dict[Currency, float]]] = {}
    seconds: dict[str, dict[tuple[str, str], float]] = {}
    for logs in campaigns:
        units: tuple[Currency, ...] = (
            ("steps", "gradient_evaluations") if logs.is_ours else ("steps",)
        )
        for slug in hardware_of(logs):
            here = HardwareChoice((slug,)).select(logs)
            tables = {unit: cost_table(here, unit) for unit in units}
            for pair in here.by_pair:
                costs.setdefault(slug, {})[pair] = {
                    unit: table[pair].median(view) for unit, table in tables.items()
                }
            seconds.setdefault(slug, {}).update(seconds_per_gradient(here))
    return [OnHardware(slug, costs[slug], seconds[slug]) for slug in sorted(costs)]


def seconds_per_gradient(logs: Logs) -> dict[tuple[str, str], float]:
    """Return seconds per gradient evaluation without compilation, by contender and workload.

    AlgoPerf's logs count no gradient evaluations and no compilation: seconds per step, all in.
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
    """Return a contender's speed over the reference's on one hardware; NaN if one is not known."""
    mine, theirs = seconds.get((contender, workload)), seconds.get((reference, workload))
    return mine / theirs if mine is not None and theirs else math.nan


def across_hardware_table(measured: Sequence[OnHardware], reference: str) -> Table:
    """Return one row per workload and contender, with three columns per hardware.

    Raises:
        ValueError: The reference was not measured anywhere.
    """
    pairs = sorted({pair for part in measured for pair in part.costs}, key=lambda p: (p[1], p[0]))
    known = sorted({contender for contender, _ in pairs})
    if reference not in known:
        raise ValueError(f"No runs of the reference {reference!r}, only of {known}.")
    rows = []
    for contender, workload in pairs:
        cells = []
        for part in measured:
            costs = part.costs.get((contender, workload))
            ratio = reference_ratio(part.costs, contender, workload, reference)
            cells.append(_number(ratio))
            cells += [
                _number(math.nan if costs is None else costs[unit])
                for unit in ("steps", "gradient_evaluations")
            ]
        rows.append((plain(workload), plain(contender), *cells))
    columns = ("seconds, ratio", "steps", "gradient evaluations")
    header = ("workload", "contender")
    header += tuple(f"{part.slug}: {column}" for part in measured for column in columns)
    caption = (
        f"Median cost to target on each hardware: seconds over those of {plain(reference)} on the "
        "same hardware, steps, and gradient evaluations; ∞ where the target was not reached, empty "
        "where it was not run, or where the ratio is of two misses."
    )
    return Table(caption, header, tuple(rows), keys=2)


def _number(value: float) -> Shown:
    if math.isnan(value):
        return Shown("", None)
    if math.isinf(value):
        return Shown("∞", None)
    return Shown(f"{value:,.0f}" if value >= 100 else f"{value:.3g}", value)


def hardware_table(campaigns: Sequence[Logs]) -> Table:
    """Return every fingerprint with what it stands for."""
    found: dict[str, Fingerprint] = {}
    trials: Counter[str] = Counter()
    for logs in campaigns:
        for slug, fingerprint in hardware_of(logs).items():
            found[slug] = fingerprint
            trials[slug] += len(HardwareChoice((slug,)).select(logs).trials)
    rows = tuple((*fingerprint_row(found[slug]), f"{trials[slug]:,}") for slug in sorted(found))
    return Table("Hardware of the runs", (*FINGERPRINT_HEADER, "trials"), rows)


FINGERPRINT_HEADER = (
    "hardware", "processor", "accelerators", "memory, GiB", "precision", "XLA flags", "software",
)  # fmt: skip


def fingerprint_row(fingerprint: Fingerprint) -> tuple[str, ...]:
    """Return what a fingerprint stands for, as :data:`FINGERPRINT_HEADER` names it."""
    f = fingerprint
    software = f.software | ({"driver": f.driver} if f.driver else {})
    return (
        f.slug,
        plain(f"{f.processor} x {f.processor_count or '?'}"),
        plain(", ".join(f"{n} x {kind}" for kind, n in Counter(f.devices).items()) or "none"),
        "?" if f.memory_gib is None else f"{f.memory_gib}",
        plain(_listed(f.precision) or "default"),
        plain(f.xla_flags or "none"),
        plain(_listed(software)),
    )


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
