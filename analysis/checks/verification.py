"""Compare a campaign with a rerun; contenders with the same costs are verified.

The rerun must be the same experiment: the same submission, search space, kit, tuner, workload, data
and JAX settings (see :mod:`metaopt.bench.records.identity`), seeds, budgets, target and number of
studies. It may run on any machine. A contender is verified on a workload if its median costs to
target, given tuned and including tuning, differ from those of the rerun by at most one evaluation
period or ``TOLERANCE``, whichever is larger. If one median study missed the target, the other must
miss it too.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from analysis.logs.logs import Logs
from analysis.scoring.costs import VIEWS, StudyCosts, costs_by_pair
from analysis.wording import MISSED, plain
from metaopt.bench.records import TrialRecord
from metaopt.bench.records.identity import differences, listed

TOLERANCE = 0.1  # of a median cost

_Key = tuple[str, str]  # contender, workload


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict of a rerun on one contender and workload."""

    contender: str
    workload: str
    claimed: StudyCosts
    again: StudyCosts | None  # None: the rerun is another experiment
    problem: str  # empty: verified

    @property
    def verified(self) -> bool:
        """Whether the rerun agrees."""
        return not self.problem


def verify(claimed: Logs, again: Logs) -> list[Verdict]:
    """Compare a campaign with its rerun, by contender and workload.

    Args:
        claimed: The campaign.
        again: The rerun; contenders and workloads that only it contains are left out.

    Returns:
        One verdict for each contender and workload of the campaign, in its order.

    Raises:
        ValueError: The rerun is a copy of the campaign.
    """
    for logs in (claimed, again):
        if not logs.is_ours:
            raise ValueError(
                f"{logs.path}: logs of AlgoPerf, and only our records can be verified."
            )
    if common := _identities(claimed) & _identities(again):
        contender, workload, study, trial, when = min(common)
        raise ValueError(
            f"The rerun is a copy: trial {trial} of {plain(contender)} on {plain(workload)}, study "
            f"{study}, began at {plain(when)} in both."
        )
    records, others = _records(claimed), _records(again)
    currency = claimed.trials[0].record.budget.currency
    cells, cells_again = costs_by_pair(claimed, currency), costs_by_pair(again, currency)
    verdicts = []
    for contender in claimed.contenders:
        for workload in claimed.workloads:
            key = contender, workload
            problem = _other_terms(claimed, again, records.get(key, []), others.get(key, []))
            cell = None if problem else cells_again[key]
            if cell is not None:
                problem = _disagreement(cells[key], cell, records[key][0].budget.eval_period)
            verdicts.append(Verdict(contender, workload, cells[key], cell, problem))
    return verdicts


def verified_contenders(verdicts: Sequence[Verdict]) -> dict[str, bool]:
    """Return whether each contender is verified on all of its workloads."""
    found: dict[str, bool] = {}
    for verdict in verdicts:
        found[verdict.contender] = found.get(verdict.contender, True) and verdict.verified
    return found


def _identities(logs: Logs) -> set[tuple[str, str, int, int, str]]:
    records = [trial.record for trial in logs.trials]
    return {(r.contender, r.workload, r.study, r.trial, r.started_at) for r in records}


def _records(logs: Logs) -> dict[_Key, list[TrialRecord]]:
    found: dict[_Key, list[TrialRecord]] = defaultdict(list)
    for trial in logs.trials:
        found[trial.record.contender, trial.record.workload].append(trial.record)
    return found


def _other_terms(
    claimed: Logs, again: Logs, records: list[TrialRecord], others: list[TrialRecord]
) -> str:
    """Return the difference between two experiments; empty if they are the same."""
    if not records:
        return "did not run"
    if not others:
        return "not run again"
    one, other = _terms(claimed, records[0]), _terms(again, others[0])
    differing = [name for name in one if one[name] != other[name]]
    before, now = claimed.identity(records[0]), again.identity(others[0])
    if differing[:1] == ["submission"] and before and now:  # their identities name the files
        differing[0] = listed(differences(before, now)) or differing[0]
    return f"another experiment: other {', '.join(differing)}" if differing else ""


def _terms(logs: Logs, record: TrialRecord) -> dict[str, Any]:
    tuner = {key: value for key, value in (record.tuner or {}).items() if key != "library"}
    variants = (logs.campaign or {}).get("variants", {})
    return {
        "submission": (record.submission, record.digest),
        "search space": record.space,
        "tuner": tuner,
        "fixed hyperparameters": variants.get(record.contender),
        "seed": record.seeds.campaign,
        "budget": record.budget,
        "target": record.target,
        "data": record.data,
        "number of studies": logs.study_count,
    }


def _disagreement(one: StudyCosts, other: StudyCosts, period: float) -> str:
    for view in reversed(VIEWS):
        a, b = one.median(view), other.median(view)
        if math.isinf(a) or math.isinf(b):
            agree = a == b
        else:
            agree = abs(a - b) <= max(period, TOLERANCE * a)
        if not agree:
            name = "given tuned" if view == "given" else "including tuning"
            shown = [MISSED if math.isinf(cost) else f"{cost:,.6g}" for cost in (a, b)]
            return f"{name}: {shown[0]}, and {shown[1]} in the rerun"
    return ""
