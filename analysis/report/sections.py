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
    entries: tuple[str, ...] = ()  # items of a list
    data: tuple[Table, ...] = ()  # tables for CSV files only

    @property
    def divided(self) -> bool:
        """Whether each part is about one workload, so that filters may hide the whole section."""
        parts = (*self.plots, *self.tables)
        return bool(parts) and not self.entries and all(part.workload for part in parts)
