"""Draw charts with matplotlib, which is imported by the first figure."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ratecraft._files import write_atomically
from ratecraft.errors import RatecraftError

from ._chart import DASHES, PALETTE, Chart, wrap

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_SUFFIXES: Final = (".png", ".svg", ".pdf")
_DARK, _FAINT = "0.13", "0.55"  # levels of gray
_CHARS_PER_INCH = 11.5  # of a title
_LEGEND_CHARS_PER_INCH = 13
_LEGEND_ROW_INCHES = 0.22


def figure_class() -> type[Figure]:
    """Return matplotlib's ``Figure``; raise a RatecraftError if matplotlib is not installed."""
    try:
        # pyplot would keep every figure in a global list and might open a window.
        from matplotlib.figure import Figure
    except ImportError:
        raise RatecraftError("figures need matplotlib: pip install matplotlib") from None
    return Figure


def new_figure(
    rows: Sequence[Sequence[Chart]],
    *,
    width: float = 7,
    height: float = 4,
    height_ratios: Sequence[float] | None = None,
    legend_title: str = "",
) -> Figure:
    """Return a figure of charts in rows, and one legend below, which adds to the ``height``."""
    figure = figure_class()(figsize=(width, height), layout="constrained")
    grid = figure.add_gridspec(len(rows), len(rows[0]), height_ratios=height_ratios)
    artists: dict[str, Artist] = {}
    for i, charts in enumerate(rows):
        for j, chart in enumerate(charts):
            axes = figure.add_subplot(grid[i, j])
            for name, artist in draw(chart, axes).items():
                artists.setdefault(name, artist)
    if len(artists) > 1:
        longest_name = max(map(len, artists))
        fitting = int(width * _LEGEND_CHARS_PER_INCH / (longest_name + 6))
        columns = max(min(6, fitting), 1)
        figure.set_figheight(height + _LEGEND_ROW_INCHES * -(-len(artists) // columns))
        _add_legend(figure, artists, loc="outside lower center", ncols=columns)
        if legend_title:
            figure.legends[0].set_title(legend_title)
    return figure


def plot_chart(chart: Chart, ax: Axes | None = None) -> Axes:
    """Draw a chart with matplotlib.

    Args:
        chart: what to draw.
        ax: axes to draw on, with a legend inside; by default those of a new figure.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.report import Chart, Line
    >>> chart = Chart(lines=[Line("a", [0, 1], [3, 1]), Line("b", [0, 1], [3, 2])], y_label="loss")
    >>> axes = plot_chart(chart)
    >>> len(axes.get_lines()), axes.get_ylabel()
    (2, 'loss')
    """
    if ax is None:
        axes: Axes = new_figure([[chart]]).axes[0]
        return axes
    artists = draw(chart, ax)
    if len(artists) > 1:
        _add_legend(ax, artists, loc="best")
    return ax


def draw(chart: Chart, axes: Axes) -> dict[str, Artist]:
    """Draw a chart on axes and return the artists of its legend by name."""
    figure: Any = axes.get_figure(root=True)
    inches = axes.get_position().width * figure.get_figwidth()
    axes.set_title("\n".join(wrap(chart.title, int(inches * _CHARS_PER_INCH))), parse_math=False)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.ticklabel_format(scilimits=(-3, 6))  # 3 and a common 1e-4, not 0.0003
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    lines = [_draw_line(chart, i, color, axes) for i, color in enumerate(chart.colors())]
    legend = {chart.lines[i].name: lines[i] for i in chart.legend()}
    if chart.span is not None:
        axes.axvspan(*chart.span, color=PALETTE[2], alpha=0.15, linewidth=0)
    for i, mark in enumerate(chart.marks):
        color, style, width = (PALETTE[i % len(PALETTE)], ":", 1.5) if i else (_DARK, "--", 1)
        artist = axes.axvline(mark.x, color=color, linestyle=style, linewidth=width)
        legend[f"{chart.x_label} {mark.label}"] = artist
    x_axis, y_axis = chart.axes(0.02, 0.05)
    for log, set_scale in ((chart.log_x, axes.set_xscale), (chart.log_y, axes.set_yscale)):
        if log:
            set_scale("log", nonpositive="mask")
    axes.set_xlim(x_axis.low, x_axis.high)
    axes.set_ylim(y_axis.low, y_axis.high)
    if not chart.y_ticks:
        axes.set_yticks([])
    if (size := chart.steps_per_epoch) is not None:
        epochs_and_steps = (lambda steps: steps / size, lambda epochs: epochs * size)
        axes.secondary_xaxis("top", functions=epochs_and_steps).set_xlabel("epoch")
    return legend


def _draw_line(chart: Chart, i: int, color: int | None, axes: Axes) -> Any:
    line = chart.lines[i]
    style: dict[str, Any] = {"color": _FAINT, "linewidth": 1, "zorder": 1.5}
    if color is not None:
        dash = DASHES[color // len(PALETTE) % len(DASHES)]
        dashes = (0, [float(length) / 2 for length in dash.split()]) if dash else "-"
        style = {"color": PALETTE[color % len(PALETTE)], "linestyle": dashes}
    styles: dict[str, dict[str, Any]] = {
        "dots": {"marker": "o"},
        "crosses": {"marker": "x", "linestyle": "", "clip_on": False},
        "dashed": {"linestyle": "--", "linewidth": 1},
        "thick": {"linewidth": 6, "alpha": 0.4},
    }
    style |= styles.get(line.style, {"marker": "o" if len(line.ys) == 1 else None})
    if line.band is not None:
        axes.fill_between(line.xs, *line.band, color=style["color"], alpha=0.15, linewidth=0)
    return axes.plot(line.xs, line.ys, label=line.name, **style)[0]


def _add_legend(parent: Any, artists: dict[str, Any], **options: Any) -> None:
    # matplotlib drops labels that start with "_" and parses "$", so the names are set afterwards.
    labels = [str(i) for i in range(len(artists))]
    legend = parent.legend(list(artists.values()), labels, frameon=False, **options)
    for text, name in zip(legend.get_texts(), artists, strict=True):
        text.set_text(name)
        text.set_parse_math(False)


def save_figure(figure: Figure | Axes, path: str | os.PathLike[str]) -> Path:
    """Save a figure in the format of the path's suffix.

    The same figure always gives the same SVG or PDF file: no date is written.

    Args:
        figure: a matplotlib figure, or axes, whose figure is saved.
        path: a file name that ends in ``.png``, ``.svg`` or ``.pdf``; missing folders are created.

    Raises:
        RatecraftError: the suffix is not supported.

    >>> import tempfile
    >>> from ratecraft import cosine
    >>> from ratecraft.report import plot_schedule
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_figure(plot_schedule(cosine(1, 0), total_steps=100), f"{folder}/cosine.svg")
    ...     path.name, path.is_file()
    ('cosine.svg', True)
    """
    drawn: Any = getattr(figure, "figure", figure)
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in FIGURE_SUFFIXES:
        wrong, expected = f"cannot save a figure as {target.suffix!r}", ", ".join(FIGURE_SUFFIXES)
        raise RatecraftError(f"{target}: {wrong}; expected one of {expected}")
    from matplotlib import rc_context

    content = io.BytesIO()
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "ratecraft"}):  # the same ids in each run
        drawn.savefig(content, format=suffix[1:], dpi=150, metadata=undated.get(suffix))
    return write_atomically(target, content.getvalue())
