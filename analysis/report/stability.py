"""The table of a measurement of sequential stability, Figure 3 of the paper.

Letters and Definition 3 as in :mod:`metaopt.bench.records.stability`.
"""

import dataclasses
from typing import Any

from analysis.report.table import COUNT, Column, Table, number_format
from metaopt.bench.records.stability import StabilityRecord, StabilityResult


def stability_table(record: StabilityRecord) -> Table:
    """Return one row for each setting: constants, fit, largest norms, and whether they decay."""
    last = record.steps - 1
    shown = sorted({0, min(1, last), last // 4, last // 2, last})
    columns = (
        Column("setting"), Column("data"), Column("d", COUNT),
        *(Column(name, number_format("g")) for name in ("eta", "delta", "beta")),
        Column("age", COUNT),
        Column("kappa", number_format(".2f")), Column("mean's", number_format(".2f")),
        Column("gamma", number_format(".3f")),
        *(Column(f"gap {gap}", number_format(".3f")) for gap in shown), Column("Assumption 2"),
    )  # fmt: skip
    rows = tuple(_row(result, shown, record.trials) for result in record.settings)
    caption = (
        f"Products of transitions, {record.trials} trials, {record.steps} steps: d parameters; "
        "age of the gradient, 1 as printed, 0 as in Algorithm 7; kappa and gamma of Definition 3, "
        "fitted to all trials, and the kappa of the mean over trials; the largest norm of all "
        "trials at each gap |r - s|. Assumption 2 holds if at some gap all norms are below 1; "
        "otherwise the steps show no decay."
    )
    return Table(caption, columns, rows, "stability")


def stability_summary(record: StabilityRecord) -> Table:
    """Return the columns of :func:`stability_table` that fit into a terminal."""
    whole = stability_table(record)
    names = ("setting", "eta", "delta", "beta", "kappa", "gamma", "Assumption 2")
    summary = whole.with_columns([whole.header.index(name) for name in names])
    caption = (
        f"Products of transitions, {record.trials} trials, {record.steps} steps. kappa and gamma "
        "of Definition 3, fitted to all trials. Assumption 2 holds if at some gap all norms are "
        "below 1; otherwise the steps show no decay. More in the report."
    )
    return dataclasses.replace(summary, caption=caption)


def _row(result: StabilityResult, shown: list[int], trials: int) -> tuple[Any, ...]:
    setting, rows = result.setting, result.measured
    diverged = len(result.norms) - len(rows)
    if len(result.norms) < trials:
        verdict = f"unfinished ({len(result.norms)}/{trials})"
    elif diverged:
        verdict = f"{diverged} diverged"
    else:
        verdict = "yes" if result.decays else "not shown"
    return (
        setting.label,
        setting.workload,
        result.parameters,
        setting.eta,
        setting.delta,
        setting.beta,
        setting.gradient_age,
        result.kappa,
        result.mean_kappa,
        result.gamma,
        *(max(row[gap] for row in rows) if rows else None for gap in shown),
        verdict,
    )
