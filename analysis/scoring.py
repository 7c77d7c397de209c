"""The score table under the rules ``strict`` (the default) and ``algoperf``.

``strict``: the cheapest trial of a study, a missing study is a miss, budgets are enforced, the
exact integral. ``algoperf``: what the official scorer computes, see :mod:`analysis.algoperf_rules`.
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import numpy as np

from analysis.costs import Cell, View, cost_table
from analysis.profiles import profile_area, ratios
from analysis.reading import Logs, read_logs
from metaopt.bench.budget import Currency

Rules = Literal["strict", "algoperf"]
VIEWS: tuple[View, View] = ("including", "given")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Costs to target and scores of every contender, best first."""

    currency: Currency
    contenders: tuple[str, ...]
    workloads: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    scores: dict[str, dict[View, float]]  # by contender
    studies: int

    def matrix(self, view: View) -> np.ndarray:
        """Return the medians, (contenders, workloads)."""
        return np.array(
            [[self.cells[c, w].median(view) for w in self.workloads] for c in self.contenders]
        )


def score_strictly(logs: Logs, currency: Currency | None = None) -> Scores:
    """Score a campaign under the strict rules, in both views."""
    cells = cost_table(logs, currency)
    contenders, workloads = logs.contenders, logs.workloads
    areas = {}
    for view in VIEWS:
        costs = np.array([[cells[c, w].median(view) for w in workloads] for c in contenders])
        areas[view] = profile_area(ratios(costs))
    scores = {
        contender: {view: float(areas[view][index]) for view in VIEWS}
        for index, contender in enumerate(contenders)
    }
    order = sorted(contenders, key=lambda c: (-scores[c]["including"], -scores[c]["given"], c))
    used = currency or logs.trials[0].record.budget.currency
    return Scores(used, tuple(order), tuple(workloads), cells, scores, logs.study_count)


def score_path(path: Path, currency: Currency | None = None) -> tuple[Logs, Scores]:
    """Read and score; raises ``ValueError`` where there is nothing to score."""
    logs = read_logs(path)
    return logs, score_strictly(logs, currency)


def check_budgets(logs: Logs) -> list[str]:
    """Say, one sentence each, which spent budgets differ from what they should be and why."""
    sentences = []
    for study in logs.studies:
        budget = study.budget
        spent = study.spent.amount(budget.currency)
        where = f"{study.contender} on {study.workload}, study {study.study}"
        if study.ended == "self_tuning_ended":
            sentences.append(f"{where}: the self-tuning run ended at {spent:g} of {budget.study:g}")
        elif study.ended != "budget":
            reason = study.ended.replace("_", " ")
            sentences.append(f"{where}: {reason} at {spent:g} of {budget.study:g}")
        elif abs(spent - budget.study) > budget.eval_period:
            sentences.append(f"{where}: NOT EQUAL: spent {spent:g} of {budget.study:g}")
    return sentences


def missing_studies(logs: Logs) -> list[str]:
    """Return what a complete comparison would have and this one does not."""
    finished = {(s.contender, s.workload, s.study) for s in logs.studies}
    return [
        f"{contender} on {workload}, study {study}"
        for contender in logs.contenders
        for workload in logs.workloads
        for study in range(1, logs.study_count + 1)
        if (contender, workload, study) not in finished
    ]


def format_cost(value: float) -> str:
    """Write a cost for a table; a target that was not reached is a dash."""
    if math.isinf(value):
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
