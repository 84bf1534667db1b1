"""HTML headings, tables and figures."""

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from ._chart import Chart
from ._svg import chart_data, svg_chart

MAX_FLAT_ROWS: Final = 12  # a longer table scrolls within a box
MAX_PAGE_POINTS: Final = 600  # of a line; the plot is about as many pixels wide


def heading(text: str) -> str:
    """Return a heading that the list of contents can link to."""
    return f'<h2 id="{anchor(text)}">{escape(text)}</h2>'


def anchor(text: str) -> str:
    """Return a text as an id: lower case, with hyphens."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def table(
    head: Sequence[str], rows: Iterable[str], *, text_columns: int = 1, css_class: str = ""
) -> str:
    """Return a table; the first ``text_columns`` columns are text, the rest numbers."""
    cells = [
        f'<th scope="col"{_text_class(i < text_columns)}>{escape(name)}</th>'
        for i, name in enumerate(head)
    ]
    rows = list(rows)
    classes = ["wide", *["tall"] * (len(rows) > MAX_FLAT_ROWS), *css_class.split()]
    # On a phone the table scrolls within its box; tabindex lets the keyboard scroll it.
    return (
        f'<div class="{" ".join(classes)}" tabindex="0"><table>\n'
        f"<thead><tr>{''.join(cells)}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def table_row(cells: Iterable[str], *, text_columns: int = 1, css_class: str = "") -> str:
    """Return a table row; the cells are HTML."""
    filled = (f"<td{_text_class(i < text_columns)}>{cell}</td>" for i, cell in enumerate(cells))
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<tr{attribute}>{''.join(filled)}</tr>"


def name_cell(key: str, name: str, schedule: str = "", notes: Iterable[str] = ()) -> str:
    """Return the cell of a row's name, with its color key, its schedule and notes."""
    code = f"<code>{escape(schedule)}</code>" if schedule else ""
    divs = (f'<div class="soft">{escape(note)}</div>' for note in notes)
    return f"{key}<strong>{escape(name)}</strong>{code}{''.join(divs)}"


def _text_class(is_text: bool) -> str:
    return ' class="text"' if is_text else ""


def figure(chart: Chart, caption: str, *, height: int = 360) -> str:
    """Return a chart with its caption, and its data for the script of the page."""
    # In two widths, of which the style sheet shows one: on a phone the text of the broad one would
    # be too small.
    pictures = _in_two_widths(
        svg_chart(chart, height=height, points=MAX_PAGE_POINTS),
        svg_chart(chart, width=360, height=min(height, 320), points=300),
    )
    data = json.dumps(chart_data(chart, MAX_PAGE_POINTS), separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # data cannot end the element
        data = data.replace(character, f"\\u{ord(character):04x}")
    script = f'<script type="application/json">{data}</script>'
    return "\n".join(["<figure>", *pictures, _caption(caption), script, "</figure>"])


def static_figure(broad: str, narrow: str, caption: str) -> str:
    """Return a picture in two widths, as SVG, with its caption."""
    return "\n".join(["<figure>", *_in_two_widths(broad, narrow), _caption(caption), "</figure>"])


def _in_two_widths(broad: str, narrow: str) -> list[str]:
    return [
        svg.replace("<svg ", f'<svg class="{css_class}" ', 1)
        for css_class, svg in (("broad", broad), ("narrow", narrow))
    ]


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>"


def collapsible(summary: str, parts: Sequence[str], *, id: str = "") -> str:
    """Return a section that opens when its summary, which is HTML, is clicked."""
    attribute = f' id="{id}"' if id else ""
    return "\n".join([f"<details{attribute}><summary>{summary}</summary>", *parts, "</details>"])
