"""Pages from templates: HTML and Markdown of the same content, CSV files, pictures inside.

The HTML page is one file that asks nobody for anything: its policy forbids it to, and lets only the
one style and the one script run that it was written with.
"""

import base64
import csv
import hashlib
import io
import json
import re
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.report.tables import Shown, Table
from analysis.text import escape_markdown, plain, spreadsheet_cell
from metaopt.bench.records import write_text

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

    from analysis.report.plots.canvas import Plot

_TEMPLATES = Path(__file__).parent / "templates"
_LONG = 40  # characters of a cell above which it breaks lines


def write_pages(template: str, context: dict[str, Any], out: Path) -> None:
    """Write ``report.html`` and ``report.md`` into ``out``.

    Args:
        template: Name of the templates, without ``.html.j2`` and ``.md.j2``.
        context: What they show; strings are escaped for either.
        out: An existing folder.
    """
    publish(out / "report.html", render_html(template, context))
    publish(out / "report.md", render_markdown(template, context))


def render_html(template: str, context: dict[str, Any], *more_styles: str) -> str:
    """Return a page with the style and the script that all of ours have.

    Args:
        template: Its name, without ``.html.j2``.
        context: What it shows; strings are escaped.
        more_styles: Style sheets beside the templates, which come after the common one.
    """
    style, script = (
        "".join((_TEMPLATES / name).read_text("utf-8") for name in names)
        for names in (("page.css", *more_styles), ("page.js",))
    )
    environment = _environment(autoescape=True)
    environment.filters |= {"json": _names, "sort_key": _sort_key, "classes": _classes}
    environment.filters |= {"embed": embed, "label": _label}
    inlined = {"style": style, "script": script, "policy": _policy(style, script)}
    return environment.get_template(f"{template}.html.j2").render(context | inlined)


def render_markdown(template: str, context: dict[str, Any]) -> str:
    """Return a page from the template ``template`` without ``.md.j2``; ``cell`` escapes."""
    environment = _environment(autoescape=False)
    environment.filters["cell"] = escape_markdown
    return environment.get_template(f"{template}.md.j2").render(context)


def _environment(*, autoescape: bool) -> "jinja2.Environment":
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined,
        autoescape=autoescape, trim_blocks=True,
    )  # fmt: skip


def publish(path: Path, text: str) -> None:
    """Write a file that everybody may read: records are the owner's, a report is to be shown."""
    write_text(path, text)
    path.chmod(0o644)


def embed(plot: "Plot") -> dict[str, Any]:
    """Return a picture's SVG as a page holds it, and its size in CSS pixels."""
    width, height = struct.unpack(">II", plot.path.read_bytes()[16:24])
    data = base64.b64encode(plot.svg.read_bytes()).decode("ascii")
    return {"data": data, "width": round(width * 0.768), "height": round(height * 0.768)}


def csv_text(header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return a CSV file: numbers to the last digit, no text that a spreadsheet would compute."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(spreadsheet_cell, header))
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def write_csv(table: "pd.DataFrame", out: Path | None) -> None:
    """Write a table as CSV, text as :func:`csv_text` does, to a file or the standard output."""
    table = table.copy(deep=False)
    for name in table.select_dtypes("category"):
        names = {text: spreadsheet_cell(text) for text in table[name].cat.categories}
        # Two names may differ in what is not shown: they stay two rows, under one text.
        table[name] = [names[text] for text in table[name]]
    if out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        publish(out, table.to_csv(index=False, lineterminator="\n"))


def table_csv(table: Table) -> str:
    """Return a table as CSV: a cell that is a number to the last digit, any other as its text.

    Examples:
        >>> cells = Shown("1,200", 1200.25), Shown("6-2-1", 6.0), Shown("0.8 (0.7 to 0.9)", 0.8)
        >>> print(table_csv(Table("", ("cost", "wins-ties-losses", "beats it"), (cells,))), end="")
        cost,wins-ties-losses,beats_it
        1200.25,6-2-1,0.8 (0.7 to 0.9)
    """
    header = tuple(name.replace(" ", "_") for name in table.header)
    return csv_text(header, [tuple(map(_number_or_text, row)) for row in table.rows])


def _number_or_text(cell: str) -> str | float:
    if not isinstance(cell, Shown) or cell.sort is None:
        return cell
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell
    return cell.sort


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return repr(value) if isinstance(value, int | float) else spreadsheet_cell(value)


def _policy(style: str, script: str) -> str:
    """Return what a page may do: show what is in it, run its one script, ask nobody."""
    digests = [
        base64.b64encode(hashlib.sha256(part.encode("utf-8")).digest()).decode("ascii")
        for part in (style, script)
    ]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; "
        f"script-src 'sha256-{digests[1]}'; base-uri 'none'; form-action 'none'"
    )


def _names(values: Sequence[str]) -> str:
    return json.dumps([plain(value) for value in values])


def _sort_key(cell: Shown) -> str:
    return "" if cell.sort is None else repr(cell.sort)


def _classes(cell: str) -> str:
    if isinstance(cell, Shown):
        return "missed" if cell.sort is None else ""
    return "left long" if len(cell) > _LONG else "left"


def _label(caption: str) -> str:
    """Return the beginning of a caption, as the name of what scrolls."""
    return re.split(r"[:;.](?: |$)", caption)[0]
