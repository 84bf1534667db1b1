"""A line chart as SVG text, small enough to inline and without external resources."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ._axis import Axis, decimate, number

# Okabe and Ito (2008): distinct with any colour vision. Their yellow is left out, since it is too
# light on white. After the last colour the next dash pattern begins.
PALETTE: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000")
DASHES: Final = ("", "6 3", "2 2", "8 3 2 3")

MAX_LINE_POINTS: Final = 1000
_CHAR_WIDTH_PX = 6.2  # average width of a character at 11 px, since SVG cannot measure text

# Colours of text, secondary text, grid lines and faint lines; a page may replace them.
TEXT, SOFT, GRID, FAINT = "#222222", "#555555", "#e4e4e4", "#b5b5b5"


def svg_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    mark: float | None = None,
    band: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    y_range: tuple[float, float] | None = None,
    faint: Collection[str] = (),
    dashed: Mapping[str, str] | None = None,
    width: int = 640,
    height: int = 360,
    points: int = MAX_LINE_POINTS,
) -> str:
    """Return a line chart as SVG.

    Points that are not finite, or not above 0 on a logarithmic axis, become gaps. A long line is
    decimated, with its extremes preserved. Lines are clipped at the axes.

    Args:
        series: x and y values by name.
        title: shown above the chart, and read by screen readers.
        x_label: label of the x axis.
        y_label: label of the y axis.
        log_x: logarithmic x axis.
        log_y: logarithmic y axis.
        mark: x value to mark with a vertical line.
        band: low and high values of a shaded band, by the name of the series.
        y_range: limits of the y axis; default all values.
        faint: names of series to draw thin and grey, behind the others.
        dashed: the series to take the colour from, by the name of the series to draw thin and
            dashed; it is not in the legend.
        width: in pixels.
        height: in pixels.
        points: the largest number of points per line.

    >>> from ratecraft.report import svg_chart
    >>> svg_chart({"a": ([0, 1], [0, 1])}, title="a < b", x_label="x", y_label="y")[:80]
    '<svg xmlns="http://www.w3.org/2000/svg" role="img" width="640" height="360" view'
    """
    band = band or {}
    lines = {name: decimate(xs, ys, points) for name, (xs, ys) in series.items()}
    spreads = {
        name: (decimate(series[name][0], low, points), decimate(series[name][0], high, points))
        for name, (low, high) in band.items()
    }
    xs = [x for line_x, _ in lines.values() for x in line_x if math.isfinite(x)]
    xs += [] if mark is None else [mark]
    ys = [y for _, line_y in lines.values() for y in line_y]
    ys += [y for ends in spreads.values() for _, end in ends for y in end]
    whole = all(float(x).is_integer() for x in xs)
    x_axis = Axis.fit(xs, log=log_x, pad=0.02, whole=whole)
    y_axis = Axis.fit(ys, log=log_y, pad=0.05, upright=True)
    if y_range is not None:
        y_axis = Axis(*y_range, log=log_y)

    pens = _pens(series, faint, dashed or {})
    in_legend = {name: pen for name, pen in pens.items() if name not in (dashed or {})}
    legend, legend_height = _legend(in_legend, width)
    y_ticks = y_axis.ticks(max(2, height // 60))
    left = 16 + _CHAR_WIDTH_PX * max((len(label) for _, label in y_ticks), default=1)
    plot = _Plot(left, 46 + legend_height, width - left - 18, height - 46 - legend_height - 42)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="11">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(12, 20, _truncate(title, width * 0.75), extra=' font-size="14" font-weight="600"'),
        legend,
        _text(12, plot.top - 9, y_label, fill=SOFT),
        _text(plot.right, height - 8, x_label, anchor="end", fill=SOFT),
        *plot.grid(x_axis.ticks(max(2, width // 90)), x_axis, y_ticks, y_axis),
        # An inner svg clips at its edges and, unlike a clip path, needs no unique id.
        f'<svg x="{_n(plot.left)}" y="{_n(plot.top)}" width="{_n(plot.width)}" '
        f'height="{_n(plot.height)}">',
    ]
    for name in sorted(spreads, key=list(series).index):
        parts += plot.band(*spreads[name], x_axis, y_axis, pens[name].color)
    for name in sorted(series, key=lambda name: name not in faint):
        parts += plot.line(lines[name], x_axis, y_axis, pens[name])
    parts.append("</svg>")
    if mark is not None and math.isfinite(at := x_axis.at(mark)):
        parts.append(plot.mark(at, number(mark)))
    return "\n".join([*parts, "</svg>"])


def _n(value: float) -> str:
    """Return a coordinate rounded to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def _truncate(text: str, width: float) -> str:
    limit = max(int(width / _CHAR_WIDTH_PX), 2)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = TEXT, extra: str = ""
) -> str:
    attributes = f'x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {attributes}{extra}>{html.escape(text)}</text>"


class _Pen(NamedTuple):
    color: str
    style: str


