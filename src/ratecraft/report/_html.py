"""HTML parts of a report: page, style sheet, tables, figures and collapsible sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from ratecraft._render._svg import FAINT, GRID, PALETTE, SOFT, TEXT, svg_chart

from ._series import Line

# Line colors too dark for a dark page, and their replacements.
_DARK_REPLACEMENTS: Final = {"#0072b2": "#1f87c9", "#000000": "#e8e9eb"}
# Chart colors that follow the page's CSS variables.
_PAGE_VARIABLES: Final = {TEXT: "--ink", SOFT: "--soft", GRID: "--grid", FAINT: "--faint"}

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5d636b; --line: #dcdfe3;
        --page: #f6f7f8; --card: #ffffff; --best: #0072b214; --grid: #e4e4e4; --faint: #b5b5b5; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e8e9eb; --soft: #a2a8b0; --line: #3a3f46; --page: #15171a; --card: #1e2125;
          --best: #56b4e926; --grid: #33383e; --faint: #6f767e; } DARK_RULES }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; break-after: avoid; }
p { margin: .4rem 0; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.verdict { margin: 1.25rem 0 0; padding: .9rem 1.1rem; background: var(--card); font-size: 1.08rem;
           border: 1px solid var(--line); border-left: 4px solid #0072b2; border-radius: 6px; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
        border-radius: 6px; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .75rem; text-align: right; border-top: 1px solid var(--line);
         vertical-align: top; }
td { white-space: nowrap; } td.text { white-space: normal; }
thead th { border-top: 0; color: var(--soft); font-size: .85rem; font-weight: 600;
           vertical-align: bottom; }
.text { text-align: left; overflow-wrap: anywhere; min-width: 13rem; }
.prose td { white-space: normal; } .prose td:nth-child(3) { min-width: 7rem; }
.prose td:last-child, .prose th:last-child { text-align: left; min-width: 9rem; }
.small td, .small th { padding: .2rem .6rem; font-size: .85rem; }
tr.best { background: var(--best); } tr.best td.text strong { font-weight: 700; }
code, pre { font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre code { font: inherit; } td code { display: block; color: var(--soft); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em; }
figure { margin: .75rem 0 1rem; break-inside: avoid; }
figure > svg { display: block; width: 100%; height: auto; background: var(--card);
               border: 1px solid var(--line); border-radius: 6px; }
figure > svg.narrow { display: none; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; overflow-wrap: anywhere; }
CHART_RULES
summary { cursor: pointer; font-weight: 600; margin: 2rem 0 .75rem; overflow-wrap: anywhere; }
details details summary { font-weight: 400; margin: .4rem 0; }
details details { margin-left: 1rem; }
footer { margin-top: 2.5rem; padding-top: .5rem; border-top: 1px solid var(--line);
         font-size: .92rem; }
footer h2 { margin-top: 1.25rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0;
      padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media screen and (max-width: 560px) {
  main { padding: 1.25rem .75rem 2rem; } h1 { font-size: 1.4rem; }
  th, td { padding: .4rem .5rem; } .text { min-width: 9rem; } details details { margin-left: 0; }
  figure > svg.broad { display: none; } figure > svg.narrow { display: block; } }
@media print { body { font-size: 10pt; } main { max-width: none; padding: 0; }
  :root { color-scheme: light; } .wide { overflow: visible; } tr { break-inside: avoid; }
  table { font-size: 8.5pt; } th, td { padding: .3rem .4rem; } .text { min-width: 0; }
  :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff; --card: #fff; --best: #eef5fa; } }
"""


def page(title: str, sections: Sequence[str]) -> str:
    """Return an HTML page of the given sections; it loads no resources and runs no script."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _style() -> str:
    """Return the style sheet, which also adapts charts drawn for white paper to the page."""
    chart_rules = "figure svg rect { fill: none; }\n"
    for color, name in _PAGE_VARIABLES.items():
        chart_rules += f'figure [fill="{color}"] {{ fill: var({name}); }} '
        chart_rules += f'figure [stroke="{color}"] {{ stroke: var({name}); }}\n'
    dark_rules = ""
    for color, lighter in _DARK_REPLACEMENTS.items():
        dark_rules += f'\n  figure [fill="{color}"] {{ fill: {lighter}; }}'
        dark_rules += f' figure [stroke="{color}"] {{ stroke: {lighter}; }}'
        dark_rules += f' .key[style$="{color}"] {{ background: {lighter} !important; }}'
    return _STYLE.replace("CHART_RULES", chart_rules.strip()).replace("DARK_RULES", dark_rules)


def table(
    head: Sequence[str], rows: Sequence[str], *, text_columns: int = 1, css_class: str = ""
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


def row(cells: Sequence[str], *, text_columns: int = 1, css_class: str = "") -> str:
    """Return a table row; the cells are HTML."""
    filled = (f"<td{_text_class(i < text_columns)}>{cell}</td>" for i, cell in enumerate(cells))
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<tr{attribute}>{''.join(filled)}</tr>"


def _text_class(is_text: bool) -> str:
    return ' class="text"' if is_text else ""


def color_key(index: int) -> str:
    """Return a small square in the color of a chart's line number ``index``."""
    color = PALETTE[index % len(PALETTE)]
    return f'<span class="key" style="background:{color}"></span>'


def figure(lines: Mapping[str, Line], caption: str, *, height: int = 360, **chart: Any) -> str:
    """Return a chart (see `svg_chart`) with its caption.

    The chart is included in two widths, since the text of the broad one would be too small on a
    phone; the style sheet shows one of them.
    """
    broad = svg_chart(lines, height=height, **chart)
    narrow = svg_chart(lines, width=360, height=min(height, 320), points=300, **chart)
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


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun in the singular or plural."""
    return f"{count} {noun}{'s' * (count != 1)}"
