"""The table of a rerun: both medians of each cost, and the reason if they disagree."""

from collections.abc import Mapping, Sequence

from analysis.checks.verification import TOLERANCE, Verdict, verified_contenders
from analysis.logs.hardware import hardware_of
from analysis.logs.logs import Logs
from analysis.report.table import COST, CellFormat, Column, Facets, Table
from analysis.report.tables.score_tables import unit_name
from analysis.scoring.costs import View

_VIEWS: tuple[View, View] = ("given", "including")
# The cost of a campaign and of its rerun; None if the rerun is another experiment.
_PAIR = CellFormat(
    lambda pair: " / ".join(COST.text(cost) for cost in pair if cost is not None),
    lambda pair: {"": pair[0], "rerun": pair[1]},
    lambda pair: pair[0],
)


def verdicts_table(
    verdicts: Sequence[Verdict],
    claimed: Logs,
    again: Logs,
    facets: Mapping[tuple[str, str], Facets] | None = None,
) -> Table:
    """Return one row per contender and workload."""
    rows = []
    for verdict in verdicts:
        pairs = []
        for view in _VIEWS:
            other = None if verdict.again is None else verdict.again.median(view)
            pairs.append((verdict.claimed.median(view), other))
        rows.append((verdict.contender, verdict.workload, verdict.problem or "verified", *pairs))
    unit = unit_name(claimed.trials[0].record.budget.currency)
    first, second = (", ".join(sorted(hardware_of(logs))) for logs in (claimed, again))
    count = sum(verified_contenders(verdicts).values())
    caption = (
        f"{count} of {len(claimed.contenders)} contenders are verified. Median costs to target in "
        f"{unit} on {first} / of the rerun on {second}: equal to within an evaluation period or "
        f"{TOLERANCE:.0%}."
    )
    columns = (
        Column("contender"), Column("workload"), Column("verdict"), Column("given tuned", _PAIR),
        Column("including tuning", _PAIR),
    )  # fmt: skip
    kept = tuple(facets[v.contender, v.workload] for v in verdicts) if facets else ()
    return Table(caption, columns, tuple(rows), "verification", facets=kept, keys=2)
