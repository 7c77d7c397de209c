"""Render pages from templates, in HTML and Markdown.

The HTML page of a report is a single file with its pictures inline. It makes no network requests:
its Content-Security-Policy allows only its own inline style and script. Pages of one site share
their style and script as files beside them.
"""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.report.formats import markdown_table, table_csv
from analysis.report.publish import publish
from analysis.report.table import Column, ScoreEstimate, Table, is_missed
from analysis.wording import escape_markdown, plain, spreadsheet_cell

if TYPE_CHECKING:
    import jinja2
    import markupsafe
    import pandas as pd

    from analysis.report.plots.canvas import Plot

_TEMPLATES = Path(__file__).parent / "templates"
_LONG = 40  # characters; longer cells break lines
_LARGEST = 5_000_000  # characters of a page: pictures have the room that its text leaves
# No hashes: Chromium refuses to verify a file beside a page that was opened from disk. `file:` is
# for browsers in which 'self' does not cover such a file; a page from a server gains nothing by it.
_LINKED_POLICY = (
    "default-src 'none'; style-src 'self' file:; script-src 'self' file:; base-uri 'none'; "
    "form-action 'none'"
)


def write_pages(template: str, context: dict[str, Any], out: Path) -> None:
    """Write ``report.html`` and ``report.md`` into ``out``.

    Args:
        template: Name of the templates, without ``.html.j2`` and ``.md.j2``.
        context: The template's variables; strings are escaped and lose control characters.
        out: An existing folder.
    """
    publish(out / "report.html", render_html(template, context))
    publish(out / "report.md", render_markdown(template, context))


def render_html(template: str, context: dict[str, Any]) -> str:
    """Render an HTML page as a single file.

    Args:
        template: The name of the template, without ``.html.j2``.
        context: The template's variables; strings are escaped and lose control characters.
    """
    style, script = source("page.css"), source("page.js", "plots.js")
    inlined = {"linked": False, "style": style, "script": script}
    context = context | inlined | {"policy": _policy(style, script)}
    text = _render(template, context, room=0)
    return _render(template, context, room=_LARGEST - len(text))


def render_linked_html(template: str, context: dict[str, Any], style: str, script: str) -> str:
    """Render an HTML page of a site.

    Args:
        template: The name of the template, without ``.html.j2``.
        context: The template's variables; strings are escaped and lose control characters.
        style: The relative link to the style sheet, see :func:`source`.
        script: The relative link to the script.
    """
    linked = {"linked": True, "style": style, "script": script, "policy": _LINKED_POLICY}
    return _render(template, context | linked, room=_LARGEST)


def source(*names: str) -> str:
    """Return the joined text of style sheets or scripts, by their file names."""
    return "".join((_TEMPLATES / name).read_text("utf-8") for name in names)


def _render(template: str, context: dict[str, Any], room: int) -> str:
    environment = _environment(autoescape=True, finalize=_as_text)
    environment.filters |= {"json": _names, "attributes": _attributes}
    environment.filters |= {"embed": Pictures(room).embed, "label": _label, "csv": _csv_attribute}
    return environment.get_template(f"{template}.html.j2").render(context)


def render_markdown(template: str, context: dict[str, Any]) -> str:
    """Render a Markdown page; the filter ``cell`` escapes text, ``table`` writes a table."""
    environment = _environment(autoescape=False)
    environment.filters |= {"cell": escape_markdown, "table": markdown_table}
    return environment.get_template(f"{template}.md.j2").render(context)


def _environment(**options: Any) -> "jinja2.Environment":
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, **options,
    )  # fmt: skip


def _as_text(value: Any) -> Any:
    """Return a string without control characters, and any other value, such as markup, as it is."""
    return plain(value) if type(value) is str else value


class Pictures:
    """The pictures of one page: those that come first have room in it.

    Args:
        room: The number of characters for all of them.
    """

    def __init__(self, room: int) -> None:
        self._left = room

    def embed(self, plot: "Plot") -> str:
        """Return a picture's SVG; nothing if the page has no room left for it."""
        text = plot.svg.read_text("utf-8")
        if len(text) > self._left:
            return ""
        self._left -= len(text)
        return text


def write_csv(table: "pd.DataFrame", out: Path | None) -> None:
    """Write a data frame as CSV to a file or to standard output, without spreadsheet formulas."""
    table = table.copy(deep=False)
    for name in table.select_dtypes("category"):
        names = {text: spreadsheet_cell(text) for text in table[name].cat.categories}
        # Assigned as strings, because two categories may become equal.
        table[name] = [names[text] for text in table[name]]
    if out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        publish(out, table.to_csv(index=False, lineterminator="\n"))


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: inline style and script by hash, no network."""
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


def _attributes(value: Any, column: Column) -> dict[str, str]:
    """Return the HTML attributes of a cell: its sort key and its classes."""
    if column.format.is_text:
        return {"class": "left long" if len(column.format.text(value)) > _LONG else "left"}
    key = column.format.key(value)
    if key is None or is_missed(key):
        return {"data-sort": "", "class": "missed"}
    found = {"data-sort": repr(float(key))}
    if isinstance(value, ScoreEstimate) and value.shares:
        found["data-shares"] = json.dumps(
            {plain(name): round(share, 6) for name, share in value.shares.items()}
        )
    return found


def _csv_attribute(table: Table) -> "markupsafe.Markup":
    """Return a table's CSV, escaped here because its line ends must stay."""
    import markupsafe

    return markupsafe.escape(table_csv(table))


def _label(caption: str) -> str:
    """Return the beginning of a caption, the label of a scrolling region."""
    return re.split(r"[:;.](?: |$)", caption)[0]
