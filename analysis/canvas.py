"""What every plot shares: colours, line styles, sizes, legends, files. Readable in print too."""

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns

from analysis.tables import plain

AS_IT_IS = {"parse_math": False}  # a stranger's name may hold a dollar sign
WIDTH = 5.6  # inches; a wide picture takes two of them
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1.5, 1))]
_COLOURS = 8
_PALE = 6  # the palette's pink cannot be seen on white


@dataclasses.dataclass(frozen=True)
class Plot:
    """One picture, under the heading that it shares with others.

    Attributes:
        text: What a reader who cannot see it is told.
        caption: What stands below it, for all.
        wide: It takes the whole width of the page.
    """

    heading: str
    text: str
    path: Path
    caption: str = ""
    wide: bool = False


def style(contenders: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return colour and line style of each contender; the colours repeat, the pairs do not.

    Widths fall from first to last, so that lines that coincide are all seen.
    """
    colours = sns.color_palette("colorblind", _COLOURS)
    colours[_PALE] = (0.1, 0.1, 0.1)
    last = max(1, len(contenders) - 1)
    return {
        name: {
            "color": colours[index % _COLOURS],
            "linestyle": _DASHES[(index // _COLOURS + index) % len(_DASHES)],
            "linewidth": 3.4 - 1.6 * index / last,
        }
        for index, name in enumerate(sorted(contenders))
    }


@contextmanager
def figure_at(
    path: Path, lines: int = 0, *, panels: int = 1, width: float = WIDTH
) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its axes, to be drawn on; write and close it.

    Args:
        path: The PNG file.
        lines: Of the legend, for which there will be room.
        panels: Axes side by side; with more than one, an array of them is given.
        width: Of the figure, in inches.
    """
    with (
        warnings.catch_warnings(),
        sns.axes_style("whitegrid"),
        plt.rc_context({"font.size": 10, "axes.titlesize": 11}),
    ):
        # A stranger's name may have letters that the font lacks: boxes will do.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure, axes = plt.subplots(
            1, panels, figsize=(width, 3.6 + 0.22 * lines), layout="constrained"
        )
        try:
            yield figure, axes
            figure.savefig(path, dpi=125)
        finally:
            plt.close(figure)


def legend(figure: Any, names: list[str], handles: list[Any], columns: int) -> None:
    """Put a legend below the axes; a stranger's names are shown as they are."""
    # Explicit handles: matplotlib leaves out labels that begin with an underscore.
    labels = [plain(name) if not name.startswith("_") else f" {plain(name)}" for name in names]
    drawn = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2
    )
    for text in drawn.get_texts():
        text.set(**AS_IT_IS)


def legend_columns(names: list[str], width: float = WIDTH) -> int:
    """Return how many columns of a legend fit."""
    longest = max(map(len, names), default=1)
    columns = 3 if longest <= 16 else 2 if longest <= 30 else 1
    return columns if width <= WIDTH else round(0.85 * columns * width / WIDTH)


def legend_lines(names: list[str], width: float = WIDTH) -> int:
    """Return how many lines the legend takes."""
    return -(-len(names) // legend_columns(names, width))


def slug(name: str) -> str:
    """Return a stranger's name as a part of a file's name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:40]
