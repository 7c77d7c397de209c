"""Costs to target of a trial, of a study, and of a contender on a workload.

A study has two costs, which are inf if no trial met the target within budget:

    given       given tuned: the smallest own cost of a trial that met the target; for a self-tuning
                run the cost since the restart of the episode that met it
    including   including tuning: the total cost of the study's trials when the first one met the
                target, including the cost of other trials while that trial was paused; for random
                search the median over all orders of its trials (:mod:`analysis.scoring.orders`)

Both sets of rules choose among the same hits; see :mod:`analysis.scoring.scores`.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from analysis.logs.logs import Logs
from analysis.logs.official_records import OfficialRecord
from analysis.scoring.orders import (
    Attempt,
    OrderCosts,
    attempts_of,
    costs_over_orders,
    median_over_orders,
)
from metaopt.bench.measure.budget import Currency
from metaopt.bench.records.audit import RATIO_NOTED

# Only: the single cost of logs in which nothing was tuned.
View = Literal["including", "given", "only"]
VIEWS: tuple[View, View] = ("including", "given")
# Adjusted: gradient evaluations times the time factor.
Unit = Literal["steps", "gradient_evaluations", "seconds", "adjusted"]

# The column of evaluations with a trial's cost so far.
COST_COLUMNS: dict[Currency, str] = {
    "steps": "global_step",
    "gradient_evaluations": "gradient_evaluations",
    "seconds": "accumulated_submission_time",
}


class Hit(NamedTuple):
    """The evaluation at which a trial first met its target, and the costs in one unit."""

    evaluation: int  # row of its evaluations, from 0
    trial: float  # since the trial's start
    own: float  # since the restart of the episode that met it
    study: float  # spent by its study up to that evaluation


@dataclasses.dataclass(frozen=True)
class StudyCosts:
    """The costs of one contender on one workload, one entry per study; inf for a miss.

    Attributes:
        given: Given tuned.
        including: Including tuning; for exchangeable trials the median over their orders.
        orders: Including tuning, the costs of each study over the orders of its trials; empty
            unless the trials are exchangeable.
        given_budget: The longest trial that the contender may run; ``None`` if it is not known in
            the unit of the costs.
        including_budget: The budget of a study, or ``None``.
    """

    given: tuple[float, ...]
    including: tuple[float, ...]
    orders: tuple[OrderCosts, ...] = ()
    given_budget: float | None = None
    including_budget: float | None = None

    def costs(self, view: View) -> tuple[float, ...]:
        """Return the studies' costs in one view."""
        return self.including if view == "including" else self.given

    def budget(self, view: View) -> float | None:
        """Return the budget that a miss had in one view."""
        return self.including_budget if view == "including" else self.given_budget

    def median(self, view: View) -> float:
        """Return the median over studies, and over orders if there are any; NaN without studies."""
        costs = self.costs(view)
        if view == "including" and self.orders:
            return median_over_orders(self.orders)
        return statistics.median(costs) if costs else math.nan

    @property
    def reached(self) -> int:
        """The number of studies that met the target."""
        return sum(map(math.isfinite, self.including or self.given))

    def times(self, factor: float) -> "StudyCosts":
        """Return the costs multiplied by a factor."""
        return StudyCosts(
            tuple(factor * cost for cost in self.given),
            tuple(factor * cost for cost in self.including),
            tuple(
                one._replace(costs=tuple(factor * cost for cost in one.costs))
                for one in self.orders
            ),
            *(None if known is None else factor * known for known in self._budgets),
        )

    @property
    def _budgets(self) -> tuple[float | None, float | None]:
        return self.given_budget, self.including_budget


def hit_of(record: Any, currency: Currency) -> Hit | None:
    """Return a trial's hit, within budget or not; ``None`` if it missed the target."""
    if record.reached is None:
        return None
    reached = record.reached
    study = record.spent_at(reached.cost).amount(currency)
    own = reached.episode_cost.amount(currency)
    return Hit(reached.evaluation, reached.cost.amount(currency), own, study)


def is_within_budget(record: Any) -> bool:
    """Return whether a trial's hit is within its own budget and that of its study.

    The budget's currency decides, even if costs are counted in another unit. In AlgoPerf's logs a
    trial beyond the ruleset's number of trials does not count either.
    """
    hit = hit_of(record, record.budget.currency)
    if hit is None or hit.trial > record.budget.trial:
        return False
    if isinstance(record, OfficialRecord):
        # AlgoPerf limits the time of trials only; a study overshoots as its trials do.
        return record.counts
    return hit.study <= record.budget.study


def study_costs(records: list[Any], currency: Currency) -> tuple[float, float]:
    """Return ``(given, including)`` of one study's trials under the strict rules."""
    hits = [hit for r in records if is_within_budget(r) and (hit := hit_of(r, currency))]
    # A hit without a cost in this currency is a miss.
    given = min((hit.own for hit in hits if not math.isnan(hit.own)), default=math.inf)
    including = min((hit.study for hit in hits if not math.isnan(hit.study)), default=math.inf)
    return given, including


def cell_of(
    given: Sequence[float],
    including: Sequence[float],
    attempts: Sequence[Sequence[Attempt] | None],
    currency: Currency,
    budgets: tuple[float | None, float | None] = (None, None),
) -> StudyCosts:
    """Return the costs of studies.

    Args:
        given: The cost of each study given tuned.
        including: The cost of each study including tuning, in the order in which it ran.
        attempts: The exchangeable attempts of each study; ``None`` where there are none.
        currency: The currency of the costs.
        budgets: The budget of a trial and that of a study, if they are known in the currency.
    """
    if any(one is None for one in attempts) or not any(attempts):
        return StudyCosts(tuple(given), tuple(including), (), *budgets)
    orders = tuple(costs_over_orders(one or (), currency) for one in attempts)
    medians = tuple(median_over_orders([one]) for one in orders)
    return StudyCosts(tuple(given), medians, orders, *budgets)