def _pens(
    names: Iterable[str], faint: Collection[str], dashed: Mapping[str, str]
) -> dict[str, _Pen]:
    """Return the line style of each series; faint and dashed ones use no colour of the palette."""
    pens: dict[str, _Pen] = {}
    used = 0
    for name in sorted(names, key=lambda name: name in dashed):
        color, dash, weight = FAINT, "", 1.0
        if name in dashed:
            color, dash, weight = pens[dashed[name]].color, "3 3", 1.5
        elif name not in faint:
            color, weight = PALETTE[used % len(PALETTE)], 2.0
            dash = DASHES[used // len(PALETTE) % len(DASHES)]
            used += 1
        style = f'stroke="{color}" stroke-width="{weight:g}"'
        pens[name] = _Pen(color, style + (f' stroke-dasharray="{dash}"' if dash else ""))
    return pens


def _legend(pens: Mapping[str, _Pen], width: int) -> tuple[str, int]:
    """Return the legend, in as many rows as the names need, and its height."""
    if len(pens) < 2:
        return "", 0
    x, y, parts = 12.0, 40, []
    for name, pen in pens.items():
        label = _truncate(name, width - 60)
        size = 22 + _CHAR_WIDTH_PX * len(label) + 16
        if x > 12 and x + size > width:
            x, y = 12.0, y + 16
        parts.append(f'<path d="M{_n(x)} {y - 4}h16" {pen.style}/>')
        parts.append(_text(x + 22, y, label))
        x += size
    return "\n".join(parts), y - 40 + 20


class _Plot:
    """The rectangle between the axes, and its contents."""

    def __init__(self, left: float, top: float, width: float, height: float) -> None:
        self.left, self.top = left, top
        self.width, self.height = max(width, 20.0), max(height, 20.0)
        self.right, self.bottom = self.left + self.width, self.top + self.height

    def grid(
        self,
        x_ticks: Sequence[tuple[float, str]],
        x_axis: Axis,
        y_ticks: Sequence[tuple[float, str]],
        y_axis: Axis,
    ) -> list[str]:
        parts, lines = [], ""
        for value, label in y_ticks:
            y = self.bottom - y_axis.at(value) * self.height
            lines += f"M{_n(self.left)} {_n(y)}H{_n(self.right)}"
            parts.append(_text(self.left - 6, y + 4, label, anchor="end", fill=SOFT))
        for value, label in x_ticks:
            x = self.left + x_axis.at(value) * self.width
            lines += f"M{_n(x)} {_n(self.top)}V{_n(self.bottom)}"
            parts.append(_text(x, self.bottom + 16, label, anchor="middle", fill=SOFT))
        corner = f"M{_n(self.left)} {_n(self.top)}V{_n(self.bottom)}H{_n(self.right)}"
        return [
            f'<path d="{lines}" stroke="{GRID}"/>',
            f'<path d="{corner}" stroke="#888888" fill="none"/>',
            *parts,
        ]

    def _stretches(
        self, xs: Sequence[float], ys: Sequence[float], x_axis: Axis, y_axis: Axis
    ) -> list[list[str]]:
        """Return the parts of a line between its gaps, as coordinates in this rectangle."""
        stretches: list[list[str]] = [[]]
        for x, y in zip(map(x_axis.at, xs), map(y_axis.at, ys), strict=True):
            if math.isnan(x) or math.isnan(y):
                stretches.append([])
                continue
            # Points far outside are clipped anyway; short numbers make a small file.
            y_in = min(max(y, -20.0), 20.0)
            stretches[-1].append(f"{_n(x * self.width)} {_n((1 - y_in) * self.height)}")
        return [stretch for stretch in stretches if stretch]

    def line(
        self,
        line: tuple[Sequence[float], Sequence[float]],
        x_axis: Axis,
        y_axis: Axis,
        pen: _Pen,
    ) -> list[str]:
        stretches = self._stretches(*line, x_axis, y_axis)
        path = "".join("M" + "L".join(stretch) for stretch in stretches if len(stretch) > 1)
        parts = []
        if path:
            parts.append(f'<path d="{path}" {pen.style} fill="none" stroke-linejoin="round"/>')
        for stretch in stretches:
            if len(stretch) == 1:  # a single point between gaps: a path would not show it
                x, y = stretch[0].split()
                parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{pen.color}"/>')
        return parts

    def band(
        self,
        low: tuple[Sequence[float], Sequence[float]],
        high: tuple[Sequence[float], Sequence[float]],
        x_axis: Axis,
        y_axis: Axis,
        color: str,
    ) -> list[str]:
        below = self._stretches(*low, x_axis, y_axis)
        above = self._stretches(*high, x_axis, y_axis)
        parts = []
        for bottom, top in zip(below, above, strict=False):
            path = "M" + "L".join([*bottom, *reversed(top)]) + "Z"
            parts.append(f'<path d="{path}" fill="{color}" fill-opacity="0.15"/>')
        return parts

    def mark(self, at: float, label: str) -> str:
        x = self.left + at * self.width
        # The label is above the axes and stays within the chart.
        half_width = _CHAR_WIDTH_PX * len(label) / 2
        label_x = min(max(x, self.left + half_width), self.right - half_width)
        line = f'<path d="M{_n(x)} {_n(self.top)}V{_n(self.bottom)}" stroke="{TEXT}" '
        bold = ' font-weight="600"'
        return (
            f'{line}stroke-dasharray="4 3"/>\n'
            f"{_text(label_x, self.top - 9, label, anchor='middle', extra=bold)}"
        )
