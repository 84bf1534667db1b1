"""Draw a chart as SVG text, small enough to inline and without external resources."""

import html
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ._axis import Axis, decimate
from ._chart import DASHES, PALETTE, Chart, wrap

MAX_LINE_POINTS: Final = 1000
MAX_LEGEND_PX: Final = 52  # three rows; further rows add to the height
CHAR_WIDTH_PX: Final = 6.2  # average width of a character at 11 px, since SVG cannot measure text
_TITLE_CHAR_WIDTH_PX = 8.2  # the same at 14 px, semibold

# Colours of text, secondary text, grid lines and faint lines; a page may replace them.
TEXT, SOFT, GRID, FAINT = "#222222", "#555555", "#e4e4e4", "#8c8c8c"


def svg_chart(
    chart: Chart, *, width: int = 640, height: int = 360, points: int = MAX_LINE_POINTS
) -> str:
    """Return a chart as SVG.

    A long line is decimated, with its extremes preserved. Lines are clipped at the axes. A title
    that is longer than the chart is wide takes several lines, which add to the height, as do the
    rows of a legend after the third.

    Args:
        chart: what to draw.
        width: in pixels.
        height: in pixels, with a title of one line and a small legend.
        points: the largest number of points per line.

    >>> from ratecraft.report import Chart, Line
    >>> svg_chart(Chart(lines=[Line("a", [0, 1], [0, 1])], title="a < b"))[:80]
    '<svg xmlns="http://www.w3.org/2000/svg" role="img" width="640" height="360" view'
    """
    x_axis, y_axis = chart.axes(0.02, 0.05)
    title = wrap(chart.title, int((width - 24) / _TITLE_CHAR_WIDTH_PX))
    extra_height = 17 * (len(title) - 1)
    height += extra_height
    pens = _pens(chart)
    legend, legend_height = _legend(chart, pens, width, 40 + extra_height)
    height += max(0, legend_height - MAX_LEGEND_PX)
    y_ticks = y_axis.ticks(max(2, height // 60)) if chart.y_ticks else []
    left = 16 + CHAR_WIDTH_PX * max((len(label) for _, label in y_ticks), default=1)
    top = 46 + extra_height + legend_height
    plot = _Plot(x_axis, y_axis, left, top, width - left - 18, height - top - 42)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="11">',
        f"<title>{html.escape(chart.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *(
            text_element(12, 20 + 17 * i, line, extra=' font-size="14" font-weight="600"')
            for i, line in enumerate(title)
        ),
        legend,
        text_element(12, plot.top - 9, chart.y_label, fill=SOFT),
        text_element(plot.right, height - 8, chart.x_label, anchor="end", fill=SOFT),
        "<g>",  # the script of a report replaces this group, the inner svg and the marks
        *plot.grid(x_axis.ticks(max(2, width // 90)), y_ticks),
        "</g>",
        # An inner svg clips at its edges and, unlike a clip path, needs no unique id.
        f'<svg x="{_n(plot.left)}" y="{_n(plot.top)}" width="{_n(plot.width)}" '
        f'height="{_n(plot.height)}">',
        *plot.contents(chart, pens, points),
        "</svg>",
        "<g>",
        *(plot.mark(x, mark.label) for mark in chart.marks if (x := plot.x(mark.x)) == x),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts)


def _n(value: float) -> str:
    """Return a coordinate rounded to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def text_element(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = TEXT, extra: str = ""
) -> str:
    attributes = f'x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {attributes}{extra}>{html.escape(text)}</text>"


class _Pen(NamedTuple):
    color: str
    style: str


def _pens(chart: Chart) -> list[_Pen]:
    """Return the color and stroke attributes of each line."""
    pens = []
    for line, i in zip(chart.lines, chart.colors(), strict=True):
        pen = _Pen(FAINT, _stroke(FAINT, 1)) if i is None else _palette_pen(i)
        if line.style == "dashed":
            pen = _Pen(pen.color, _stroke(pen.color, 1.5, "3 3"))
        elif line.style == "thick":
            pen = _Pen(pen.color, f'{_stroke(pen.color, 6)} stroke-opacity="0.4"')
        pens.append(pen)
    return pens


def _palette_pen(number: int) -> _Pen:
    color = PALETTE[number % len(PALETTE)]
    return _Pen(color, _stroke(color, 2, DASHES[number // len(PALETTE) % len(DASHES)]))


def _stroke(color: str, width: float, dash: str = "") -> str:
    style = f'stroke="{color}" stroke-width="{width:g}"'
    return f'{style} stroke-dasharray="{dash}"' if dash else style


def svg_key(number: int) -> str:
    """Return a short piece of line number ``number``, for a table or a text."""
    pen = _palette_pen(number)
    drawn = f'<path d="M0 6h22" {pen.style}/>'
    return f'<svg class="key" width="22" height="12" aria-hidden="true">{drawn}</svg>'


def chart_data(chart: Chart, points: int = MAX_LINE_POINTS) -> dict[str, Any]:
    """Return a chart as plain data, from which a script draws it as `svg_chart` does.

    The ``entry`` of a line is the position of the line in the legend that it belongs to: its own,
    or the one with its color.
    """
    colors, entries = chart.colors(), chart.legend()
    by_name = {chart.lines[i].name: i for i in entries}
    by_color = {colors[i]: i for i in reversed(entries) if colors[i] is not None}
    lines = []
    for line, pen, color in zip(chart.lines, _pens(chart), colors, strict=True):
        lines.append(
            {
                "name": line.name,
                "style": line.style,
                "color": pen.color,
                "pen": pen.style,
                "entry": by_name.get(line.name, by_color.get(color)),
                "points": _rounded(decimate(line.xs, line.ys, points)),
                "band": [_rounded(decimate(line.xs, edge, points)) for edge in line.band or ()],
            }
        )
    return {
        "xLabel": chart.x_label,
        "yLabel": chart.y_label,
        "logX": chart.log_x,
        "logY": chart.log_y,
        "yRange": chart.y_range,
        "yTicks": chart.y_ticks,
        "span": chart.span,
        "spanColor": PALETTE[2],
        "marks": [[mark.x, mark.label] for mark in chart.marks],
        "lines": lines,
    }


def _rounded(columns: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """Return numbers with 6 significant digits, ``None`` for those that JSON does not have."""
    return [
        [_short(float(f"{v:.6g}")) if math.isfinite(v) else None for v in column]
        for column in columns
    ]


def _short(value: float) -> float:
    return int(value) if value.is_integer() and abs(value) < 1e6 else value


def _legend(chart: Chart, pens: Sequence[_Pen], width: int, y: int) -> tuple[str, int]:
    """Return the legend, in as many rows as the names need, and its height."""
    x, top, parts = 12.0, y, []
    limit = max(int((width - 60) / CHAR_WIDTH_PX), 2)
    for i in chart.legend():
        line, pen = chart.lines[i], pens[i]
        label = line.name if len(line.name) <= limit else line.name[: limit - 1] + "…"
        size = 22 + CHAR_WIDTH_PX * len(label) + 16
        if x > 12 and x + size > width:
            x, y = 12.0, y + 16
        parts.append(f'<g class="entry" data-line="{i}">')
        if line.style != "crosses":
            parts.append(f'<path d="M{_n(x)} {_n(y - 4)}h16" {pen.style}/>')
        if line.style in ("dots", "crosses"):
            parts += _markers(line.style, [f"{_n(x + 8)} {_n(y - 4)}"], pen.color)
        parts.append(f"{text_element(x + 22, y, label)}</g>")
        x += size
    return "\n".join(parts), y - top + 20 if parts else 0


def _markers(style: str, points: Sequence[str], color: str) -> list[str]:
    """Return a dot or a cross at each point."""
    if style == "crosses":
        path = "".join(f"M{point}m-4-4l8 8m0-8l-8 8" for point in points)
        return [f'<path d="{path}" stroke="{color}" stroke-width="2"/>'] if path else []
    circles = (point.split() for point in points)
    return [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{color}"/>' for x, y in circles]


class _Plot:
    """The rectangle between the axes, and its contents."""

    def __init__(
        self, x_axis: Axis, y_axis: Axis, left: float, top: float, width: float, height: float
    ) -> None:
        self.x_axis, self.y_axis = x_axis, y_axis
        self.left, self.top = left, top
        self.width, self.height = max(width, 20.0), max(height, 20.0)
        self.right, self.bottom = self.left + self.width, self.top + self.height

    def x(self, value: float) -> float:
        """Return the position of an x value within the plot; nan if the axis has none."""
        return self.x_axis.at(value) * self.width

    def grid(
        self, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]
    ) -> list[str]:
        parts, lines = [], ""
        for value, label in y_ticks:
            y = self.bottom - self.y_axis.at(value) * self.height
            lines += f"M{_n(self.left)} {_n(y)}H{_n(self.right)}"
            parts.append(text_element(self.left - 6, y + 4, label, anchor="end", fill=SOFT))
        for value, label in x_ticks:
            x = self.left + self.x(value)
            lines += f"M{_n(x)} {_n(self.top)}V{_n(self.bottom)}"
            parts.append(text_element(x, self.bottom + 16, label, anchor="middle", fill=SOFT))
        corner = f"M{_n(self.left)} {_n(self.top)}V{_n(self.bottom)}H{_n(self.right)}"
        return [
            f'<path d="{lines}" stroke="{GRID}"/>',
            f'<path d="{corner}" stroke="#888888" fill="none"/>',
            *parts,
        ]

    def contents(self, chart: Chart, pens: Sequence[_Pen], points: int) -> list[str]:
        """Return the shaded interval, the bands, and the lines with the faint ones behind."""
        parts = []
        if chart.span is not None:
            left, right = map(self.x, chart.span)
            parts.append(
                f'<path d="M{_n(left)} 0H{_n(right)}V{_n(self.height)}H{_n(left)}Z" '
                f'fill="{PALETTE[2]}" fill-opacity="0.15"/>'
            )
        for line, pen in zip(chart.lines, pens, strict=True):
            edges = [self._stretches(*decimate(line.xs, edge, points)) for edge in line.band or ()]
            for below, above in zip(*edges, strict=False):
                path = "M" + "L".join([*below, *reversed(above)]) + "Z"
                parts.append(f'<path d="{path}" fill="{pen.color}" fill-opacity="0.15"/>')
        drawn = zip(chart.lines, pens, strict=True)
        for line, pen in sorted(drawn, key=lambda pair: pair[0].style != "faint"):
            stretches = self._stretches(*decimate(line.xs, line.ys, points))
            parts += self._line(line.style, stretches, pen)
        return parts

    def _stretches(self, xs: Sequence[float], ys: Sequence[float]) -> list[list[str]]:
        """Return the parts of a line between its gaps, as coordinates in this rectangle."""
        stretches: list[list[str]] = [[]]
        for x, y in zip(map(self.x_axis.at, xs), map(self.y_axis.at, ys), strict=True):
            if math.isnan(x) or math.isnan(y):
                stretches.append([])
                continue
            # Points far outside are clipped anyway; short numbers make a small file.
            y_in = min(max(y, -20.0), 20.0)
            stretches[-1].append(f"{_n(x * self.width)} {_n((1 - y_in) * self.height)}")
        return [stretch for stretch in stretches if stretch]

    def _line(self, style: str, stretches: Sequence[Sequence[str]], pen: _Pen) -> list[str]:
        if style == "crosses":
            return _markers(style, [point for stretch in stretches for point in stretch], pen.color)
        path = "".join("M" + "L".join(stretch) for stretch in stretches if len(stretch) > 1)
        drawn = f'<path d="{path}" {pen.style} fill="none" stroke-linejoin="round"/>'
        # A single point between gaps is a dot: a path would not show it.
        dots = [s for s in stretches if len(s) == 1 or style == "dots"]
        points = _markers("dots", [point for stretch in dots for point in stretch], pen.color)
        return [drawn, *points] if path else points

    def mark(self, position: float, label: str) -> str:
        x = self.left + position
        # The label is above the axes and stays within the chart.
        half_width = CHAR_WIDTH_PX * len(label) / 2
        label_x = min(max(x, self.left + half_width), self.right - half_width)
        path = f"M{_n(x)} {_n(self.top)}V{_n(self.bottom)}"
        text = text_element(
            label_x, self.top - 9, label, anchor="middle", extra=' font-weight="600"'
        )
        return f'<path d="{path}" stroke="{TEXT}" stroke-dasharray="4 3"/>\n{text}'
