"""The tables of docs/beyond.md, from the leaderboard's CSV files and records.

Costs are medians over studies, including tuning, in gradient evaluations; a miss counts as the
budget.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tuning.campaign import read_campaign

ROOT = Path(__file__).resolve().parents[1]
BOARD = ROOT / "leaderboard"
HARDWARE = "amd-epyc-x2-dff95c"
OURS = "metaopt_step_size"
DEFAULTS = ("nadamw+none", "nadamw+long")  # the cheaper one is the calibrated default
HELD_OUT = read_campaign(Path("beyond_desk_ends")).workloads
STUDY = 16  # step hints; a first run has one
RIVALS = ("metaopt_averages", "momo_adam", "schedule_free_plus", "prodigy")
TUNERS = ("random", "tpe", "gp", "asha", "hyperband", "grid")


def read_costs(protocol: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return the costs, workloads by contenders, and the budget of a study on each workload."""
    costs, targets = (
        pd.read_csv(BOARD / "protocols" / f"{protocol}.{kind}-{HARDWARE}.csv")
        for kind in ("costs", "targets")
    )
    budgets = targets.set_index("workload")["budget_of_a_study"]
    column = "including_tuning_gradient_evaluations"
    costs[column] = pd.to_numeric(costs[column].replace("missed", math.nan))
    table = costs.pivot(index="workload", columns="contender", values=column)
    return table.apply(lambda row: row.fillna(budgets[row.name]), axis=1), budgets


def first_runs(protocol: str, workload: str, length: float) -> str:
    """Return the share of studies whose first run, of a length, reached the target."""
    path = BOARD / "records" / HARDWARE / workload / f"{OURS}.json"
    studies = json.loads(path.read_text())["campaigns"][protocol]["studies"]
    costs = [s["including"]["gradient_evaluations"] for s in studies if s["including"]]
    return f"{sum(cost <= length for cost in costs)}/{len(studies)}"


def desk_rows() -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table on changing batches."""
    costs, budgets = read_costs("desk")
    held_out = costs.loc[[*HELD_OUT]]
    tuned = [name for name in costs if name.rpartition("+")[2] in TUNERS]
    best = min(tuned, key=lambda name: geometric_mean(held_out[name]))
    shown = pd.DataFrame(
        {
            OURS: costs[OURS],
            "the calibrated default": costs[[*DEFAULTS]].min(axis=1),
            **{name: costs[name] for name in ("adamw+long", *RIVALS, best)},
        }
    )
    groups = {"held out": [*HELD_OUT], "developed on": sorted({*costs.index} - {*HELD_OUT})}
    rows = []
    for group, names in groups.items():
        for name in names:
            hint = budgets[name] / STUDY
            cells = [
                f"missed ({cost:,.0f})" if cost >= budgets[name] else f"{cost:,.0f}"
                for cost in shown.loc[name]
            ]
            rows.append([f"`{name}`", *cells, first_runs("desk", name, hint)])
        means = shown.loc[names].apply(geometric_mean)
        rows.append(
            [
                f"**{group}**, geometric mean over ours",
                *(f"{m / means[OURS]:.2f}" for m in means),
                "",
            ]
        )
    names = [name if " " in name else f"`{name}`" for name in shown]
    return ["workload", *names, "first run"], rows


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
