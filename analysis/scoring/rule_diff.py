"""Where the rules ``algoperf`` and ``strict`` give different numbers, and why, in words."""

import dataclasses
import math

from analysis.scoring.algoperf_rules import (
    chosen_officially,
    official_scores,
    official_time,
    official_times,
)
from analysis.scoring.outcomes import Outcome, Outcomes, Studies
from analysis.scoring.strict_rules import (
    Demands,
    budgets_of,
    chosen_strictly,
    exact_scores,
    is_allowed,
    score_outcomes,
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A cell of the table of times that the two rules fill differently, in seconds."""

    submission: str
    workload: str
    algoperf: float
    strict: float
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both sets of rules on the same logs, given tuned, in seconds."""

    differences: tuple[Difference, ...]
    cells: int  # that were compared
    scores: dict[str, tuple[float, float]]  # by submission: algoperf, strict
    exact: dict[str, float]  # of algoperf's times with the exact integral


def compare_rules(outcomes: Outcomes, demands: Demands) -> Comparison:
    """Compare the two sets of rules cell by cell.

    Args:
        outcomes: Read with budgets, in seconds.
        demands: Of the strict rules.
    """
    strict = score_outcomes(outcomes, demands)
    budgets = budgets_of(outcomes.cells)
    times = official_times(outcomes.cells, outcomes.submissions)
    officially = official_scores(times, outcomes.targets)
    targets = outcomes.targets
    # With held-out workloads named, other variants that were logged have no part in scores.
    scored = {*targets.base, *targets.held_out} if targets.held_out else None
    cells = {cell: s for cell, s in outcomes.cells.items() if scored is None or cell[1] in scored}
    differences = []
    for (submission, workload), studies in sorted(cells.items()):
        theirs, ours = official_time(studies), strict.cells[submission, workload].median("given")
        if theirs != ours and not (math.isnan(theirs) and math.isinf(ours)):
            reasons = tuple(_reasons(studies, budgets.get(workload), demands))
            differences.append(Difference(submission, workload, theirs, ours, reasons))
    return Comparison(
        tuple(differences),
        len(cells),
        {name: (score, strict.scores[name]["given"]) for name, score in officially.items()},
        exact_scores(times, outcomes.targets),
    )


def _reasons(studies: Studies, budget: float | None, demands: Demands) -> list[str]:
    """Say, study by study, why the two rules do not take the same."""
    several = len({framework for framework, _ in studies}) > 1
    reasons = []
    for (framework, study), trials in studies.items():
        name = f"study {study}" + (f" ({framework})" if several else "")
        reason = _reason(trials, budget, demands)
        if reason:
            reasons.append(f"{name}: {reason}")
    for framework in sorted({framework for framework, _ in studies}):
        found = sorted(study for other, study in studies if other == framework)
        of = f" of {framework}" if several else ""
        if len(found) < demands.studies:
            listed = ", ".join(map(str, found))
            reasons.append(
                f"{len(found)} of {demands.studies} studies{of} are there ({listed}): strict "
                "counts the others as misses, algoperf leaves them out of the median"
            )
    return reasons


def _reason(trials: tuple[Outcome, ...], budget: float | None, demands: Demands) -> str:
    if not any(trial.logged for trial in trials):
        return "no trial has evaluations: strict counts a miss, algoperf leaves the study out"
    theirs = chosen_officially([trial for trial in trials if trial.logged])
    ours = chosen_strictly(trials, budget, demands)
    if theirs is None or theirs == ours:
        return ""
    if not is_allowed(theirs, demands):
        why = f"which is beyond the {demands.trials} that a study has"
        return f"{_hit(theirs)}, {why}: strict {_instead(ours)}"
    if budget is not None and theirs.hit_seconds > budget * demands.budget_factor:
        why = f"beyond its budget of {budget * demands.budget_factor:,.0f} s"
        return f"{_hit(theirs)}, {why}: strict {_instead(ours)}"
    if ours is None:
        return f"{_hit(theirs)}, which is no cost: strict counts a miss"
    return f"{_hit(theirs)}, {_hit(ours)}: strict takes the cheaper"


def _hit(trial: Outcome) -> str:
    hit = f"hit at evaluation {trial.evaluation} in {trial.hit_seconds:,.0f} s"
    return f"trial {trial.key.trial} {hit}"


def _instead(ours: Outcome | None) -> str:
    return "counts a miss" if ours is None else f"takes {_hit(ours)}"
