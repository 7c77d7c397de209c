"""Colours, line styles, sizes, legends and files of all plots. Readable in print too."""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.report.publish import check_replaceable
from analysis.text import plain

NO_MATH = {"parse_math": False}  # a stranger's name may hold a dollar sign
WIDTH = 5.6  # inches; a wide picture takes two of them
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1.5, 1))]
_MARKERS = "oDs^vP*X<hp>"
_COLOURS = 8
_PALE = 6  # the palette's pink cannot be seen on white
_DARKER = 0.88  # so that the others have a contrast of at least 3 with white
_FEW = 6  # contenders whose lines may be wide
_HANDLE, _LETTER = 0.76, 0.078  # inches: of an entry of a legend without its text, of a letter
_SHORT = 100.0  # times the lower end of a logarithmic axis: beyond, powers of ten are enough
_DENSE = 20_000  # points of one picture above which its SVG holds lines and bands as an image
_LOOKS: Any = {
    "font.size": 10,
    "legend.fontsize": 9,
    "axes.titlesize": 11,
    "svg.hashsalt": "metaopt-bench",  # the same picture is the same file
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """One picture.

    Attributes:
        heading: The heading of its section.
        text: The alt text.
        path: The PNG file; the SVG file lies beside it.
        caption: The text below it.
        wide: Whether it takes the whole width of the page.
        workload: The workload that it shows; empty for all of them.
    """

    heading: str
    text: str
    path: Path
    caption: str = ""
    wide: bool = False
    workload: str = ""

    @property
    def svg(self) -> Path:
        """The same picture, of any size."""
        return self.path.with_suffix(".svg")


def line_styles(contenders: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return colour and line style of each contender; the colours repeat, the pairs do not.

    Widths fall from first to last, so that lines that coincide are all seen.
    """
    colours = palette()
    last = max(1, len(contenders) - 1)
    widest, spread = (3.4, 1.6) if len(contenders) <= _FEW else (2.6, 1.3)
    return {
        name: {
            "color": colours[index % _COLOURS],
            "linestyle": _DASHES[(index // _COLOURS + index) % len(_DASHES)],
            "linewidth": widest - spread * index / last,
        }
        for index, name in enumerate(sorted(contenders))
    }


def palette() -> list[tuple[float, float, float]]:
    """Return eight colours that colour-blind readers can tell apart, all seen on white."""
    bright = sns.color_palette("colorblind", _COLOURS)
    colours = [(_DARKER * red, _DARKER * green, _DARKER * blue) for red, green, blue in bright]
    colours[_PALE] = (0.1, 0.1, 0.1)
    return colours


def markers(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a marker for each contender, set apart so that lines that coincide show theirs."""
    ordered = sorted(names)
    return {
        name: {
            "marker": _MARKERS[index % len(_MARKERS)],
            "markersize": 5.5,
            "markeredgecolor": "white",
            "markeredgewidth": 0.6,
            # Shares of the diagonal of the axes: the first mark, and from one to the next.
            "markevery": (0.02 + 0.16 * index / len(ordered), 0.16),
        }
        for index, name in enumerate(ordered)
    }


@contextmanager
def figure_at(
    path: Path,
    lines: int = 0,
    *,
    panels: int | tuple[int, int] = 1,
    width: float = WIDTH,
    height: float = 3.6,
    **grid: Any,
) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its axes, to be drawn on; write it as PNG and SVG, and close it.

    Args:
        path: The PNG file; the SVG file has the same name with another ending.
        lines: Of the legend, for which there will be room.
        panels: Axes side by side, or rows and columns of them; with more than one, an array of
            them is given.
        width: Of the figure, in inches.
        height: Of the figure without its legend, in inches.
        grid: Of ``plt.subplots``: shared axes, ratios of widths or heights.
    """
    rows, columns = (1, panels) if isinstance(panels, int) else panels
    with (
        warnings.catch_warnings(),
        sns.axes_style("whitegrid"),
        plt.rc_context(_LOOKS),
    ):
        # A stranger's name may have letters that the font lacks: boxes will do.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height + 0.22 * lines), layout="constrained", **grid
        )
        try:
            yield figure, axes
            _label_short_scales(figure)
            # Laid out once: with a layout engine every file would be drawn twice.
            if (engine := figure.get_layout_engine()) is not None:
                engine.execute(figure)
            figure.set_layout_engine(None)
            vectors = path.with_suffix(".svg")
            for file in (path, vectors):
                check_replaceable(file)
            figure.savefig(path, dpi=125)
            _rasterize_dense(figure)
            figure.savefig(vectors, dpi=200, metadata={"Date": None})
        finally:
            plt.close(figure)


def _label_short_scales(figure: Any) -> None:
    """Write plain numbers on a logarithmic axis that spans less than two decades."""
    for axis in figure.axes:
        for scale in (axis.xaxis, axis.yaxis):
            low, high = scale.get_view_interval()
            if scale.get_scale() == "log" and low > 0 and high < _SHORT * low:
                subs = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 5, 7)
                subs = subs if high > 4 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 6, 8)
                scale.set_major_locator(LogLocator(subs=subs))
                scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                scale.set_minor_formatter(NullFormatter())


def _rasterize_dense(figure: Any) -> None:
    """Let an SVG with very many points hold its lines and bands as an image: it stays small."""
    drawn = [artist for axis in figure.axes for artist in (*axis.lines, *axis.collections)]
    counts = [
        sum(len(path.vertices) for path in artist.get_paths())
        if hasattr(artist, "get_paths")
        else len(artist.get_xdata())
        for artist in drawn
    ]
    if sum(counts) > _DENSE:
        for artist in drawn:
            artist.set_rasterized(True)


def legend(figure: Any, names: list[str], handles: list[Any], columns: int) -> None:
    """Put a legend below the axes; a stranger's names are shown as they are."""
    # Explicit handles: matplotlib leaves out labels that begin with an underscore.
    labels = [plain(name) if not name.startswith("_") else f" {plain(name)}" for name in names]
    drawn = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2
    )
    for text in drawn.get_texts():
        text.set(**NO_MATH)


def legend_columns(names: list[str], width: float = WIDTH) -> int:
    """Return how many columns of a legend fit."""
    longest = max(map(len, names), default=1)
    return max(1, min(len(names), int(width // (_HANDLE + _LETTER * longest))))


def legend_lines(names: list[str], width: float = WIDTH) -> int:
    """Return how many lines the legend takes."""
    return -(-len(names) // legend_columns(names, width))


def file_slug(name: str) -> str:
    """Return a stranger's name as a part of a file's name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:40]
