"""Line plots as text: braille characters of 2 x 4 dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ratecraft._render._axis import Axis, number
from ratecraft.errors import RatecraftError
from ratecraft.results import Forecast, LRFinderResult
from ratecraft.schedule import Curve

from ._series import (
    different_clocks,
    forecast_by_schedule,
    forecast_limits,
    lr_finder_limits,
    sample_curve,
    time_unit,
)

_LINE_SYMBOLS = "●▲■◆○△□◇"
_ANSI_COLORS = (36, 33, 35, 32, 34, 31)  # from the terminal's palette, for any background
_BRAILLE_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column]
_MARK_SYMBOL = "┊"
_LABEL_GAP_COLUMNS = 2  # blank columns between two tick labels
_SAMPLES_PER_COLUMN = 4  # a column has two dots; each is sampled twice
_MAX_FORECAST_LINES = 6


def terminal_curve(
    curves: Mapping[str, Curve],
    *,
    width: int = 72,
    height: int = 16,
    log_y: bool = False,
    y_label: str = "lr",
    mark: float | None = None,
    color: bool = False,
) -> str:
    """Return a text plot of resolved schedules.

    The time does not depend on the length of the run: each curve is sampled at a few hundred
    points.

    Args:
        curves: resolved schedules, by name.
        width: total width in characters.
        height: height of the plot area in characters.
        log_y: use a logarithmic y axis.
        y_label: label of the y axis.
        mark: time to mark with a vertical line.
        color: color the lines with ANSI escape codes.

    Raises:
        RatecraftError: the curves run on different clocks.
        ScheduleError: a curve is endless.

    >>> from ratecraft import constant, warmup
    >>> from ratecraft.report import terminal_curve
    >>> curve = warmup(300).then(constant(1)).resolve(total_steps=900)
    >>> print(terminal_curve({"warmup": curve}, width=32, height=4))
    lr
    1.0 ┤       ⡠⠞⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉
        │    ⢀⡤⠊
    0.5 ┤  ⢠⠔⠉
      0 ┤⡠⠞⠁
        └┬─────────────┬────────────
         0            500
                              step
    """
    units = {time_unit(curve) for curve in curves.values()}
    if len(units) > 1:
        raise RatecraftError(different_clocks(units))
    points = _SAMPLES_PER_COLUMN * width
    return terminal_plot(
        {name: sample_curve(curve, points) for name, curve in curves.items()},
        width=width,
        height=height,
        log_y=log_y,
        x_label=next(iter(units), "step"),
        y_label=y_label,
        mark=mark,
        color=color,
    )


def terminal_lr_finder(result: LRFinderResult, *, width: int = 72, height: int = 12) -> str:
    """Return a text plot of the loss after each short run, with the chosen learning rate marked.

    Runs that diverged or ended far above the initial loss are drawn at the upper edge.

    Args:
        result: from `ratecraft.find_lr`.
        width: total width in characters.
        height: height of the plot area in characters.

    >>> from ratecraft.report import terminal_lr_finder
    >>> from ratecraft.results import LRFinderResult, ShortRun
    >>> runs = tuple(ShortRun(10.0**-k, (1.0, 0.5), 0.1 * k, 0.01) for k in (1, 2, 3))
    >>> result = LRFinderResult(1e-3, 5e-4, 2e-3, "the best", 1.0, runs, run_steps=20)
    >>> print(terminal_lr_finder(result, width=60, height=4))
    loss   ● loss after a short run   ▲ before   ┊ lr 1e-3
    1.0 ┤⠉⠉⠉⠉⠉⠉⠉⠉⠉▲⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉▲⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉▲⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉▲⠉⠉⠉⠉⠉⠉
        │┊                                        ⣀●⣀⣀⣀⡠⠤⠤⠤⠤⠤⠒⠒⠒
    0.8 ┤┊                  ⣀⣀⣀⣀⣀⡠⠤⠤⠤⠤●⠒⠒⠒⠒⠒⠊⠉⠉⠉⠉⠉
        │⣀⣀⣀●⠤⠤⠤⠤⠔⠒⠒⠒⠒⠊⠉⠉●⠉⠉
        └┬──────────────────────────┬──────────────────────────┬
        1e-3                       0.01                      0.1
                                                            lr
    """
    _, high = lr_finder_limits(result)
    loss_at = dict(zip(*result.curve, strict=True))
    lrs = sorted({run.lr for run in result.runs})
    losses = [min(loss_at.get(lr, high), high) for lr in lrs]
    lines = {
        "loss after a short run": (lrs, losses),
        "before": (lrs, [result.initial_loss] * len(lrs)),
    }
    return terminal_plot(
        lines, width=width, height=height, log_x=True, x_label="lr", y_label="loss",
        mark=result.lr,
    )  # fmt: skip


def terminal_forecast(
    result: Forecast, *, width: int = 72, height: int = 14, color: bool = False
) -> str:
    """Return a text plot of the forecast losses of the six best schedules.

    The fall at the start of the run is cut off.

    Args:
        result: from `ratecraft.forecast`.
        width: total width in characters.
        height: height of the plot area in characters.
        color: color the lines with ANSI escape codes.

    >>> from ratecraft.report import terminal_forecast
    >>> from ratecraft.results import Forecast, ForecastEntry
    >>> entry = ForecastEntry("cosine", "0.1 * cosine(1, 0)", 1.0, 0.9, 1.1, (50, 100), (1.5, 1.0))
    >>> result = Forecast((entry,), (), 100, None, 0.1, {}, {}, 0.01)
    >>> print(terminal_forecast(result, width=32, height=4))
    loss
    1.5 ┤⠉⠒⠒⠤⢄⣀⡀
        │      ⠈⠉⠒⠒⠤⢄⣀⡀
        │             ⠈⠉⠑⠒⠤⠤⣀⡀
    1.0 ┤                    ⠈⠉⠑⠒⠤⠤⣀
        └─────┬──────────┬─────────┬
              60         80      100
                              step
    """
    _, high = forecast_limits(result)
    lines = {}
    for name, line in list(forecast_by_schedule(result).items())[:_MAX_FORECAST_LINES]:
        points = [(k, loss) for k, loss in zip(*line, strict=True) if loss <= high]
        lines[name] = ([k for k, _ in points], [loss for _, loss in points])
    return terminal_plot(lines, width=width, height=height, y_label="loss", color=color)


def terminal_plot(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    width: int = 72,
    height: int = 16,
    log_x: bool = False,
    log_y: bool = False,
    x_label: str = "step",
    y_label: str = "lr",
    mark: float | None = None,
    color: bool = False,
) -> str:
    """Return a text plot of lines, with axes and, for several lines, a legend.

    Points that are not finite, or not positive on a logarithmic axis, become gaps. Each of
    several lines has its own symbol, so color is not needed to distinguish them.

    Args:
        series: x and y values, by the name of the line.
        width: total width in characters.
        height: height of the plot area in characters.
        log_x: use a logarithmic x axis.
        log_y: use a logarithmic y axis.
        x_label: label of the x axis.
        y_label: label of the y axis.
        mark: x value to mark with a vertical line.
        color: color the lines with ANSI escape codes.

    >>> from ratecraft.report import terminal_plot
    >>> losses = {"loss": ([0, 1, 2, 3], [3, 1, 0, 0])}
    >>> print(terminal_plot(losses, width=32, height=4, y_label="loss"))
    loss
      │⠑⠢⢄⡀
    2 ┤   ⠈⠑⠢⢄⡀
      │       ⠈⠑⠢⢄⣀⡀
    0 ┤            ⠈⠉⠑⠒⠢⠤⢄⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀
      └┬────────┬─────────┬────────┬
       0        1         2        3
                              step
    """
    marks = [] if mark is None else [mark]
    points = [point for xs, ys in series.values() for point in zip(xs, ys, strict=False)]
    xs = [x for x, _ in points] + marks
    whole = all(math.isfinite(x) and float(x).is_integer() for x in xs)
    y_axis = Axis.fit((y for _, y in points), log=log_y, upright=True)
    x_axis = Axis.fit(xs, log=log_x, whole=whole)
    y_ticks = y_axis.ticks(max(2, height // 3))
    margin = max((len(label) for _, label in y_ticks), default=1)
    canvas = _Canvas(max(width - margin - 2, 4), max(height, 2))
    if mark is not None:
        canvas.vertical(x_axis.at(mark))
    for i, (line_x, line_y) in enumerate(series.values()):
        points_on_canvas = zip(map(x_axis.at, line_x), map(y_axis.at, line_y), strict=False)
        canvas.line(i, list(points_on_canvas))
    if len(series) > 1:
        canvas.symbols(len(series))

    row_labels = {canvas.row(y_axis.at(value)): label for value, label in y_ticks}
    legend = [(f"{_symbol(i)} ", name, i) for i, name in enumerate(series)]
    if len(series) < 2:
        legend = []
    if mark is not None:
        legend.append((f"{_MARK_SYMBOL} ", f"{x_label} {number(mark)}", -1))
    lines = _header(y_label, legend, width, color)
    for row in range(canvas.height):
        label = row_labels.get(row, "")
        lines.append(f"{label:>{margin}} {'┤' if label else '│'}{canvas.text(row, color)}")
    ruler, labels = _x_axis_lines(x_axis, canvas, margin)
    lines += [ruler, labels, f"{_clean(x_label):>{margin + 2 + canvas.width}}"]
    return "\n".join(line.rstrip() for line in lines)


def _symbol(i: int) -> str:
    return _LINE_SYMBOLS[i % len(_LINE_SYMBOLS)]


def _clean(text: str) -> str:
    """Replace control characters, which could move the cursor, by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def _colored(text: str, i: int, color: bool) -> str:
    return f"\x1b[{_ANSI_COLORS[i % len(_ANSI_COLORS)]}m{text}\x1b[0m" if color and i >= 0 else text