def _cell(studies: list[list[Any]], currency: Currency) -> StudyCosts:
    """Return the costs of the records of each study."""
    given, including = zip(*(study_costs(records, currency) for records in studies), strict=True)
    attempts = [attempts_of(records, map(is_within_budget, records)) for records in studies]
    found = [r.budget for records in studies for r in records if r.budget.currency == currency]
    known = [max(amounts, default=math.inf)
             for amounts in ([b.trial for b in found], [b.study for b in found])]  # fmt: skip
    trial, study = (amount if math.isfinite(amount) else None for amount in known)
    return cell_of(given, including, attempts, currency, (trial, study))


def unit_of(logs: Logs, unit: Unit | None) -> Unit:
    """Return the unit of the costs: by default the budgets' currency.

    Raises:
        ValueError: The logs have no costs in that unit.
    """
    currency = logs.trials[0].record.budget.currency
    if unit is None or unit == currency:
        return currency
    if unit == "seconds":
        raise ValueError(
            f"`--cost seconds` needs budgets in seconds, and these are in "
            f"{currency.replace('_', ' ')}: processes are reused, so that the contender that runs "
            "first pays the compilation of the others. Use --cost adjusted, which multiplies by "
            "seconds per gradient evaluation without compilation."
        )
    if not logs.is_ours and unit != "steps":
        raise ValueError(
            f"AlgoPerf's logs have no costs in {unit.replace('_', ' ')}. Count --cost seconds or "
            "--cost steps."
        )
    if unit == "adjusted":
        factors = cost_factors(logs)
        if missing := sorted(pair for pair in logs.by_pair if pair not in factors):
            listed = "; ".join(f"{name} on {workload}" for name, workload in missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ValueError(
                "`--cost adjusted` needs the time factor of every contender on every workload, "
                f"which audits measure. It is not known for: {listed}{more}."
            )
    return unit


def time_factors(logs: Logs) -> dict[tuple[str, str], float]:
    """Return the largest measured time factor of each contender on each workload.

    The time factor is seconds per declared gradient evaluation, without compilation, over AdamW's
    on the same machine and workload.
    """
    found: dict[tuple[str, str], float] = {}
    for audit in logs.audits:
        if audit.time_factor is not None:
            pair = audit.contender, audit.workload
            found[pair] = max(audit.time_factor, found.get(pair, 0.0))
    return found


def pass_ratios(logs: Logs) -> dict[tuple[str, str], float]:
    """Return the ratios of counted to charged gradient evaluations that audits noted."""
    found: dict[tuple[str, str], float] = {}
    for audit in logs.audits:
        if audit.ratio is not None and audit.ratio > RATIO_NOTED:
            pair = audit.contender, audit.workload
            found[pair] = max(audit.ratio, found.get(pair, 0.0))
    return found


def cost_factors(logs: Logs) -> dict[tuple[str, str], float]:
    """Return the factors of adjusted costs: the larger of time factor and ratio of passes."""
    ratios = pass_ratios(logs)
    return {pair: max(factor, ratios.get(pair, 0.0)) for pair, factor in time_factors(logs).items()}


def costs_by_pair(logs: Logs, unit: Unit) -> Mapping[tuple[str, str], StudyCosts]:
    """Return the costs of every contender on every workload under the strict rules.

    A missing study is a miss. In AlgoPerf's logs a contender without trials on a workload has no
    entry; if it used two frameworks, the more expensive one counts.
    """
    currency: Currency = "gradient_evaluations" if unit == "adjusted" else unit
    cells: dict[tuple[str, str], StudyCosts] = {}
    for pair in ((c, w) for c in logs.contenders for w in logs.workloads):
        frameworks = [_cell(studies, currency) for studies in studies_of(logs, *pair)]
        if frameworks:
            cells[pair] = max(frameworks, key=lambda c: (c.median("given"), c.median("including")))
    if unit == "adjusted":
        factors = cost_factors(logs)
        # The factor of a contender that did not run is irrelevant: all of its costs are inf.
        return {pair: cell.times(factors.get(pair, 1.0)) for pair, cell in cells.items()}
    return cells


def studies_of(logs: Logs, contender: str, workload: str) -> list[list[list[Any]]]:
    """Return the records of a contender's studies on a workload, by framework.

    Each framework has ``logs.study_count`` studies. In our logs, entry k is study number k, which
    is
    paired with study k of every contender; in AlgoPerf's logs, the k-th study found. A missing
    study is an empty list.
    """
    due = logs.study_count
    if logs.is_ours:
        studies: list[list[Any]] = [[] for _ in range(due)]
        for trial in logs.of(contender, workload):
            studies[trial.record.study - 1].append(trial.record)
        return [studies]
    frameworks: dict[str, dict[int, list[Any]]] = {}
    for trial in logs.of(contender, workload):
        found = frameworks.setdefault(trial.key.framework, {})
        found.setdefault(trial.key.study, []).append(trial.record)
    return [
        [*(records for _, records in sorted(found.items())[:due]), *[[]] * (due - len(found))]
        for found in frameworks.values()
    ]
