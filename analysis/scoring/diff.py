"""Compare the times to target under the rules ``algoperf`` and ``strict``."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from analysis.logs.logs import Logs
from analysis.scoring.benchmark import benchmark_of
from analysis.scoring.costs import costs_by_pair
from analysis.scoring.scores import Scores, score_logs, scores_of


class Difference(NamedTuple):
    """Two different times to target of a contender on a workload, in seconds, given tuned."""

    contender: str
    workload: str
    algoperf: float
    strict: float
    why: str


@dataclasses.dataclass(frozen=True)
class RulesComparison:
    """Both sets of rules on the same logs, given tuned, in seconds."""

    differences: tuple[Difference, ...]
    cells: int  # that were compared
    algoperf: Scores
    exact: Scores  # algoperf's times with the exact integral
    strict: Scores


def compare_rules(logs: Logs) -> RulesComparison:
    """Compare the two sets of rules cell by cell.

    The caller checks that seconds of different hardware are not mixed.
    """
    algoperf = score_logs(logs, "algoperf")
    strict = scores_of(
        "strict", "seconds", algoperf.contenders, benchmark_of(logs),
        costs_by_pair(logs, "seconds"), logs.study_count,
    )  # fmt: skip
    exact = dataclasses.replace(algoperf, rules="strict")
    area = exact.benchmark.score(exact.matrix("given"), "given")
    exact = dataclasses.replace(
        exact, scores={c: {"given": float(a)} for c, a in zip(exact.contenders, area, strict=True)}
    )
    # If the targets name held-out workloads, other logged variants do not affect scores.
    scored = set(algoperf.benchmark.workloads)
    pairs = [pair for pair in sorted(strict.cells) if pair[1] in scored]
    found = []
    for pair in pairs:
        theirs, ours = (part.median(*pair, "given") for part in (algoperf, strict))
        if theirs != ours and not (math.isnan(theirs) and math.isinf(ours)):
            why = _why(algoperf.cells[pair].given, strict.cells[pair].given)
            found.append(Difference(*pair, theirs, ours, why))
    return RulesComparison(tuple(found), len(pairs), algoperf, exact, strict)


def _why(official: Sequence[float], strict: Sequence[float]) -> str:
    """Return why the medians of two sets of costs, by study, differ."""
    missing = len(strict) - len(official)
    if missing > 0:
        return f"{_studies(missing)} missing: a miss under strict, left out under algoperf"
    if missing < 0:
        return f"{_studies(-missing)} beyond the expected number: left out under strict"
    pairs = list(zip(official, strict, strict=True))
    late = sum(math.isfinite(theirs) and math.isinf(ours) for theirs, ours in pairs)
    other = sum(math.isfinite(ours) and theirs != ours for theirs, ours in pairs)
    parts = []
    if late:
        parts.append(f"{_studies(late)} met it after the budget, or in a trial that does not count")
    if other:
        parts.append(f"{_studies(other)} with a cheaper trial than that of the earliest evaluation")
    return "; ".join(parts)


def _studies(number: int) -> str:
    return f"{number} stud{'y' if number == 1 else 'ies'}"
