"""Tables of hardware: the properties behind each fingerprint, and costs on each hardware."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.logs.hardware import Fingerprint, fingerprints, hardware_of
from analysis.logs.logs import Logs
from analysis.report.marks import Marks
from analysis.report.table import COST, COUNT, Column, Table, number_format
from analysis.scoring.machines import HardwareMeasurements, reference_ratio

_COLUMNS = (
    Column("hardware"), Column("processor"), Column("accelerators"),
    Column("memory, GiB", COUNT), Column("precision"), Column("XLA flags"),
    Column("software"),
)  # fmt: skip
_RATIO, _SECONDS = number_format(".3g"), number_format(".3g")


def hardware_table(campaigns: Sequence[Logs]) -> Table:
    """Return every fingerprint in logs, with its number of trials."""
    found: dict[str, Fingerprint] = {}
    trials: Counter[str] = Counter()
    for logs in campaigns:
        found |= hardware_of(logs)
        trials.update(one.slug for one in fingerprints(logs))
    rows = tuple((*_row(found[slug]), trials[slug]) for slug in sorted(found))
    columns = (*_COLUMNS, Column("trials", COUNT))
    return Table("Hardware of the runs", columns, rows, "hardware")


def fingerprints_table(found: Iterable[Fingerprint]) -> Table:
    """Return the hardware behind each short name."""
    by_slug = {one.slug: one for one in found}
    rows = tuple(_row(by_slug[slug]) for slug in sorted(by_slug))
    return Table("The hardware by the names that other tables use.", _COLUMNS, rows, "hardware")


def _row(f: Fingerprint) -> tuple[Any, ...]:
    software = f.software | ({"driver": f.driver} if f.driver else {})
    return (
        f.slug,
        f"{f.processor} x {f.processor_count or '?'}",
        ", ".join(f"{n} x {kind}" for kind, n in Counter(f.devices).items()) or "none",
        f.memory_gib,
        _listed(f.precision) or "default",
        f.xla_flags or "none",
        _listed(software),
    )


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def across_hardware_table(
    measured: Sequence[HardwareMeasurements], reference: str | None, marks: Marks
) -> Table:
    """Return one row per workload and contender, with a group of columns per hardware.

    Args:
        measured: The measurements.
        reference: The contender to divide the others' seconds by; ``None`` for no such column.
        marks: The marks of contenders.

    Raises:
        ValueError: There are no measurements of the reference.
    """
    pairs = sorted({pair for part in measured for pair in part.costs}, key=lambda p: (p[1], p[0]))
    known = sorted({contender for contender, _ in pairs})
    if reference is not None and reference not in known:
        raise ValueError(f"No runs of the reference {reference!r}, only of {known}.")
    columns, parts = [Column("workload"), Column("contender", marks.format)], []
    for part in measured:
        units = [unit for unit in ("steps", "gradient_evaluations")
                 if any(unit in costs for costs in part.costs.values())]  # fmt: skip
        per = "gradient evaluation" if "gradient_evaluations" in units else "step"
        if part.seconds:
            columns.append(Column(f"{part.slug}: seconds per {per}", _SECONDS))
            if reference is not None:
                columns.append(Column(f"{part.slug}: ratio", _RATIO))
        columns += [Column(f"{part.slug}: {unit.replace('_', ' ')}", COST) for unit in units]
        parts.append((part, units))
    rows = []
    for contender, workload in pairs:
        row: list[Any] = [workload, contender]
        for part, units in parts:
            if part.seconds:
                row.append(part.seconds.get((contender, workload)))
                if reference is not None:
                    row.append(reference_ratio(part.seconds, contender, workload, reference))
            costs = part.costs.get((contender, workload), {})
            row += [costs.get(unit) for unit in units]
        rows.append(tuple(row))
    over = "" if reference is None else f" Ratio: over those of {reference} on the same hardware."
    caption = (
        "On each hardware: seconds per gradient evaluation without compilation (of AlgoPerf's "
        f"logs: per step, with compilation), and median costs to target.{over} Empty: it was not "
        "run there, or not measured."
    )
    return Table(caption, tuple(columns), tuple(rows), "across_hardware", keys=2, notes=marks.notes)
