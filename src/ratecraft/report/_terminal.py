"""Lines as plain text: braille dots, eight to a character."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ratecraft._render._axis import Axis, number
from ratecraft.errors import RatecraftError
from ratecraft.results import Forecast, LRFinderResult
from ratecraft.schedule import Curve

from ._series import foreseen, foreseen_window, gain_window, sampled, unit

_SYMBOLS = "●▲■◆○△□◇"
_COLORS = (36, 33, 35, 32, 34, 31)  # the terminal's own palette, so that any background works
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille bits: row, column
_LINE = "┊"
_GAP = 2  # columns between two labels
_SAMPLES = 4  # evaluations a column: two dots, each seen twice


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
    """Return resolved schedules as a text plot, as `terminal_plot` draws it.

    A long run is read at a few hundred steps, so this is quick for any length.

    Args:
        curves: resolved schedules, by name.
        width: columns of the whole plot.
        height: rows of the area with the lines.
        log_y: logarithmic y axis.
        y_label: what y is.
        mark: a time to mark with a vertical line.
        color: colour the lines with ANSI escapes, for a terminal that shows them.

    Raises:
        RatecraftError: the curves run on different clocks.
        ScheduleError: a curve is endless.

    >>> from ratecraft import constant, warmup
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
    units = {unit(curve) for curve in curves.values()}
    if len(units) > 1:
        raise RatecraftError(f"curves on different clocks ({', '.join(sorted(units))}) in one plot")
    series = {name: sampled(curve, _SAMPLES * width) for name, curve in curves.items()}
    return terminal_plot(
        series,
        width=width,
        height=height,
        log_y=log_y,
        x_label=next(iter(units), "step"),
        y_label=y_label,
        mark=mark,
        color=color,
    )


def terminal_lr_finder(result: LRFinderResult, *, width: int = 72, height: int = 12) -> str:
    """Return the losses after the short runs of a search as a text plot, the lr marked.

    What is worse than before training is drawn at the upper edge.

    Args:
        result: what `find_lr` returned.
        width: columns of the whole plot.
        height: rows of the area with the lines.

    >>> from ratecraft.results import LRFinderResult, ShortRun
    >>> runs = tuple(ShortRun(10.0**-k, (1.0, 0.5), 0.1 * k, 0.01) for k in (1, 2, 3))
    >>> result = LRFinderResult(1e-3, 5e-4, 2e-3, "the best", 1.0, runs, length=20)
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
    _, high = gain_window(result)
    known = dict(zip(*result.curve, strict=True))
    lrs = sorted({run.lr for run in result.runs})
    losses = [min(known.get(lr, high), high) for lr in lrs]
    lines = {
        "loss after a short run": (lrs, losses),
        "before": (lrs, [result.before] * len(lrs)),
    }
    return terminal_plot(
        lines, width=width, height=height, log_x=True, x_label="lr", y_label="loss",
        mark=result.lr,
    )  # fmt: skip


def terminal_forecast(
    result: Forecast, *, width: int = 72, height: int = 14, color: bool = False
) -> str:
    """Return the predicted losses as a text plot; their fall at the start is left out.

    Args:
        result: what `ratecraft.forecasting._forecast` returned; its six best are drawn.
        width: columns of the whole plot.
        height: rows of the area with the lines.
        color: colour the lines with ANSI escapes.

    >>> from ratecraft.results import Forecast, ForecastEntry
    >>> one = ForecastEntry("cosine", "0.1 * cosine(1, 0)", 1.0, 0.9, 1.1, (50, 100), (1.5, 1.0))
    >>> result = Forecast((one,), (), 100, None, 0.1, {}, {}, 0.01)
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
    _, high = foreseen_window(result)
    lines = {}
    for name, (steps, losses) in list(foreseen(result).items())[:6]:
        kept = [(k, loss) for k, loss in zip(steps, losses, strict=True) if loss <= high]
        lines[name] = ([k for k, _ in kept], [loss for _, loss in kept])
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
    """Return lines as a text plot with axes and, for several lines, a legend.

    Points that are not finite, or not above zero on a logarithmic axis, are gaps. Several lines
    carry a symbol each, so that they are told apart without colour, too.

    Args:
        series: by name, the x and the y values.
        width: columns of the whole plot.
        height: rows of the area with the lines.
        log_x: logarithmic x axis.
        log_y: logarithmic y axis.
        x_label: what x counts.
        y_label: what y is.
        mark: an x to mark with a vertical line.
        color: colour the lines with ANSI escapes, for a terminal that shows them.

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
    points = [p for xs, ys in series.values() for p in zip(xs, ys, strict=False)]
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
        places = zip(map(x_axis.at, line_x), map(y_axis.at, line_y), strict=False)
        canvas.line(i, list(places))
    if len(series) > 1:
        canvas.symbols(len(series))

    row_labels = {canvas.row(y_axis.at(value)): label for value, label in y_ticks}
    legend = [(f"{_symbol(i)} ", name, i) for i, name in enumerate(series)]
    if len(series) < 2:
        legend = []
    if mark is not None:
        legend.append((f"{_LINE} ", f"{x_label} {number(mark)}", -1))
    lines = _header(y_label, legend, width, color)
    for row in range(canvas.height):
        label = row_labels.get(row, "")
        lines.append(f"{label:>{margin}} {'┤' if label else '│'}{canvas.text(row, color)}")
    ruler, labels = _bottom(x_axis, canvas, margin)
    lines += [ruler, labels, f"{_clean(x_label):>{margin + 2 + canvas.width}}"]
    return "\n".join(line.rstrip() for line in lines)


def _symbol(i: int) -> str:
    return _SYMBOLS[i % len(_SYMBOLS)]


def _clean(text: str) -> str:
    """Return text without anything that would move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _painted(text: str, i: int, color: bool) -> str:
    return f"\x1b[{_COLORS[i % len(_COLORS)]}m{text}\x1b[0m" if color and i >= 0 else text


