"""HTML tables and figures, and the color keys that connect them."""

from collections.abc import Iterable, Sequence
from html import escape

from ._chart import PALETTE, Chart
from ._svg import svg_chart


def table(
    head: Sequence[str], rows: Iterable[str], *, text_columns: int = 1, css_class: str = ""
) -> str:
    """Return a table; the first ``text_columns`` columns are text, the rest numbers."""
    cells = [
        f'<th scope="col"{_text_class(i < text_columns)}>{escape(name)}</th>'
        for i, name in enumerate(head)
    ]
    # On a phone the table scrolls within its box; tabindex lets the keyboard scroll it.
    return (
        f'<div class="{" ".join(["wide", *css_class.split()])}" tabindex="0"><table>\n'
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


def color_key(number: int) -> str:
    """Return a small square in the color that a chart gives to line number ``number``."""
    color = PALETTE[number % len(PALETTE)]
    return f'<span class="key" style="background:{color}"></span>'


def figure(chart: Chart, caption: str, *, height: int = 360) -> str:
    """Return a chart with its caption."""
    # In two widths, of which the style sheet shows one: on a phone the text of the broad one would
    # be too small.
    broad = svg_chart(chart, height=height).replace("<svg ", '<svg class="broad" ', 1)
    narrow = svg_chart(chart, width=360, height=min(height, 320), points=300)
    narrow = narrow.replace("<svg ", '<svg class="narrow" ', 1)
    text = f"<figcaption>{escape(caption)}</figcaption>"
    return "\n".join(["<figure>", broad, narrow, text, "</figure>"])


def collapsible(summary: str, parts: Sequence[str]) -> str:
    """Return a section that opens when its summary, which is HTML, is clicked."""
    return "\n".join([f"<details><summary>{summary}</summary>", *parts, "</details>"])
