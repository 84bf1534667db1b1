"""Draw a chart as text: braille characters of 2 x 4 dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from ._axis import Axis
from ._chart import Chart
from ._text import display_width, printable, shorten

_LINE_SYMBOLS = "●▲■◆○△□◇"
_ANSI_COLORS = (36, 33, 35, 32, 34, 31)  # from the terminal's palette, for any background
_BRAILLE_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column]
_MARK_SYMBOL = "┊"
_LABEL_GAP_COLUMNS = 2  # blank columns between two tick labels


def terminal_chart(chart: Chart, *, width: int = 72, height: int = 16, color: bool = False) -> str:
    """Return a chart as text, with axes and, for several lines, a legend.

    Each of several lines has its own symbol, so color is not needed to distinguish them. A shaded
    interval is a thick part of the x axis. Control characters in names are shown as escapes.

    Args:
        chart: what to draw. Bands and the title are left out, and so are faint lines with more
            points than columns, which would hide the others.
        width: total width in characters.
        height: height of the plot area in characters.
        color: color the lines with ANSI escape codes.

    >>> from ratecraft.report import Chart, Line
    >>> chart = Chart(lines=[Line("loss", [0, 1, 2, 3], [3, 1, 0, 0])], y_label="loss")
    >>> print(terminal_chart(chart, width=32, height=4))
    loss
      │⠑⠢⢄⡀
    2 ┤   ⠈⠑⠢⢄⡀
      │       ⠈⠑⠢⢄⣀⡀
    0 ┤            ⠈⠉⠑⠒⠢⠤⢄⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀
      └┬────────┬─────────┬────────┬
       0        1         2        3
                              step
    """
    lines = [line for line in chart.lines if line.style != "faint" or len(line.xs) <= width]
    chart = replace(chart, lines=lines)
    x_axis, y_axis = chart.axes()
    y_ticks = y_axis.ticks(max(2, height // 3)) if chart.y_ticks else []
    margin = max((len(label) for _, label in y_ticks), default=1)
    canvas = _Canvas(max(width - margin - 2, 4), max(height, 2))
    for mark in chart.marks:
        canvas.vertical(x_axis.at(mark.x))
    for i, line in enumerate(chart.lines):
        points = list(zip(map(x_axis.at, line.xs), map(y_axis.at, line.ys), strict=False))
        canvas.line(i, points, joined=line.style != "crosses")
    legend_lines = chart.legend()
    each_point = [i for i, line in enumerate(chart.lines) if line.style in ("dots", "crosses")]
    canvas.symbols(legend_lines, each_point)

    row_labels = {canvas.row(y_axis.at(value)): label for value, label in y_ticks}
    legend = [(f"{_symbol(i)} ", chart.lines[i].name, i) for i in legend_lines]
    legend += [(f"{_MARK_SYMBOL} ", f"{chart.x_label} {mark.label}", -1) for mark in chart.marks]
    text = _header(chart.y_label, legend, width, color)
    for row in range(canvas.height):
        label = row_labels.get(row, "")
        text.append(f"{label:>{margin}} {'┤' if label else '│'}{canvas.text(row, color)}")
    ruler, labels = _x_axis_lines(x_axis, canvas, margin, chart.span)
    x_label = shorten(_one_line(chart.x_label), margin + 2 + canvas.width)
    text += [ruler, labels, " " * (margin + 2 + canvas.width - display_width(x_label)) + x_label]
    return "\n".join(line.rstrip() for line in text)


def _symbol(i: int) -> str:
    return _LINE_SYMBOLS[i % len(_LINE_SYMBOLS)]


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _colored(text: str, i: int, color: bool) -> str:
    return f"\x1b[{_ANSI_COLORS[i % len(_ANSI_COLORS)]}m{text}\x1b[0m" if color and i >= 0 else text


def _header(
    y_label: str, legend: Sequence[tuple[str, str, int]], width: int, color: bool
) -> list[str]:
    """Return the y label and the legend, wrapped to the width."""
    lines = [shorten(_one_line(y_label), width)]
    used = display_width(lines[0])
    for symbol, name, i in legend:
        short = shorten(_one_line(name), max(width - len(symbol), 1))
        size = len(symbol) + display_width(short)
        if used + 3 + size > width:
            lines.append("")
            used = -3
        lines[-1] += ("   " if used >= 0 else "") + _colored(symbol + short, i, color)
        used += 3 + size
    return lines


def _x_axis_lines(
    axis: Axis, canvas: _Canvas, margin: int, span: tuple[float, float] | None
) -> tuple[str, str]:
    """Return the x axis and its tick labels, without labels that would touch."""
    ruler, labels = ["─"] * canvas.width, [" "] * (margin + 2 + canvas.width)
    edges = [min(max(axis.at(x), 0.0), 1.0) for x in span or () if not math.isnan(axis.at(x))]
    if len(edges) == 2:
        first, last = map(canvas.column, edges)
        ruler[first : last + 1] = "━" * (last + 1 - first)
    first_free = 0
    for value, label in axis.ticks(max(2, canvas.width // 8)):
        column = canvas.column(axis.at(value))
        start = min(margin + 2 + column - (len(label) - 1) // 2, len(labels) - len(label))
        if start < first_free:
            continue
        ruler[column] = "┬"
        labels[start : start + len(label)] = label
        first_free = start + len(label) + _LABEL_GAP_COLUMNS
    return " " * (margin + 1) + "└" + "".join(ruler), "".join(labels)


class _Canvas:
    """A grid of braille characters; points are pairs in [0, 1], (0, 0) at the bottom left."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        # Cells are (column, row).
        self._bits: dict[tuple[int, int], int] = {}
        self._line_of: dict[tuple[int, int], int] = {}
        self._symbol_of: dict[tuple[int, int], str] = {}
        self._rows: dict[int, dict[int, int]] = {}  # line -> column -> row
        self._points: dict[int, list[tuple[int, int]]] = {}  # line -> cells of its points
        self._mark_column: int | None = None

    def column(self, x: float) -> int:
        return round(x * (2 * self.width - 1)) // 2

    def row(self, y: float) -> int:
        return round((1 - y) * (4 * self.height - 1)) // 4

    def vertical(self, x: float) -> None:
        self._mark_column = None if math.isnan(x) else self.column(x)

    def line(self, i: int, points: Sequence[tuple[float, float]], *, joined: bool = True) -> None:
        last: tuple[int, int] | None = None
        cells = self._points.setdefault(i, [])
        for x, y in points:
            if math.isnan(x) or not 0 <= y <= 1:  # a gap, or outside the range of the y axis
                last = None
                continue
            dot = round(x * (2 * self.width - 1)), round((1 - y) * (4 * self.height - 1))
            across, down = (dot[0] - last[0], dot[1] - last[1]) if last else (0, 0)
            count = max(abs(across), abs(down), 1)
            for k in range(count + 1):
                fraction = (count - k) / count
                self._dot(i, dot[0] - round(across * fraction), dot[1] - round(down * fraction))
            cells.append((dot[0] // 2, dot[1] // 4))
            last = dot if joined else None

    def _dot(self, i: int, x: int, y: int) -> None:
        cell = (x // 2, y // 4)
        self._bits[cell] = self._bits.get(cell, 0) | _BRAILLE_BITS[y % 4][x % 2]
        self._line_of[cell] = i
        self._rows.setdefault(i, {}).setdefault(x // 2, y // 4)

    def symbols(self, lines: Sequence[int], each_point: Sequence[int]) -> None:
        """Draw the symbol of each line, at ``each_point`` or in columns of its own."""
        spacing = max(4 * len(lines), self.width // 4)
        for k, i in enumerate(lines):
            rows = self._rows.get(i, {})
            columns = sorted(rows)
            offset = (2 * k + 1) * spacing // (2 * len(lines))
            chosen = [c for c in columns if c % spacing == offset]
            cells = [(c, rows[c]) for c in chosen or columns[len(columns) // 2 :][:1]]
            if i in each_point:
                cells = self._points[i]
            for cell in cells:
                self._symbol_of[cell], self._line_of[cell] = _symbol(i), i

    def text(self, row: int, color: bool) -> str:
        cells = []
        for column in range(self.width):
            cell = (column, row)
            bits = self._bits.get(cell)
            blank = _MARK_SYMBOL if column == self._mark_column else " "
            char = self._symbol_of.get(cell) or (chr(0x2800 + bits) if bits else blank)
            cells.append((char, self._line_of.get(cell, -1)))
        text = ""
        for line, group in groupby(cells, key=itemgetter(1)):  # one escape code for each color
            text += _colored("".join(char for char, _ in group), line, color)
        return text
