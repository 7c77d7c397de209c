"""Across hardware: ratios to a reference that ran on each, beside steps and gradient evaluations.

A second on one machine is not a second on another. The same reference, measured on both, is the
yardstick: a contender's cost in seconds over the reference's on the same hardware and workload.
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
from metaopt.bench.budget import CURRENCIES, Currency

Costs = Mapping[tuple[str, str], Mapping[Currency, float]]  # medians by (contender, workload)


@dataclasses.dataclass(frozen=True)
class OnHardware:
    """What was measured on one kind of hardware."""

    slug: str
    costs: Costs


def costs_by_hardware(campaigns: Sequence[Logs], view: View) -> list[OnHardware]:
    """Return median costs to target on each hardware, in all currencies.

    Args:
        campaigns: Logs. Where two have the same contender on the same workload and hardware, the
            later one's counts.
        view: Which costs.
    """
    found: dict[str, dict[tuple[str, str], dict[Currency, float]]] = {}
    for logs in campaigns:
        for slug in hardware_of(logs):
            here = HardwareChoice((slug,)).select(logs)
            tables = {currency: cost_table(here, currency) for currency in CURRENCIES}
            for pair in {(t.record.contender, t.record.workload) for t in here.trials}:
                found.setdefault(slug, {})[pair] = {
                    currency: tables[currency][pair].median(view) for currency in CURRENCIES
                }
    return [OnHardware(slug, found[slug]) for slug in sorted(found)]


def reference_ratio(
    costs: Costs, contender: str, workload: str, reference: str, currency: Currency = "seconds"
) -> float:
    """Return a contender's cost over the reference's, both on one kind of hardware.

    NaN where one of them was not measured, or where neither reached the target; inf where only the
    contender missed it, 0 where only the reference did.
    """
    mine, theirs = costs.get((contender, workload)), costs.get((reference, workload))
    if mine is None or theirs is None:
        return math.nan
    a, b = mine[currency], theirs[currency]
    if a == b:
        return 1.0 if math.isfinite(a) else math.nan
    return math.inf if b == 0 or math.isinf(a) else a / b


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
