"""Draw a heat map as SVG text: a value for each row and column, as a color and a number."""

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ._axis import number
from ._svg import CHAR_WIDTH_PX, GRID, SOFT, TEXT, text_element
from ._text import display_width, shorten

# From the lowest value to the highest: the blues and greens of ColorBrewer, without the palest.
SCALE: Final = ("#081d58", "#225ea8", "#1d91c0", "#41b6c4", "#7fcdbb", "#c7e9b4", "#edf8b1")
UNCOLORED: Final = "\N{MULTIPLICATION SIGN}"  # in the cell of a value that is not finite
_ROW_PX, _GROUP_GAP_PX, _MIN_CELL_PX, _MAX_CELL_PX = 22, 6, 14, 110
_MAX_LABEL_SHARE = 0.35  # of the width
_BOLD = ' font-weight="600"'
_CUT_QUANTILE = 0.9  # higher values share a color, or a few would leave one for all others


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Values by row, group of columns, and column. One that is not finite has no color.

    Attributes:
        cells: values by (row, group, column), in the order of the picture.
        title: shown above the cells.
        missing: label of the values that are not finite.
    """

    cells: Mapping[tuple[str, str, str], float]
    title: str
    missing: str

    def labels(self, position: int) -> list[str]:
        """Return the rows (0), the groups (1) or the columns (2)."""
        return list(dict.fromkeys(key[position] for key in self.cells))


def svg_heat_map(heat_map: HeatMap, *, width: int = 640) -> str:
    """Return a heat map as SVG: groups of columns side by side, or below each other if narrow."""
    rows, groups, columns = (heat_map.labels(position) for position in range(3))
    labels = _distinct_labels(rows, int(_MAX_LABEL_SHARE * width / CHAR_WIDTH_PX))
    label_width = 24 + CHAR_WIDTH_PX * max(map(display_width, labels.values()))
    column_width = (width - label_width - 12) / (len(groups) * len(columns))
    fits_one_band = column_width >= 2 * _MIN_CELL_PX
    bands = [groups] if fits_one_band else [[group] for group in groups]
    per_band = len(bands[0]) * len(columns)
    space = width - label_width - 12 - _GROUP_GAP_PX * (len(bands[0]) - 1)
    cell_width = min(max(space / per_band, 4), _MAX_CELL_PX)
    picture = _Picture(heat_map, label_width, cell_width)
    parts: list[str] = []
    y = 34.0
    for band in bands:
        keys = [(group, column) for group in band for column in columns]
        drawn, y = picture.band(labels, keys, y)
        parts += drawn
    height = math.ceil(y + 44)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="system-ui, sans-serif" font-size="11">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            text_element(12, 20, heat_map.title, extra=' font-size="14" font-weight="600"'),
            *parts,
            *picture.scale(y + 22),
            "</svg>",
        ]
    )


class _Picture:
    """The cells and the scale, with the color of each value."""

    def __init__(self, heat_map: HeatMap, left: float, cell_width: float) -> None:
        self.heat_map, self.left, self.cell_width = heat_map, left, cell_width
        self.finite = sorted(v for v in heat_map.cells.values() if math.isfinite(v))
        finite = (key for key, value in heat_map.cells.items() if math.isfinite(value))
        self.lowest = min(finite, key=heat_map.cells.__getitem__, default=None)
        self.low = self.finite[0] if self.finite else 0.0
        self.high = self.finite[int(_CUT_QUANTILE * (len(self.finite) - 1))] if self.finite else 1.0
        self.log = self.low > 0 and self.high > 10 * self.low
        texts = [number(v, 2) for v in self.finite]
        size = (cell_width - 3) / (0.58 * max(map(len, texts), default=1))
        self.font_size = min(size, 11.0) if size >= 7.5 else 0.0

    def band(
        self, labels: Mapping[str, str], keys: Sequence[tuple[str, str]], top: float
    ) -> tuple[list[str], float]:
        """Return the rows, with their labels, of some columns, and the position below them."""
        parts = []
        groups = list(dict.fromkeys(group for group, _ in keys))
        size = len(keys) // len(groups)
        if any(groups):
            for i, group in enumerate(groups):
                x = self.x(i * size, size)
                space = max(int(size * self.cell_width / CHAR_WIDTH_PX), 1)
                parts.append(text_element(x, top + 12, shorten(group, space), extra=_BOLD))
            top += 18
        if any(column for _, column in keys):
            # Labels that do not fit their column are left out, at equal distances.
            longest = max(display_width(column) for _, column in keys) * CHAR_WIDTH_PX
            stride = math.ceil((longest + 4) / self.cell_width)
            for i, (_, column) in enumerate(keys):
                if i % size % stride == 0:
                    x = self.x(i, size) + self.cell_width / 2
                    parts.append(text_element(x, top + 12, column, anchor="middle", fill=SOFT))
            top += 18
        for row, label in labels.items():
            drawn = text_element(self.left - 8, top + 15, label, anchor="end")
            title = f"<title>{html.escape(row)}</title>"
            parts.append(drawn if label == row else f"<g>{title}{drawn}</g>")
            for i, key in enumerate(keys):
                if (row, *key) in self.heat_map.cells:
                    parts.append(self.cell((row, *key), self.x(i, size), top))
            top += _ROW_PX
        return parts, top + 10

    def x(self, i: int, group_size: int) -> float:
        """Return the left edge of column ``i``; there is a gap between the groups."""
        return self.left + i * self.cell_width + i // group_size * _GROUP_GAP_PX

    def cell(self, key: tuple[str, str, str], x: float, y: float) -> str:
        value = self.heat_map.cells[key]
        color = self.color(value)
        text = number(value, 2) if math.isfinite(value) else UNCOLORED
        edge = f' stroke="{TEXT}" stroke-width="2"' if key == self.lowest else ""
        corner = f"M{x + 1:.1f} {y + 1:.1f}h{self.cell_width - 2:.1f}v{_ROW_PX - 2}"
        drawn = f'<path d="{corner}h-{self.cell_width - 2:.1f}z" fill="{color}"{edge}/>'
        if self.font_size or not math.isfinite(value):
            ink = _ink(color) if math.isfinite(value) else SOFT
            size = f' font-size="{self.font_size or 10:.3g}"'
            middle = x + self.cell_width / 2
            drawn += text_element(middle, y + 15, text, anchor="middle", fill=ink, extra=size)
        shown = number(value) if math.isfinite(value) else self.heat_map.missing
        name = ", ".join(filter(None, key))
        return f"<g><title>{html.escape(f'{name}: {shown}')}</title>{drawn}</g>"

    def color(self, value: float) -> str:
        if not math.isfinite(value):
            return GRID
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        position = min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.0
        return _between(position * (len(SCALE) - 1))

    def scale(self, y: float) -> list[str]:
        """Return the legend: the colors from the lowest to the highest value."""
        low, high = number(self.low, 2), number(self.high, 2)
        if self.finite and self.finite[-1] > self.high:
            high += " or more"
        x, steps = 12 + CHAR_WIDTH_PX * len(low) + 6, 28
        parts = [text_element(12, y, low, fill=SOFT)]
        for i in range(steps):
            color = _between(i / (steps - 1) * (len(SCALE) - 1))
            parts.append(f'<path d="M{x + 4 * i:.1f} {y - 10:.1f}h4.5v12h-4.5z" fill="{color}"/>')
        x += 4 * steps + 6
        parts.append(text_element(x, y, high, fill=SOFT))
        if len(self.finite) < len(self.heat_map.cells):
            x += CHAR_WIDTH_PX * len(high) + 16
            parts.append(f'<path d="M{x:.1f} {y - 10:.1f}h14v12h-14z" fill="{GRID}"/>')
            parts.append(text_element(x + 7, y, UNCOLORED, anchor="middle", fill=SOFT))
            parts.append(text_element(x + 20, y, self.heat_map.missing, fill=SOFT))
        return parts


def _distinct_labels(rows: Sequence[str], limit: int) -> dict[str, str]:
    """Return a label of at most ``limit`` columns for each row; equal ones get their row number."""
    labels = {row: shorten(row, limit) for row in rows}
    counts = Counter(labels.values())
    for i, (row, label) in enumerate(labels.items(), 1):
        if counts[label] > 1:
            number_text = f" ({i})"
            labels[row] = shorten(row, limit - len(number_text)) + number_text
    return labels


def _between(position: float) -> str:
    """Return a color of the scale, whose colors have the positions 0, 1, 2, ..."""
    i = min(int(position), len(SCALE) - 2)
    ends = [[int(SCALE[k][j : j + 2], 16) for j in (1, 3, 5)] for k in (i, i + 1)]
    mixed = (round(a + (b - a) * (position - i)) for a, b in zip(*ends, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _ink(color: str) -> str:
    """Return white or a near-black, whichever is easier to read on a color."""
    red, green, blue = (int(color[j : j + 2], 16) / 255 for j in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "#ffffff" if luminance < 0.19 else "#10131a"