def _header(
    y_label: str, legend: Sequence[tuple[str, str, int]], width: int, color: bool
) -> list[str]:
    """Return the y label and the legend, in as many lines as they take."""
    lines, used = [_clean(y_label)], len(y_label)
    for symbol, name, i in legend:
        clean = _clean(name)
        room = max(width - len(symbol), 1)
        clean = clean if len(clean) <= room else clean[: room - 1] + "…"
        size = len(symbol) + len(clean)
        if used + 3 + size > width:
            lines.append("")
            used = -3
        lines[-1] += ("   " if used >= 0 else "") + _painted(symbol + clean, i, color)
        used += 3 + size
    return lines


def _bottom(axis: Axis, canvas: _Canvas, margin: int) -> tuple[str, str]:
    """Return the x axis and its labels, leaving out labels that would touch."""
    ruler, labels = ["─"] * canvas.width, [" "] * (margin + 2 + canvas.width)
    free = 0
    for value, label in axis.ticks(max(2, canvas.width // 8)):
        column = canvas.column(axis.at(value))
        start = min(margin + 2 + column - (len(label) - 1) // 2, len(labels) - len(label))
        if start < free:
            continue
        ruler[column] = "┬"
        labels[start : start + len(label)] = label
        free = start + len(label) + _GAP
    return " " * (margin + 1) + "└" + "".join(ruler), "".join(labels)


class _Canvas:
    """Cells of braille; a place is a pair in 0..1, with (0, 0) at the bottom left."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._bits: dict[tuple[int, int], int] = {}
        self._owner: dict[tuple[int, int], int] = {}
        self._char: dict[tuple[int, int], str] = {}
        self._path: dict[int, dict[int, int]] = {}  # by line: the row it has in each column
        self._mark: int | None = None

    def column(self, x: float) -> int:
        return round(x * (2 * self.width - 1)) // 2

    def row(self, y: float) -> int:
        return round((1 - y) * (4 * self.height - 1)) // 4

    def vertical(self, x: float) -> None:
        self._mark = None if math.isnan(x) else self.column(x)

    def line(self, i: int, places: Sequence[tuple[float, float]]) -> None:
        last: tuple[int, int] | None = None
        for x, y in places:
            if math.isnan(x) or math.isnan(y):
                last = None
                continue
            dot = round(x * (2 * self.width - 1)), round((1 - y) * (4 * self.height - 1))
            across, down = (dot[0] - last[0], dot[1] - last[1]) if last else (0, 0)
            count = max(abs(across), abs(down), 1)
            for k in range(count + 1):
                back = (count - k) / count
                self._dot(i, dot[0] - round(across * back), dot[1] - round(down * back))
            last = dot

    def _dot(self, i: int, x: int, y: int) -> None:
        cell = (x // 2, y // 4)
        self._bits[cell] = self._bits.get(cell, 0) | _DOTS[y % 4][x % 2]
        self._owner[cell] = i
        self._path.setdefault(i, {}).setdefault(x // 2, y // 4)

    def symbols(self, count: int) -> None:
        """Put each line's symbol on it a few times, where no other line puts its own."""
        spacing = max(4 * count, self.width // 4)
        for i, path in self._path.items():
            columns = sorted(path)
            first = (2 * i + 1) * spacing // (2 * count)
            chosen = [c for c in columns if c % spacing == first]
            for column in chosen or [columns[len(columns) // 2]]:
                cell = (column, path[column])
                self._char[cell], self._owner[cell] = _symbol(i), i

    def text(self, row: int, color: bool) -> str:
        cells = []
        for column in range(self.width):
            cell = (column, row)
            bits = self._bits.get(cell)
            blank = _LINE if column == self._mark else " "
            char = self._char.get(cell) or (chr(0x2800 + bits) if bits else blank)
            cells.append((char, self._owner.get(cell, -1)))
        text, start = "", 0
        for end in range(1, len(cells) + 1):
            # One escape for a stretch of one colour.
            if end == len(cells) or cells[end][1] != cells[start][1]:
                chars = "".join(char for char, _ in cells[start:end])
                text += _painted(chars, cells[start][1], color)
                start = end
        return text
