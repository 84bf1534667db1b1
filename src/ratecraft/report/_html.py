"""HTML parts of a report: page, style sheet, figures and collapsible sections."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from ratecraft._render._chart import Chart
from ratecraft._render._svg import svg_chart


def page(title: str, sections: Sequence[str]) -> str:
    """Return an HTML page of the given sections; it loads no resources and runs no script."""
    style = files("ratecraft.report").joinpath("_style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def figure(chart: Chart, caption: str, *, height: int = 360) -> str:
    """Return a chart with its caption.

    The chart is included in two widths, since the text of the broad one would be too small on a
    phone; the style sheet shows one of them.
    """
    broad = svg_chart(chart, height=height)
    narrow = svg_chart(chart, width=360, height=min(height, 320), points=300)
    charts = (
        svg.replace("<svg ", f'<svg class="{css_class}" ', 1)
        for css_class, svg in (("broad", broad), ("narrow", narrow))
    )
    return "\n".join(
        ["<figure>", *charts, f"<figcaption>{escape(caption)}</figcaption>", "</figure>"]
    )


def collapsible(summary: str, parts: Sequence[str]) -> str:
    """Return a section that opens when its summary, which is HTML, is clicked."""
    return "\n".join([f"<details><summary>{summary}</summary>", *parts, "</details>"])
