"""The rules ``strict`` on logs in AlgoPerf's layout, official ones or ours.

For one study of a submission on a workload, over the trials that the ruleset allows it, with inf
where none met the target within its budget:

    given       the smallest cost of a trial that met it
    including   what the trials before it had spent, and its own cost, when some trial first met it

A time is the median over the studies that the ruleset asks for; a missing one is a miss. Which base
workloads and held-out variants there are is the benchmark's, see
:func:`~analysis.scoring.algoperf_rules.apply_benchmark_rules`; the area under the profile is exact.

Logs say when a trial was last evaluated, not when it ended: that is what it spent. A trial that was
not logged is charged the whole of its budget.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from analysis.logs.official_targets import OfficialTargets, Ruleset
from analysis.scoring.algoperf_rules import Times, apply_benchmark_rules
from analysis.scoring.costs import Cell, View
from analysis.scoring.outcomes import Cells, Outcome, Outcomes, Studies
from analysis.scoring.profiles import profile_area, ratios
from metaopt.bench.budget import Currency


@dataclasses.dataclass(frozen=True)
class Demands:
    """What a ruleset allows and asks for."""

    studies: int
    trials: int  # of a study
    budget_factor: float  # times the workload's max_allowed_runtime_sec

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("studies", "trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not (self.budget_factor > 0 and math.isfinite(self.budget_factor)):
            raise ValueError(f"`budget_factor` must be positive, got {self.budget_factor}.")


def demands_of(
    targets: OfficialTargets,
    ruleset: Ruleset,
    *,
    studies: int | None = None,
    trials: int | None = None,
    budget_factor: float | None = None,
) -> Demands:
    """Return a ruleset's demands in the targets' version, changed where a value is given."""
    return Demands(
        targets.studies() if studies is None else studies,
        targets.trials(ruleset) if trials is None else trials,
        targets.budget_factor(ruleset) if budget_factor is None else budget_factor,
    )


def budgets_of(cells: Cells) -> dict[str, float]:
    """Return the budget of each workload where logs say it: the smallest that a trial had."""
    budgets: dict[str, float] = {}
    for (_, workload), studies in cells.items():
        for trials in studies.values():
            for trial in trials:
                if trial.budget is not None:
                    budgets[workload] = min(trial.budget, budgets.get(workload, math.inf))
    return budgets


def is_allowed(trial: Outcome, demands: Demands) -> bool:
    """Return whether a trial is one of those that its study may have."""
    return trial.key.trial <= demands.trials


def is_within_budget(trial: Outcome, budget: float | None, demands: Demands) -> bool:
    """Return whether a trial's hit is within its budget; true where nobody knows the budget."""
    return budget is None or trial.hit_seconds <= budget * demands.budget_factor


def chosen_strictly(
    trials: Sequence[Outcome], budget: float | None, demands: Demands
) -> Outcome | None:
    """Return the trial of a study that counts, the cheapest; ``None`` if no hit counts."""
    hits = [
        trial
        for trial in trials
        if trial.evaluation is not None
        and math.isfinite(trial.cost)
        and is_allowed(trial, demands)
        and is_within_budget(trial, budget, demands)
    ]
    return min(hits, key=lambda hit: (hit.cost, hit.key.trial), default=None)


def study_costs(
    trials: Sequence[Outcome], budget: float | None, demands: Demands, currency: Currency
) -> tuple[float, float]:
    """Return ``(given, including)`` of one study."""
    chosen = chosen_strictly(trials, budget, demands)
    if chosen is None:
        return math.inf, math.inf
    whole = math.inf  # of a trial of which nothing is known
    if currency == "seconds" and budget is not None:
        whole = budget * demands.budget_factor
    spent, including = 0.0, math.inf
    by_number: dict[int, list[Outcome]] = {}
    for trial in trials:
        by_number.setdefault(trial.key.trial, []).append(trial)
    for number in sorted({*by_number, *range(1, demands.trials + 1)}):
        if number > demands.trials:
            break
        if number not in by_number:
            spent += whole
        for trial in by_number.get(number, ()):
            if chosen_strictly([trial], budget, demands) is not None:
                including = min(including, spent + trial.cost)
            spent += whole if math.isnan(trial.spent) else trial.spent
    return chosen.cost, including


def strict_cell(
    studies: Studies, budget: float | None, demands: Demands, currency: Currency
) -> Cell:
    """Return one submission's costs on one workload, one entry per study, misses at the end."""
    by_framework: dict[str, list[tuple[float, float]]] = {}
    for (framework, _), trials in studies.items():
        pair = study_costs(trials, budget, demands, currency)
        by_framework.setdefault(framework, []).append(pair)
    cells = []
    for pairs in by_framework.values():
        missing = demands.studies - len(pairs)
        cells.append(Cell(*zip(*pairs, *[(math.inf, math.inf)] * missing, strict=True)))
    # Of two frameworks the dearer one counts: a choice between them would be one more tuning.
    return max(cells, key=lambda cell: (cell.median("given"), cell.median("including")))


@dataclasses.dataclass(frozen=True)
class StrictScores:
    """Costs and scores of every submission."""

    cells: dict[tuple[str, str], Cell]  # by submission and workload, of those that were logged
    scores: dict[str, dict[View, float]]
    demands: Demands
    notes: tuple[str, ...]

    def times(self, view: View) -> dict[str, dict[str, float]]:
        """Return the medians over studies."""
        table: dict[str, dict[str, float]] = {name: {} for name in self.scores}
        for (submission, workload), cell in self.cells.items():
            table[submission][workload] = cell.median(view)
        return table


def score_outcomes(outcomes: Outcomes, demands: Demands) -> StrictScores:
    """Score logs in AlgoPerf's layout under the strict rules, in both views."""
    budgets = budgets_of(outcomes.cells)
    cells = {
        (submission, workload): strict_cell(
            studies, budgets.get(workload), demands, outcomes.currency
        )
        for (submission, workload), studies in outcomes.cells.items()
    }
    scores: dict[str, dict[View, float]] = {name: {} for name in outcomes.submissions}
    empty = StrictScores(cells, scores, demands, tuple(_notes(outcomes, demands, budgets)))
    for view in ("given", "including"):
        for name, score in exact_scores(empty.times(view), outcomes.targets).items():
            scores[name][view] = score
    return empty


def exact_scores(times: Times, targets: OfficialTargets) -> dict[str, float]:
    """Return the exact area under the profile of each submission."""
    names, table = apply_benchmark_rules(times, targets)
    return dict(zip(names, profile_area(ratios(table)).tolist(), strict=True))


def _notes(outcomes: Outcomes, demands: Demands, budgets: dict[str, float]) -> list[str]:
    notes = []
    if unknown := sorted({w for _, w in outcomes.cells} - budgets.keys()):
        notes.append(f"no trial says its budget on {unknown}: none is enforced there")
    for (submission, workload), studies in sorted(outcomes.cells.items()):
        found = max(Counter(framework for framework, _ in studies).values())
        if found != demands.studies:
            what = "the others are misses" if found < demands.studies else "all of them count"
            notes.append(
                f"{submission} on {workload}: {found} studies of {demands.studies}, {what}"
            )
        extra = [t for trials in studies.values() for t in trials if not is_allowed(t, demands)]
        if extra:
            notes.append(
                f"{submission} on {workload}: {len(extra)} trials beyond number {demands.trials} "
                "of their study do not count"
            )
    return notes
