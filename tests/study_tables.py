"""The tables of docs/beyond.md, from the leaderboard's files and from reports.

Costs are medians over studies, including tuning, in gradient evaluations; a miss counts as the
budget.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from metaopt.workloads.registry import FIXED_SUFFIX
from tuning.campaign import read_campaign
from tuning.tuners import TUNERS

ROOT = Path(__file__).resolve().parents[1]
BOARD = ROOT / "leaderboard"
REPORTS = ROOT / "docs" / "experiments"
HARDWARE = "amd-epyc-x2-dff95c"
OURS = "metaopt_step_size"
CHANGING, FIXED = "desk", "beyond_desk_fixed"
STUDIES = {CHANGING: 16, FIXED: 8}  # the budget of a study in step hints; a first run has one
DEFAULTS = ("nadamw+none", "nadamw+long")  # the cheaper one is the calibrated default
CALIBRATED = "the calibrated default"
SHOWN = (CALIBRATED, "adamw+long", "metaopt_averages", "momo_adam", "schedule_free_plus", "prodigy")
UNTUNED = ("none", "long")
HELD_OUT = read_campaign(Path("beyond_desk_ends")).workloads
ZERO = 1e-4  # the search for targets ends here: a loss with a higher target has a floor
Table = tuple[list[str], list[list[str]]]  # the header and the rows, as Markdown


def read_protocol(protocol: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the costs, workloads by contenders, and the targets and budgets by workload."""
    costs, targets = (
        pd.read_csv(BOARD / "protocols" / f"{protocol}.{kind}-{HARDWARE}.csv")
        for kind in ("costs", "targets")
    )
    targets = targets.set_index("workload")
    column = "including_tuning_gradient_evaluations"
    costs[column] = pd.to_numeric(costs[column].replace("missed", math.nan))
    table = costs.pivot(index="workload", columns="contender", values=column)
    table = table.apply(lambda row: row.fillna(targets["budget_of_a_study"][row.name]), axis=1)
    table[CALIBRATED] = table[[*DEFAULTS]].min(axis=1)
    return table, targets


def group_workloads(protocol: str, workloads: Iterable[str]) -> dict[str, list[str]]:
    """Return the workloads that are held out, in the campaign's order, and the others."""
    fixed = FIXED_SUFFIX if protocol == FIXED else ""
    names, held_out = sorted(workloads), [name + fixed for name in HELD_OUT]
    return {
        "held out": [name for name in held_out if name in names],
        "developed on": [name for name in names if name not in held_out],
    }


def best_tuned(costs: pd.DataFrame, workloads: list[str]) -> str:
    """Return the contender with a tuner whose costs have the lowest geometric mean."""
    tuned = [name for name in costs if name.partition("+")[2] in {*TUNERS} - {*UNTUNED}]
    return min(tuned, key=lambda name: geometric_mean(costs.loc[workloads, name]))


def first_runs(protocol: str, workload: str, length: float) -> str:
    """Return the share of studies whose first run, of a length, reached the target."""
    path = BOARD / "records" / HARDWARE / workload / f"{OURS}.json"
    studies = json.loads(path.read_text())["campaigns"][protocol]["studies"]
    costs = [s["including"]["gradient_evaluations"] for s in studies if s["including"]]
    return f"{sum(cost <= length for cost in costs)}/{len(studies)}"


def cost_rows(protocol: str) -> Table:
    """Return the table of costs on each workload of a protocol."""
    costs, targets = read_protocol(protocol)
    groups = group_workloads(protocol, costs.index)
    shown = [OURS, *SHOWN, best_tuned(costs, groups["held out"])]
    rows = []
    for group, names in groups.items():
        for name in names:
            budget = targets["budget_of_a_study"][name]
            cells = [
                f"missed ({cost:,.0f})" if cost >= budget else f"{cost:,.0f}"
                for cost in costs.loc[name, shown]
            ]
            hint = budget / STUDIES[protocol]
            rows.append([f"`{name}`", *cells, first_runs(protocol, name, hint)])
        cells = [f"{ratio:.2f}" for ratio in mean_ratios(costs.loc[names, shown])]
        rows.append([f"**{group}**, geometric mean over ours", *cells, ""])
    return ["workload", *quote(shown), "first run"], rows


