"""The parts of a report, and what others may add to one."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.report.tables import Table
from analysis.scoring.costs import View

if TYPE_CHECKING:
    from analysis.report.plots.canvas import Plot

Interval = tuple[float, float]  # lower and upper end; inf where it is open


@dataclasses.dataclass(frozen=True)
class Section:
    """Text, plots and tables under a heading."""

    heading: str
    text: tuple[str, ...] = ()  # paragraphs
    plots: "tuple[Plot, ...]" = ()
    tables: tuple[Table, ...] = ()
    entries: tuple[str, ...] = ()  # of a list

    @property
    def divided(self) -> bool:
        """Whether all of it is about one workload or another: filters may leave nothing of it."""
        parts = (*self.plots, *self.tables)
        return bool(parts) and not self.entries and all(part.workload for part in parts)


@dataclasses.dataclass(frozen=True)
class Additions:
    """What a report shows beside what it computes itself.

    Attributes:
        score_intervals: By contender and view.
        cost_intervals: Of the medians over studies, by contender, workload and view.
        interval_name: What they are, as in "95 % bootstrap intervals".
        verified: By contender, whether another run of the campaign agrees; ``None``: nobody ran it.
        sections: Behind the costs to target.
    """

    score_intervals: Mapping[tuple[str, View], Interval] = dataclasses.field(default_factory=dict)
    cost_intervals: Mapping[tuple[str, str, View], Interval] = dataclasses.field(
        default_factory=dict
    )
    interval_name: str = "intervals"
    verified: Mapping[str, bool] | None = None
    sections: Sequence[Section] = ()
