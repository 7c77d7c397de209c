"""The tables of where AlgoPerf's official rules and ours differ, and why."""

from analysis.report.marks import Marks
from analysis.report.table import COST, Column, Table, number_format
from analysis.scoring.diff import RulesComparison

_FOUR = number_format(".4f")


def difference_tables(found: RulesComparison, marks: Marks) -> list[Table]:
    """Return the cells whose times differ, and the scores under both rules."""
    contender = Column("contender", marks.format)
    cells = Table(
        f"Times to target in seconds, given tuned: {len(found.differences)} of {found.cells} cells "
        "differ.",
        (contender, Column("workload"), Column("algoperf", COST), Column("strict", COST),
            Column("why"),
        ),
        tuple(map(tuple, found.differences)), "differences", keys=2, notes=marks.notes,
    )  # fmt: skip
    parts = {"algoperf": found.algoperf, "exact": found.exact, "strict": found.strict}
    scores = Table(
        "Scores given tuned. Exact: algoperf's times with the exact integral, not 100 points.",
        (contender, *(Column(name, _FOUR) for name in parts)),
        tuple(
            (name, *(part.scores[name]["given"] for part in parts.values()))
            for name in found.algoperf.contenders
        ),
        "official_scores", notes=marks.notes,
    )  # fmt: skip
    return [cells, scores]