def common_rows() -> Table:
    """Return the costs over ours, geometric means, on changing and on fixed batches."""
    columns = {}
    for protocol, batches in ((CHANGING, "changing"), (FIXED, "fixed")):
        costs, targets = read_protocol(protocol)
        groups = group_workloads(protocol, costs.index)
        columns |= {f"{batches}, {group}": costs.loc[names] for group, names in groups.items()}
        if protocol == FIXED:
            floor = targets["value"] > ZERO
            columns["fixed, with a floor"] = costs.loc[floor[floor].index]
            columns["fixed, to zero"] = costs.loc[floor[~floor].index]
    ratios = pd.DataFrame({name: mean_ratios(costs) for name, costs in columns.items()}).dropna()
    ratios = ratios.loc[ratios.apply(geometric_mean, axis=1).sort_values().index]
    counts = [f"{name} ({len(costs)})" for name, costs in columns.items()]
    rows = [
        [name, *(f"{ratio:.2f}" for ratio in row)]
        for name, row in zip(quote(ratios.index), ratios.to_numpy(), strict=True)
    ]
    return ["contender", *counts], rows


def ends_rows() -> Table:
    """Return the test metrics at the end of the budget, as means over studies, the best in bold."""
    ends = pd.read_csv(REPORTS / "beyond_desk_ends" / "ends.csv")
    means = ends.pivot(index="workload", columns="contender", values="test_mean")
    metrics = ends.set_index("workload")["test_metric"].groupby(level=0).first()
    lower = read_protocol(CHANGING)[1]["value_sign"] == "<="
    names = [OURS, *sorted(set(means) - {OURS, "nadamw+long"}), "nadamw+long"]
    tuned = names[1:-1]
    rows = []
    for workload in (name for name in HELD_OUT if name in means.index):
        row = means.loc[workload, names]
        rival = row[tuned].min() if lower[workload] else row[tuned].max()
        worse = row[OURS] > rival if lower[workload] else row[OURS] < rival
        metric = name_metric(metrics[workload], lower[workload])
        cells = mark_best(row, lower[workload])
        rows.append([f"`{workload}`", metric, *cells, "yes" if worse else "no"])
    return ["workload", "metric", *quote(names), "worse than the best tuned"], rows


def small_rows() -> Table:
    """Return costs to the target, with the studies that arrived, and test metrics at the end."""
    campaign = read_campaign(Path("beyond_desk_small"))
    scores, ends = (
        pd.read_csv(REPORTS / campaign.name / f"{kind}.csv") for kind in ("scores", "ends")
    )
    scores = scores.set_index("contender").loc[campaign.contenders]
    header, columns = ["contender"], [quote(scores.index)]
    for workload, target in campaign.targets.items():
        costs = format_costs(scores[f"{workload}_including_tuning"])
        reached = scores[f"{workload}_reached"].map(" ({:.0f}/".format)
        studies = scores[f"{workload}_studies"].map("{:.0f})".format)
        end = ends[ends["workload"] == workload].set_index("contender").loc[scores.index]
        lower = target.better == "lower"
        header += [f"`{workload}`, cost", name_metric(end["test_metric"].iloc[0], lower)]
        columns += [costs + reached + studies, mark_best(end["test_mean"], lower)]
    return header, [list(row) for row in zip(*columns, strict=True)]


def scale_rows() -> Table:
    """Return costs to the target from other first step sizes, and the largest over the usual."""
    campaign = read_campaign(Path("beyond_desk_scale"))
    names, ending = campaign.contenders, "_including_tuning"
    rows = []
    for report in (campaign.name, f"{campaign.name}_fixed"):
        scores = pd.read_csv(REPORTS / report / "scores.csv").set_index("contender").loc[names]
        for column in scores.filter(regex=f"{ending}$"):
            costs = scores[column]
            worst = "missed" if costs.isna().any() else f"{costs.max() / costs[OURS]:.1f}"
            rows.append([f"`{column.removesuffix(ending)}`", *format_costs(costs), worst])
    return ["workload", *quote(names), "largest over the usual"], rows


def format_costs(costs: pd.Series) -> pd.Series:
    """Return costs as text; NaN is a miss."""
    return costs.map("{:,.0f}".format).replace("nan", "missed")


def name_metric(metric: str, lower: bool) -> str:
    """Return a test metric's name and whether lower (-) or higher (+) is better."""
    return f"{metric.removeprefix('test/')} ({'-' if lower else '+'})"


def mark_best(means: pd.Series, lower: bool) -> list[str]:
    """Return the means as Markdown, the best in bold."""
    best = means.min() if lower else means.max()
    return [f"**{mean:.4g}**" if mean == best else f"{mean:.4g}" for mean in means]


def mean_ratios(costs: pd.DataFrame) -> pd.Series:
    """Return the geometric mean of every contender's costs over ours."""
    return costs.div(costs[OURS], axis=0).apply(geometric_mean)


def quote(names: Iterable[str]) -> list[str]:
    """Return contenders as code; a phrase stays what it is."""
    return [name if " " in name else f"`{name}`" for name in names]


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