def _header(
    y_label: str, legend: Sequence[tuple[str, str, int]], width: int, color: bool
) -> list[str]:
    """Return the y label and the legend, wrapped to the width."""
    lines, used = [_clean(y_label)], len(y_label)
    for symbol, name, i in legend:
        clean = _clean(name)
        max_length = max(width - len(symbol), 1)
        clean = clean if len(clean) <= max_length else clean[: max_length - 1] + "…"
        size = len(symbol) + len(clean)
        if used + 3 + size > width:
            lines.append("")
            used = -3
        lines[-1] += ("   " if used >= 0 else "") + _colored(symbol + clean, i, color)
        used += 3 + size
    return lines


def _x_axis_lines(axis: Axis, canvas: _Canvas, margin: int) -> tuple[str, str]:
    """Return the x axis and its tick labels, without labels that would touch."""
    ruler, labels = ["─"] * canvas.width, [" "] * (margin + 2 + canvas.width)
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
        self._mark_column: int | None = None

    def column(self, x: float) -> int:
        return round(x * (2 * self.width - 1)) // 2

    def row(self, y: float) -> int:
        return round((1 - y) * (4 * self.height - 1)) // 4

    def vertical(self, x: float) -> None:
        self._mark_column = None if math.isnan(x) else self.column(x)

    def line(self, i: int, points: Sequence[tuple[float, float]]) -> None:
        last: tuple[int, int] | None = None
        for x, y in points:
            if math.isnan(x) or math.isnan(y):
                last = None
                continue
            dot = round(x * (2 * self.width - 1)), round((1 - y) * (4 * self.height - 1))
            across, down = (dot[0] - last[0], dot[1] - last[1]) if last else (0, 0)
            count = max(abs(across), abs(down), 1)
            for k in range(count + 1):
                fraction = (count - k) / count
                self._dot(i, dot[0] - round(across * fraction), dot[1] - round(down * fraction))
            last = dot

    def _dot(self, i: int, x: int, y: int) -> None:
        cell = (x // 2, y // 4)
        self._bits[cell] = self._bits.get(cell, 0) | _BRAILLE_BITS[y % 4][x % 2]
        self._line_of[cell] = i
        self._rows.setdefault(i, {}).setdefault(x // 2, y // 4)

    def symbols(self, count: int) -> None:
        """Draw each line's symbol on it, in columns that no other line uses."""
        spacing = max(4 * count, self.width // 4)
        for i, rows in self._rows.items():
            columns = sorted(rows)
            offset = (2 * i + 1) * spacing // (2 * count)
            chosen = [c for c in columns if c % spacing == offset]
            for column in chosen or [columns[len(columns) // 2]]:
                cell = (column, rows[column])
                self._symbol_of[cell], self._line_of[cell] = _symbol(i), i

    def text(self, row: int, color: bool) -> str:
        cells = []
        for column in range(self.width):
            cell = (column, row)
            bits = self._bits.get(cell)
            blank = _MARK_SYMBOL if column == self._mark_column else " "
            char = self._symbol_of.get(cell) or (chr(0x2800 + bits) if bits else blank)
            cells.append((char, self._line_of.get(cell, -1)))
        text, start = "", 0
        for end in range(1, len(cells) + 1):
            # One escape code for neighboring cells of one color.
            if end == len(cells) or cells[end][1] != cells[start][1]:
                chars = "".join(char for char, _ in cells[start:end])
                text += _colored(chars, cells[start][1], color)
                start = end
        return text
