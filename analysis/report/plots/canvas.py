"""Colours, line styles, sizes, legends and files of all plots, readable in print too."""

import dataclasses
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.report.plots.vectors import Tag, finish
from analysis.report.publish import check_replaceable, publish
from analysis.wording import plain

NO_MATH = {"parse_math": False}  # an untrusted name may contain a dollar sign
WIDTH = 5.6  # inches; a wide plot has twice the width
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1.5, 1))]
_MARKERS = "oDs^vP*X<hp>"
_COLOURS = 8
_PALE = 6  # index of the palette's pink, which is invisible on white
_DARKER = 0.88  # factor that gives the other colours a contrast of at least 3 with white
_FEW = 6  # the most contenders whose lines are wide
_HANDLE, _LETTER = 0.76, 0.078  # inches: a legend entry without its text, a letter
_SHORT = 1000.0  # ratio of a logarithmic axis's ends; from here on powers of ten are enough
_LABEL_GAP = 4  # pixels between the labels of an axis
_DENSE = 20_000  # points in one plot, above which the SVG stores lines and bands as an image
_CROWDED = 1_000  # lines in one plot, likewise
_LOOKS: Any = {
    "font.size": 10,
    "legend.fontsize": 9,
    "axes.titlesize": 11,
    "svg.fonttype": "none",  # text, to be selected and read aloud
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """One plot with its texts and files.

    Attributes:
        heading: The heading of its section.
        text: The alt text.
        path: The PNG file; the SVG file is in the same folder.
        caption: The text below the plot.
        wide: Whether the plot takes the whole width of the page.
        workload: The workload that the plot shows; empty for all workloads.
    """

    heading: str
    text: str
    path: Path
    caption: str = ""
    wide: bool = False
    workload: str = ""

    @property
    def svg(self) -> Path:
        """The SVG file."""
        return self.path.with_suffix(".svg")


def line_styles(contenders: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the colour and line style of each contender; each pair of the two is unique.

    Widths decrease from first to last, so that coinciding lines all stay visible.
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
    """Return eight colours that colour-blind readers can distinguish, all visible on white."""
    bright = sns.color_palette("colorblind", _COLOURS)
    colours = [(_DARKER * red, _DARKER * green, _DARKER * blue) for red, green, blue in bright]
    colours[_PALE] = (0.1, 0.1, 0.1)
    return colours


def markers(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a marker for each contender, staggered so that coinciding lines stay visible."""
    ordered = sorted(names)
    return {
        name: {
            "marker": _MARKERS[index % len(_MARKERS)],
            "markersize": 5.5,
            "markeredgecolor": "white",
            "markeredgewidth": 0.6,
            # Offset of the first marker and spacing, as shares of the axes' diagonal.
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
    """Yield a figure and its axes; on exit write the figure as PNG and SVG, and close it.

    Args:
        path: The PNG file; the SVG file has the same name with another suffix.
        lines: The number of lines to reserve for the legend.
        panels: The number of columns of axes, or of rows and columns. With more than one panel,
            an array of axes is yielded.
        width: The width of the figure in inches.
        height: The height of the figure without its legend, in inches.
        grid: Further arguments of ``plt.subplots``: shared axes, ratios of widths or heights.
    """
    rows, columns = (1, panels) if isinstance(panels, int) else panels
    with (
        warnings.catch_warnings(),
        sns.axes_style("whitegrid"),
        # The same plot gives the same file, and two plots of a page never the same id.
        plt.rc_context(_LOOKS | {"svg.hashsalt": path.stem}),
    ):
        # An untrusted name may have letters that the font lacks: they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height + 0.22 * lines), layout="constrained", **grid
        )
        try:
            yield figure, axes
            _label_short_scales(figure)
            # With a layout engine, every file would be drawn twice.
            if (engine := figure.get_layout_engine()) is not None:
                engine.execute(figure)
            _hide_overlapping_labels(figure)
            figure.set_layout_engine(None)
            check_replaceable(path)
            figure.savefig(path, dpi=125)
            _rasterize_dense(figure)
            publish(path.with_suffix(".svg"), _vectors(figure))
        finally:
            plt.close(figure)


def tag(artist: Any, contender: str, kind: str = "dots", **values: Any) -> None:
    """Say whom an artist shows, and with which values, for the page's highlights and tooltips.

    Args:
        artist: The artist.
        contender: The contender's name; empty if it is about no single one.
        kind: ``line``, ``band``, ``upright`` or ``dots``.
        values: Arrays of equal length by name: x and y first, and then the ends of a band, low and
            high. Names that end with an underscore are not shown; others have spaces for them.
    """
    names = ["" if name.endswith("_") else name.replace("_", " ") for name in values]
    artist.metaopt_tag = Tag(contender, names, tuple(map(np.atleast_1d, values.values())), kind)


def tag_band(line: Any, area: Any, contender: str, along: str, band: Any) -> None:
    """Tag a line and the area around it; ``band`` has x, middle, low and high."""
    ends = {"low": band.low, "high": band.high}
    tag(line, contender, "line", **{along: band.x}, value=band.middle, **ends)
    tag(area, contender, "band")


def tag_labels(axis: Any, contenders: Sequence[str]) -> None:
    """Say of each label of a vertical axis which contender it names."""
    for label, name in zip(axis.get_yticklabels(), contenders, strict=True):
        tag(label, name)


def _vectors(figure: Any) -> str:
    """Return the figure as SVG, with the tags of its artists and the scales of its axes."""
    tags, axes = {}, {}
    for index, artist in enumerate(figure.findobj(_is_tagged)):
        artist.set_gid(f"tagged-{index}")
        tags[f"tagged-{index}"] = artist.metaopt_tag
    width, height = 72 * figure.get_size_inches()
    for index, axis in enumerate(figure.axes):
        left, bottom, right, top = axis.get_position().extents
        box = width * left, height * (1 - top), width * (right - left), height * (top - bottom)
        known = {"data-box": " ".join(f"{value:.2f}" for value in box)}
        for name, scale, ends in (
            ("data-x", axis.get_xscale(), axis.get_xlim()),
            ("data-y", axis.get_yscale(), axis.get_ylim()),
        ):
            known[name] = f"{scale} {ends[0]:.8g} {ends[1]:.8g}"
        if any(artist.metaopt_tag.kind == "line" for artist in axis.findobj(_is_tagged)):
            known["data-zoom"] = ""
        axis.set_gid(f"scaled-{index}")
        axes[f"scaled-{index}"] = known
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
    return finish(buffer.getvalue(), tags, axes)


def _is_tagged(artist: Any) -> bool:
    return hasattr(artist, "metaopt_tag")


def _label_short_scales(figure: Any) -> None:
    """Write plain numbers on a logarithmic axis that spans less than three decades."""
    for axis in figure.axes:
        for scale in (axis.xaxis, axis.yaxis):
            low, high = scale.get_view_interval()
            if scale.get_scale() == "log" and low > 0 and high < _SHORT * low:
                subs = (1, 3) if high > 100 * low else (1, 2, 5)
                subs = subs if high > 20 * low else (1, 1.5, 2, 3, 5, 7)
                subs = subs if high > 4 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 6, 8)
                scale.set_major_locator(LogLocator(subs=subs))
                scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                scale.set_minor_formatter(NullFormatter())


def _hide_overlapping_labels(figure: Any) -> None:
    """Hide each label of a horizontal logarithmic axis that overlaps the one on its left."""
    for axis in figure.axes:
        if axis.get_xscale() != "log":
            continue
        low, high = axis.get_xlim()
        end = -math.inf
        for label in axis.get_xticklabels():
            box = label.get_window_extent()
            if low <= label.get_position()[0] <= high and label.get_text():
                label.set_visible(box.x0 > end + _LABEL_GAP)
                end = box.x1 if label.get_visible() else end


def _rasterize_dense(figure: Any) -> None:
    """Rasterize lines and bands if there are very many of them, which keeps the SVG small."""
    drawn = [artist for axis in figure.axes for artist in (*axis.lines, *axis.collections)]
    counts = [
        sum(len(path.vertices) for path in artist.get_paths())
        if hasattr(artist, "get_paths")
        else len(artist.get_xdata())
        for artist in drawn
    ]
    if sum(counts) > _DENSE or len(counts) > _CROWDED:
        for artist in drawn:
            artist.set_rasterized(True)


def legend(
    figure: Any, names: list[str], handles: list[Any], columns: int, contenders: Any = ()
) -> None:
    """Put a legend below the axes; names are not parsed as mathematics.

    Args:
        figure: The figure.
        names: The texts.
        handles: The artists that they explain.
        columns: The number of columns.
        contenders: Those of the names that are contenders.
    """
    # Explicit handles: matplotlib leaves out labels that begin with an underscore.
    labels = [plain(name) if not name.startswith("_") else f" {plain(name)}" for name in names]
    drawn = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2
    )
    for name, text, handle in zip(names, drawn.get_texts(), drawn.legend_handles, strict=True):
        text.set(**NO_MATH)
        if name in contenders:
            tag(text, name)
            tag(handle, name)


def legend_columns(names: list[str], width: float = WIDTH) -> int:
    """Return the number of legend columns that fit ``width`` inches."""
    longest = max(map(len, names), default=1)
    return max(1, min(len(names), int(width // (_HANDLE + _LETTER * longest))))


def legend_lines(names: list[str], width: float = WIDTH) -> int:
    """Return the number of lines of the legend."""
    return -(-len(names) // legend_columns(names, width))


def file_slug(name: str) -> str:
    """Return an untrusted name as a safe part of a file name, at most 40 characters."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:40]
