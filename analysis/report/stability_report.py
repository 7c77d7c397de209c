"""Write the report on sequential stability: Figure 3 of the paper, and its table."""

from pathlib import Path
from typing import Any

import seaborn as sns
from matplotlib.lines import Line2D

from analysis.report.formats import table_csv
from analysis.report.pages import write_pages
from analysis.report.plots.canvas import Plot, figure_at, legend, legend_columns, legend_lines
from analysis.report.publish import publish
from analysis.report.stability import stability_table
from analysis.wording import plain
from metaopt.bench.records.redaction import redact
from metaopt.bench.records.stability import StabilityRecord, read_stability

_BOUND = (0, (4, 1.5))
_CAPTION = (
    "Mean over trials of the largest spectral norm of products of consecutive transitions at each "
    "gap |r - s|, from the first training step on. Bands: lowest to highest trial. Dashed: the "
    "bound of Definition 3 with the fitted constants."
)


def write_stability_report(folder: Path, out: Path, *, command: str | None = None) -> Path:
    """Write ``report.html``, ``report.md``, ``stability.csv`` and the figure.

    Args:
        folder: The folder with ``stability.json``.
        out: The folder of the report.
        command: The command to show as the origin of the report.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: The record is invalid, or has no finished trial.
    """
    record = read_stability(folder)
    out.mkdir(parents=True, exist_ok=True)
    text = f"{record.name}: norms of products of transitions against the gap"
    path = out / "stability.png"
    picture = Plot("Sequential stability", text, path, _CAPTION, wide=True)
    plot_stability(record, picture.path)
    table = stability_table(record)
    git = record.environment.get("git", {})
    context: dict[str, Any] = {
        "title": record.name,
        "trials": record.trials,
        "steps": record.steps,
        "seed": record.seed,
        "dates": record.started_at[:10],
        "commits": str(git.get("commit")) + (" (modified)" if git.get("dirty") else ""),
        "command": redact(command) if command else None,
        "unfinished": any(len(result.norms) < record.trials for result in record.settings),
        "picture": picture,
        "table": table,
    }
    write_pages("stability", context, out)
    publish(out / "stability.csv", table_csv(table))
    return out / "report.html"


def plot_stability(record: StabilityRecord, path: Path) -> None:
    """Draw the norms against the gap, on a logarithmic axis, as PNG and SVG.

    Lines are means over trials of the largest norm at each gap, bands range from the lowest to the
    highest trial, and dashed lines show the fitted bound kappa^2 (1 - gamma)^(gap + 1).

    Raises:
        ValueError: No setting has a finished trial.
    """
    results = [result for result in record.settings if result.measured]
    if not results:
        raise ValueError(f"{record.name!r} has no finished trial to draw.")
    labels = [*(result.setting.label for result in results), "bound of Definition 3"]
    colours = sns.color_palette("colorblind", 8)
    with figure_at(path, legend_lines(labels)) as (figure, axis):
        handles: list[Any] = []
        for index, result in enumerate(results):
            colour = colours[index % len(colours)]
            columns = list(zip(*result.measured, strict=True))
            mean = [sum(column) / len(column) for column in columns]
            handles += axis.plot(
                result.gaps, mean, color=colour, linewidth=2, marker="oDs^vP*X"[index % 8],
                markersize=4, markevery=(index % 3, 3),
            )  # fmt: skip
            axis.fill_between(
                result.gaps, list(map(min, columns)), list(map(max, columns)), color=colour,
                alpha=0.15, lw=0,
            )  # fmt: skip
            if result.kappa is not None and result.gamma is not None:
                bound = [result.kappa**2 * (1 - result.gamma) ** (gap + 1) for gap in result.gaps]
                axis.plot(result.gaps, bound, color=colour, linewidth=1, linestyle=_BOUND)
        handles.append(Line2D([], [], color="0.3", linewidth=1, linestyle=_BOUND))
        axis.set_title(plain(record.name), parse_math=False)
        axis.set(yscale="log", xlabel="|r - s|", ylabel="norm of the product")
        axis.xaxis.get_major_locator().set_params(integer=True)
        legend(figure, labels, handles, legend_columns(labels))
