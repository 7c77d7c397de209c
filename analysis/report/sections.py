"""The parts of a report."""

import dataclasses
from typing import TYPE_CHECKING

from analysis.report.table import Table

if TYPE_CHECKING:
    from analysis.report.plots.canvas import Plot


@dataclasses.dataclass(frozen=True)
class Section:
    """Text, plots and tables under a heading."""

    heading: str
    text: tuple[str, ...] = ()  # paragraphs
    plots: "tuple[Plot, ...]" = ()
    tables: tuple[Table, ...] = ()
    entries: tuple[str, ...] = ()  # of a list
    data: tuple[Table, ...] = ()  # tables that are in CSV files only

    @property
    def divided(self) -> bool:
        """Whether all of it is about one workload or another: filters may leave nothing of it."""
        parts = (*self.plots, *self.tables)
        return bool(parts) and not self.entries and all(part.workload for part in parts)
