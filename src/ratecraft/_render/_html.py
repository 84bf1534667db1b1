"""HTML tables, and the color keys that connect them to charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ._chart import PALETTE


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


def _text_class(is_text: bool) -> str:
    return ' class="text"' if is_text else ""


def color_key(number: int) -> str:
    """Return a small square in the color that a chart gives to line number ``number``."""
    color = PALETTE[number % len(PALETTE)]
    return f'<span class="key" style="background:{color}"></span>'
