"""Pages from templates: HTML and Markdown of the same content, CSV files, pictures inside."""

import base64
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.text import escape_markdown, spreadsheet_cell
from metaopt.bench.records import write_text

if TYPE_CHECKING:
    import pandas as pd

    from analysis.canvas import Plot

_TEMPLATES = Path(__file__).parent / "templates"


def write_pages(template: str, context: dict[str, Any], out: Path) -> None:
    """Write ``report.html`` and ``report.md`` into ``out``.

    Args:
        template: Name of the templates, without ``.html.j2`` and ``.md.j2``.
        context: What they show; strings are escaped for either.
        out: An existing folder.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(_TEMPLATES)
    html = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    text = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text.filters["cell"] = escape_markdown
    publish(out / "report.html", html.get_template(f"{template}.html.j2").render(context))
    publish(out / "report.md", text.get_template(f"{template}.md.j2").render(context))


def publish(path: Path, text: str) -> None:
    """Write a file that everybody may read: records are the owner's, a report is to be shown."""
    write_text(path, text)
    path.chmod(0o644)


def embed(plot: "Plot") -> dict[str, Any]:
    """Return a picture as a template shows it."""
    data = base64.b64encode(plot.path.read_bytes()).decode("ascii")
    return {
        "name": plot.path.name, "text": plot.text, "caption": plot.caption, "wide": plot.wide,
        "data": data,
    }  # fmt: skip


def csv_text(header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return a CSV file: numbers to the last digit, no text that a spreadsheet would compute."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def write_csv(table: "pd.DataFrame", out: Path | None) -> None:
    """Write a table as CSV, text as :func:`csv_text` does, to a file or the standard output."""
    table = table.copy(deep=False)
    for name in table.select_dtypes("category"):
        names = {text: spreadsheet_cell(text) for text in table[name].cat.categories}
        # Two names may differ in what is not shown: they stay two rows, under one text.
        table[name] = table[name].astype(object).map(names)
    if out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        publish(out, table.to_csv(index=False, lineterminator="\n"))


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return repr(value) if isinstance(value, int | float) else spreadsheet_cell(value)
