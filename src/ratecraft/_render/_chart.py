"""A chart: lines of plain numbers, their labels and axes, without a renderer."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ._axis import MAX_DRAWN, Axis

# Hues of Okabe and Ito (2008), distinct with any colour vision, without their yellow. In these
# shades, each has a contrast of at least 3:1 to white, and its partner in DARK_PALETTE to a dark
# page. After the last colour the next dash pattern begins.
PALETTE: Final = ("#0072b2", "#c07a00", "#008a63", "#c9400a", "#c4609d", "#3a93cc", "#000000")
DARK_PALETTE: Final = ("#3d9ae0", "#e69f00", "#22b58a", "#f0713a", "#e08bbd", "#7cc7f2", "#f2f3f5")
DASHES: Final = ("", "6 3", "2 2", "8 3 2 3", "12 4", "1 3", "8 2 2 2 2 2")

LineStyle = Literal["solid", "dots", "crosses", "faint", "dashed", "thick"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart. Points that are not finite become gaps.

    Attributes:
        name: shown in the legend; empty for no entry.
        xs: x values.
        ys: y values.
        style: "solid"; "dots", with a dot at each point; "crosses" without a line; "faint", thin
            and gray behind the others; "dashed", thin; or "thick", broad and translucent. Dashed
            and thick lines are not in the legend.
        color: the line's number in the palette; by default the next one. A faint line has none.
        band: low and high y values of a shaded band around the line.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: LineStyle = "solid"
    color: int | None = None
    band: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at ``x``, with a label."""

    x: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What a chart shows. `svg_chart`, `terminal_chart` and `plot_chart` draw it.

    Attributes:
        lines: the lines, in the order of the legend.
        title: shown above the chart.
        x_label: label of the x axis.
        y_label: label of the y axis.
        log_x: logarithmic x axis; values <= 0 become gaps.
        log_y: logarithmic y axis; values <= 0 become gaps.
        y_range: limits of the y axis; by default all values.
        marks: vertical lines.
        span: an interval of x values to shade.
        steps_per_epoch: adds an axis that counts epochs, in matplotlib only.
        y_ticks: whether the y axis has ticks.
    """

    lines: Sequence[Line]
    title: str = ""
    x_label: str = "step"
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    marks: Sequence[Mark] = ()
    span: tuple[float, float] | None = None
    steps_per_epoch: float | None = None
    y_ticks: bool = True

    def __post_init__(self) -> None:
        if self.y_range is not None:  # extreme values give limits that no axis can have
            low, high = self.y_range
            if low == high or not (abs(low) <= MAX_DRAWN and abs(high) <= MAX_DRAWN):
                object.__setattr__(self, "y_range", None)

    def axes(self, x_pad: float = 0.0, y_pad: float = 0.0) -> tuple[Axis, Axis]:
        """Return the axes of all lines, bands and marks; ``pad`` is a fraction of their spans."""
        xs = [x for line in self.lines for x in line.xs if math.isfinite(x)]
        xs += [mark.x for mark in self.marks]
        whole = all(float(x).is_integer() for x in xs)
        x_axis = Axis.fit(xs, log=self.log_x, pad=x_pad, whole=whole)
        if self.y_range is not None:
            return x_axis, Axis(*self.y_range, log=self.log_y)
        ys = [y for line in self.lines for y in line.ys]
        ys += [y for line in self.lines for edge in line.band or () for y in edge]
        return x_axis, Axis.fit(ys, log=self.log_y, pad=y_pad, upright=True)

    def colors(self) -> list[int | None]:
        """Return each line's number in the palette, ``None`` for a faint line."""
        free = itertools.count()
        return [
            next(free) if line.color is None and line.style != "faint" else line.color
            for line in self.lines
        ]

    def legend(self) -> list[int]:
        """Return the positions of the lines in the legend; none if there are fewer than two."""
        names = ["" if line.style in ("dashed", "thick") else line.name for line in self.lines]
        positions = [i for i, name in enumerate(names) if name and name not in names[:i]]
        return positions if len(positions) > 1 else []


def spans_decade(lines: Sequence[Line]) -> bool:
    """Return whether all finite y values are positive and span more than a factor of 10."""
    finite = [y for line in lines for y in line.ys if math.isfinite(y)]
    return bool(finite) and min(finite) > 0 and max(finite) > 10 * min(finite)


def wrap(text: str, limit: int) -> list[str]:
    """Break a text into lines of at most ``limit`` characters, at spaces and method calls."""
    lines = [""]
    for part in re.split(r"(?<= )|(?=\.[a-z])", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > limit:
            lines.append("")
        pieces = [part[i : i + limit] for i in range(0, len(part), limit)]
        lines[-1] += pieces[0] if pieces else ""
        lines += pieces[1:]
    return [line.rstrip() for line in lines]
