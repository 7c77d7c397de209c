"""Finish the SVG files of plots, so that a page can show them inline and read their values.

An artist with a :class:`Tag` becomes a group with these attributes, which the page's script reads:

    data-contender   whom it shows
    data-names       the names of the values, separated by ``|``
    data-values      the points, separated by ``;``, with values separated by ``,``: x and y first

The group of its axes gets the box, scales and limits, and ticks get a class. Styles become
presentation attributes, because the page's Content-Security-Policy forbids inline styles.
"""

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.wording import plain

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_DIGITS = 4  # of a value; the CSV files have all
# The font of all text: the page's own, so that a reader without matplotlib's sees no other widths.
_FONT = "DejaVu Sans, Verdana, sans-serif"


@dataclasses.dataclass(frozen=True)
class Tag:
    """Whom an artist shows, and its values.

    Attributes:
        contender: The name; empty if it is about no single contender.
        names: The names of the values; an empty name is not shown.
        values: One array for each name, x and y first.
        kind: ``line``, ``band``, ``upright`` or ``dots``: how it is drawn again after a zoom.
    """

    contender: str
    names: Sequence[str] = ()
    values: Sequence[Any] = ()
    kind: str = "dots"

    def attributes(self) -> dict[str, str]:
        """Return the attributes of the group."""
        found = {"data-contender": plain(self.contender), "data-kind": self.kind}
        if self.names:
            found["data-names"] = "|".join(map(plain, self.names))
            rows = zip(*self.values, strict=True)
            found["data-values"] = ";".join(",".join(map(_text, row)) for row in rows)
        return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        return re.sub("[,;]", " ", plain(value))
    return f"{float(value):.{_DIGITS}g}"


def finish(text: str, tags: Mapping[str, Tag], axes: Mapping[str, Mapping[str, str]]) -> str:
    """Return a plot's SVG with tags and without styles.

    Args:
        text: The SVG as matplotlib writes it.
        tags: The tags by the ids of their groups.
        axes: Further attributes of axes by the ids of their groups.
    """
    ET.register_namespace("", _SVG)
    root = ET.fromstring(text)
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt", "font-family": _FONT}
    for element in root.iter():
        element.attrib.update(_presentation(element.attrib.pop("style", "")))
        if (target := element.attrib.pop(_XLINK, None)) is not None:
            element.attrib["href"] = target
        if "d" in element.attrib:
            element.attrib["d"] = _rounded(element.attrib["d"])
        name = element.attrib.get("id", "")
        if name in tags or name in axes:
            del element.attrib["id"]
            element.attrib |= tags[name].attributes() if name in tags else axes[name]
        elif element.tag == f"{{{_SVG}}}g":
            element.attrib.pop("id", None)  # equal in all plots, and a page has many of them
            if name.startswith(("xtick", "ytick")):
                element.attrib["class"] = "tick"
    return ET.tostring(root, encoding="unicode")


def _presentation(style: str) -> Iterable[tuple[str, str]]:
    """Yield the declarations of a style as presentation attributes."""
    for declaration in filter(None, map(str.strip, style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":  # no presentation attribute; the family is the root's
            size = re.search(r"([\d.]+)px", value)
            yield "font-size", size[1] if size else "10"
        elif name != "font-family":
            yield name, value.removesuffix("px") if name == "font-size" else value


def _rounded(path: str) -> str:
    """Return a path with coordinates to a tenth of a point, on one line."""
    short = re.sub(r"-?\d+\.\d{2,}", lambda match: f"{float(match[0]):.1f}", path)
    return " ".join(short.split())
