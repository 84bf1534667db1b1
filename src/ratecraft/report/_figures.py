"""Matplotlib figures of schedules and results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ratecraft._render._axis import number
from ratecraft._render._svg import PALETTE
from ratecraft.errors import RatecraftError
from ratecraft.results import (
    Breakdown,
    Comparison,
    Forecast,
    LayerStats,
    LRFinderResult,
    LRRangeTestResult,
    layer_names,
)
from ratecraft.schedule import Curve, Schedule

from . import _series as series
from ._picture import nominal_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


MAX_FIGURE_POINTS: Final = 2000  # per line; more would not be visible
FIGURE_SUFFIXES: Final = (".png", ".svg", ".pdf")

_LINE_STYLES = ("-", "--", ":", "-.")


def plot_schedule(
    schedules: Schedule | Sequence[Schedule] | Mapping[str, Schedule],
    total_steps: object = None,
    *,
    steps_per_epoch: float | None = None,
    ax: Axes | None = None,
    log: bool = False,
) -> Axes:
    """Plot one schedule, or several on the same axes with a legend.

    Args:
        schedules: a schedule, a sequence of schedules, or schedules by name. Without names the
            legend shows each schedule's text.
        total_steps: length of the run. By default a run of nominal length, with 100 steps per
            epoch.
        steps_per_epoch: steps per epoch, used together with ``total_steps``; adds a second x axis
            that counts epochs.
        ax: axes to plot on; by default those of a new figure.
        log: use a logarithmic learning-rate axis; zeros become gaps.

    Returns:
        The matplotlib axes.

    Raises:
        RatecraftError: matplotlib is not installed.
        ScheduleError: a schedule does not resolve for ``total_steps``.

    >>> from ratecraft import cosine, linear
    >>> from ratecraft.report import plot_schedule
    >>> axes = plot_schedule([cosine(1, 0), linear(1, 0)], total_steps=100)
    >>> len(axes.get_lines())
    2
    """
    if isinstance(schedules, Schedule):
        schedules = [schedules]
    named = schedules if isinstance(schedules, Mapping) else {repr(s): s for s in schedules}
    curves = {
        name: nominal_curve(s)
        if total_steps is None
        else s.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        for name, s in named.items()
    }
    return plot_curves(curves, ax=ax, log=log)


def plot_curves(curves: Mapping[str, Curve], *, ax: Axes | None = None, log: bool = False) -> Axes:
    """Plot resolved schedules over their steps.

    Args:
        curves: resolved schedules, by name.
        ax: axes to plot on; by default those of a new figure.
        log: use a logarithmic learning-rate axis; zeros become gaps.

    Returns:
        The matplotlib axes.

    Raises:
        RatecraftError: matplotlib is not installed, or the curves run on different clocks.
        ScheduleError: a curve is endless.

    >>> from ratecraft import cosine
    >>> from ratecraft.report import plot_curves
    >>> axes = plot_curves({"cosine": cosine(1, 0.01).resolve(total_steps=100)}, log=True)
    >>> axes.get_title(), axes.get_yscale()
    ('cosine', 'log')
    """
    units = {series.time_unit(curve) for curve in curves.values()}
    if len(units) > 1:
        raise RatecraftError(series.different_clocks(units))
    lines = {name: series.sample_curve(curve, MAX_FIGURE_POINTS) for name, curve in curves.items()}
    unit = next(iter(units), "step")
    axes = ax
    if axes is None:
        height = 4 + 0.22 * (len(lines) - 1)
        axes = _add_axes(_new_figure(7, height), 111, "", unit, "learning rate")
    else:
        axes.set_xlabel(unit)
        axes.set_ylabel("learning rate")
    drawn = [_draw_line(axes, i, xs, ys) for i, (xs, ys) in enumerate(lines.values())]
    if len(drawn) > 1 and ax is None:
        # Names can be whole schedules, which are too long for a legend inside the axes.
        _add_legend(axes.get_figure(root=True), drawn, list(lines), loc="outside upper left")
    elif len(drawn) > 1:
        _add_legend(axes, drawn, list(lines), loc="best")
    else:
        axes.set_title("".join(lines), parse_math=False)
    if log:
        axes.set_yscale("log", nonpositive="mask")
    elif all(min(ys) >= 0 for _, ys in lines.values()):
        axes.set_ylim(bottom=0)
    sizes = {size for curve in curves.values() if (size := curve.horizon.epochs) is not None}
    if len(sizes) == 1:
        _add_epoch_axis(axes, sizes.pop())
    return axes


def _add_epoch_axis(axes: Axes, steps_per_epoch: float) -> None:
    """Add a second x axis on top that counts epochs."""

    def to_epochs(steps: Any) -> Any:
        return steps / steps_per_epoch

    def to_steps(epochs: Any) -> Any:
        return epochs * steps_per_epoch

    axes.secondary_xaxis("top", functions=(to_epochs, to_steps)).set_xlabel("epoch")


def plot_breakdown(result: Breakdown) -> Figure:
    """Plot the learning rate above and each scheduler's factor below.

    Args:
        result: from `ratecraft.diagnostics.breakdown`.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.report import plot_breakdown
    >>> from ratecraft.results import Breakdown
    >>> result = Breakdown("head", 0.1, {"StepLR": (1.0, 0.5)}, (0.1, 0.05))
    >>> [axes.get_ylabel() for axes in plot_breakdown(result).axes]
    ['learning rate', 'factor']
    """
    names = list(result.factors)
    figure = _new_figure(7, 5 + 0.22 * len(names))
    title = f"group {result.group}, base {number(result.base)}"
    above = _add_axes(figure, 211, title, "", "learning rate")
    below = _add_axes(figure, 212, "", "step", "factor")
    steps = range(len(result.lrs))
    above.plot(steps, result.lrs, color="0.13")
    above.sharex(below)
    above.tick_params(labelbottom=False)
    drawn = [_draw_line(below, i, steps, ys) for i, ys in enumerate(result.factors.values())]
    for axes, lines in ((above, [result.lrs]), (below, list(result.factors.values()))):
        if all(min(ys, default=0) >= 0 for ys in lines):
            axes.set_ylim(bottom=0)
    _add_legend(figure, drawn, names, loc="outside lower left")
    return figure


def plot_range_test(result: LRRangeTestResult, rules: Sequence[str] = ()) -> Figure:
    """Plot the losses of a range test, raw and smoothed, and the suggested learning rates.

    Args:
        result: from `ratecraft.range_test`.
        rules: further rules whose suggestions are marked, keys of
            `ratecraft.results.RANGE_TEST_RULES`.

    Raises:
        RatecraftError: matplotlib is not installed.
        SettingError: unknown rule.

    >>> from ratecraft.report import plot_range_test
    >>> from ratecraft.results import LRRangeTestResult
    >>> curve = (0.01, 0.1, 1.0), (2.0, 1.0, 4.0), (2.0, 1.5, 2.5)
    >>> figure = plot_range_test(LRRangeTestResult(*curve, "the loss rose", 0.1, "by hand"))
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['loss', 'smoothed', 'suggestion 0.1']
    """
    figure = _new_figure(7, 4)
    axes = _add_axes(figure, 111, result.task or "range test", "learning rate", "training loss")
    if result.spacing == "geometric":
        axes.set_xscale("log")
    axes.plot(result.lrs, result.losses, color="0.72", linewidth=1, label="loss")
    axes.plot(result.lrs, result.smoothed, color=PALETTE[0], linewidth=2, label="smoothed")
    if result.suggestion is not None:
        label = f"suggestion {number(result.suggestion)}"
        axes.axvline(result.suggestion, color="0.13", linestyle="--", linewidth=1, label=label)
    for i, rule in enumerate(rules):
        lr = result.suggest(rule).lr
        if lr is not None and lr != result.suggestion:
            color = PALETTE[1 + i % (len(PALETTE) - 1)]
            label = f"{rule}: {number(lr)}"
            axes.axvline(lr, color=color, linestyle=":", linewidth=1.5, label=label)
    if limits := series.range_test_limits(result):
        axes.set_ylim(limits)
    axes.legend(frameon=False)
    return figure


def plot_lr_finder(result: LRFinderResult) -> Figure:
    """Plot the loss after each short run, the chosen learning rate and the range as good as it.

    Runs that diverged or ended far above the initial loss are crosses at the upper edge.

    Args:
        result: from `ratecraft.find_lr`.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.report import plot_lr_finder
    >>> from ratecraft.results import LRFinderResult, ShortRun
    >>> runs = tuple(ShortRun(10.0**-k, (1.0, 0.5), 0.1 * k, 0.01) for k in (1, 2, 3))
    >>> result = LRFinderResult(1e-3, 5e-4, 2e-3, "the best", 1.0, runs, run_steps=20)
    >>> plot_lr_finder(result).axes[0].get_lines()[-1].get_label()
    '0.001 (0.0005 to 0.002)'
    """
    figure = _new_figure(7, 4)
    title = result.task or "find_lr"
    axes = _add_axes(figure, 111, title, "learning rate", "loss after the short run")
    axes.set_xscale("log")
    axes.axhline(result.initial_loss, color="0.72", linewidth=1, label="before training")
    low, high = series.lr_finder_limits(result)
    points = [(lr, loss) for lr, loss in zip(*result.curve, strict=True) if loss <= high]
    axes.plot(*zip(*points, strict=True), marker="o", color=PALETTE[0], label="short runs")
    outside = sorted({run.lr for run in result.runs} - {lr for lr, _ in points})
    if outside:
        axes.plot(outside, [high] * len(outside), "x", color=PALETTE[1], label="worse or diverged",
                  clip_on=False)  # fmt: skip
    if result.lr is not None and result.lr_low is not None and result.lr_high is not None:
        axes.axvspan(result.lr_low, result.lr_high, color=PALETTE[2], alpha=0.15, linewidth=0)
        label = f"{result.lr:.2g} ({result.lr_low:.2g} to {result.lr_high:.2g})"
        label += f" for a run of {result.total_steps} steps" if result.total_steps else ""
        axes.axvline(result.lr, color="0.13", linestyle="--", linewidth=1, label=label)
    axes.set_ylim(low, high)
    axes.legend(frameon=False)
    return figure


def plot_layer_stats(
    rows: Sequence[LayerStats] | Mapping[str, Sequence[LayerStats]], column: str = "effective_lr"
) -> Figure:
    """Plot one statistic of a Probe by layer, above the learning rate of the same steps.

    Args:
        rows: from ``Probe.rows()``, or several such lists by name, plotted side by side.
        column: the statistic to plot, a numeric field of `ratecraft.results.LayerStats`; the axis
            is logarithmic.

    Raises:
        RatecraftError: matplotlib is not installed, there are no rows, or ``column`` is unknown.

    >>> from ratecraft.report import plot_layer_stats
    >>> from ratecraft.results import LayerStats
    >>> rows = [LayerStats(k, "0", "head", 0.1, *[1.0] * 11) for k in range(3)]
    >>> [axes.get_ylabel() for axes in plot_layer_stats(rows, "relative_step").axes]
    ['relative_step', 'learning rate']
    """
    probes = rows if isinstance(rows, Mapping) else {"": rows}
    if not probes or not all(probes.values()):
        raise RatecraftError("no rows to plot: the Probe has not recorded a step yet")
    if column not in series.LAYER_STAT_COLUMNS:
        expected = ", ".join(series.LAYER_STAT_COLUMNS)
        raise RatecraftError(f"unknown column {column!r}; expected one of {expected}")
    layers = list(
        dict.fromkeys(layer for stats in probes.values() for layer in layer_names(stats).values())
    )
    figure = _new_figure(max(7, 3.2 * len(probes) + 1), 5.2)
    grid = figure.add_gridspec(2, len(probes), height_ratios=(5, 2))
    upper_axes: list[Axes] = []
    drawn: dict[str, Line2D] = {}
    for i, (name, stats) in enumerate(probes.items()):
        above = _add_axes(figure, grid[0, i], name, "", "" if i else column)
        below = _add_axes(figure, grid[1, i], "", "step", "" if i else "learning rate")
        for layer, line in series.stat_by_layer(stats, column).items():
            drawn[layer] = _draw_line(above, layers.index(layer), *line)
        if any(getattr(row, column) > 0 for row in stats):
            above.set_yscale("log", nonpositive="mask")
        for xs, ys in series.lrs_by_group(stats).values():
            below.plot(xs, ys, color="0.13")
        below.set_ylim(bottom=0)
        above.sharex(below)
        above.tick_params(labelbottom=False)
        if upper_axes:
            above.sharey(upper_axes[0])
            above.tick_params(labelleft=False)
        upper_axes.append(above)
    upper_axes[0].autoscale(axis="y")  # applies to all axes that share it
    lines = [drawn[layer] for layer in layers]
    _add_legend(figure, lines, layers, loc="outside lower center", ncols=min(len(layers), 6))
    return figure


def plot_forecast(result: Forecast) -> Figure:
    """Plot a forecast: learning rates, forecast and logged losses, and final-loss intervals.

    Args:
        result: from `ratecraft.forecast`.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.report import plot_forecast
    >>> from ratecraft.results import Forecast, ForecastEntry
    >>> entry = ForecastEntry("cosine", "0.1 * cosine(1, 0)", 1.0, 0.9, 1.1, (50, 100), (1.5, 1.0))
    >>> figure = plot_forecast(Forecast((entry,), (), 100, None, 0.1, {}, {}, 0.01))
    >>> [axes.get_title() for axes in figure.axes]
    ['Schedules', 'Forecast loss', 'Loss after 100 steps']
    """
    count = len(result.entries)
    figure = _new_figure(13, 4.4 + 0.22 * count)
    lrs = _add_axes(figure, 131, "Schedules", "step", "learning rate")
    losses = _add_axes(figure, 132, "Forecast loss", "step", "loss")
    finals = _add_axes(figure, 133, f"Loss after {result.total_steps:,} steps", "loss", "")
    for steps, logged in result.logs.values():
        losses.plot(steps, logged, color="0.72", linewidth=1)
    drawn = []
    for i, entry in enumerate(result.entries):
        curve = entry.curve(result.total_steps, result.steps_per_epoch)
        drawn.append(_draw_line(lrs, i, *series.sample_curve(curve, MAX_FIGURE_POINTS)))
        _draw_line(losses, i, entry.steps, entry.losses)
        color = drawn[-1].get_color()
        finals.plot([entry.low, entry.high], [i, i], color=color, linewidth=6, alpha=0.3)
        finals.plot([entry.loss], [i], "o", color=color)
    lrs.set_ylim(bottom=0)
    losses.set_ylim(series.forecast_limits(result))
    finals.set_yticks([])
    finals.invert_yaxis()
    finals.ticklabel_format(axis="x", useOffset=False)
    names = [entry.name for entry in result.entries]
    if any(entry.steps for entry in result.entries) and result.logs:
        drawn.append(losses.get_lines()[0])
        names.append("logged")
    _add_legend(figure, drawn, names, loc="outside lower center", ncols=1 if count > 4 else 2)
    return figure


def plot_comparison(result: Comparison) -> Figure:
    """Plot a comparison: learning rates, validation metrics and training loss over steps.

    Validation metrics are means over seeds, with a band from the lowest to the highest seed. The
    loss and one further metric are shown. Training loss is smoothed and averaged over seeds.

    If there are several learning rates, each schedule is shown at its best one, and a panel shows
    the final loss over learning rates. A thick line marks the learning rates that are not
    significantly worse than the best (95 % confidence). With more than 8 schedules only the best
    8 are shown; the legend says so.

    Args:
        result: from `ratecraft.compare`.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.report import plot_comparison
    >>> from ratecraft.results import Comparison, Evaluation, Run
    >>> text, evaluations = "cosine(1, 0)", (Evaluation(4, {"loss": 0.5}),)
    >>> run = Run(text, 0.1, seed=0, total_steps=4, steps_per_epoch=2,
    ...           losses=(1, 0.8, 0.6, 0.5), evaluations=evaluations)
    >>> result = Comparison("a quadratic", {"cosine": text}, (run,))
    >>> [axes.get_title() for axes in plot_comparison(result).axes]
    ['Schedules', 'Validation loss', 'Training loss, smoothed']
    """
    plotted = series.select_plotted(result)
    names = list(plotted.schedules)
    loss_by_lr, bands = series.final_loss_by_lr(result)
    several_lrs = any(len(xs) > 1 for xs, _ in loss_by_lr.values())
    metrics = plotted.metrics()[:2]
    count = 2 + several_lrs + len(metrics)
    columns = count if count <= 3 else (count + 1) // 2
    rows = -(-count // columns)
    longest_name = max(map(len, names), default=0)
    # About 13 letters fit on an inch.
    names_per_row = max(min(4, int(4.3 * columns * 13 / (longest_name + 6))), 1)
    legend_rows = -(-len(names) // names_per_row)
    figure = _new_figure(4.3 * columns, 3.8 * rows + 0.4 + 0.22 * legend_rows)
    grid = figure.add_gridspec(rows, columns)
    cells = (grid[i] for i in range(count))

    lrs = _add_axes(figure, next(cells), "Schedules", "step", "learning rate")
    lr_lines = series.lrs_by_schedule(plotted).values()
    drawn = [_draw_line(lrs, i, *line) for i, line in enumerate(lr_lines)]
    if several_lrs:
        title = "Validation loss by learning rate"
        axes = _add_axes(figure, next(cells), title, "learning rate", "loss")
        _draw_loss_by_lr(axes, result, names, loss_by_lr, bands)
    for metric in metrics:
        axes = _add_axes(figure, next(cells), f"Validation {metric}", "step", metric)
        spreads = series.validation_by_schedule(plotted, metric).values()
        for i, spread in enumerate(spreads):
            color = _draw_line(axes, i, spread.steps, spread.mean).get_color()
            axes.fill_between(
                spread.steps, spread.low, spread.high, color=color, alpha=0.15, linewidth=0
            )
        _use_log_if_wide(axes, [value for spread in spreads for value in spread.mean])
    training = _add_axes(figure, next(cells), "Training loss, smoothed", "step", "loss")
    losses = series.training_loss_by_schedule(plotted).values()
    for i, line in enumerate(losses):
        _draw_line(training, i, *line)
    _use_log_if_wide(training, [loss for _, ys in losses for loss in ys])
    _add_legend(figure, drawn, names, loc="outside lower center", ncols=names_per_row)
    total = len(result.best_per_schedule().schedules)
    if total > len(names):
        figure.legends[0].set_title(f"the {len(names)} best of {total}")
    return figure


def _draw_loss_by_lr(
    axes: Axes,
    result: Comparison,
    names: Sequence[str],
    lines: Mapping[str, series.Line],
    bands: Mapping[str, series.Line],
) -> None:
    """Draw the final loss over learning rates of the schedules that the other panels show."""
    axes.set_xscale("log")
    ranges = result.optimal_lr_ranges()
    for family, members in result.families().items():
        index = next((names.index(name) for name in members if name in names), None)
        if index is None or not lines[family][0]:
            continue
        lrs, losses = lines[family]
        color = _draw_line(axes, index, lrs, losses).get_color()
        axes.fill_between(lrs, *bands[family], color=color, alpha=0.1, linewidth=0)
        if family in ranges:
            inside = [
                (lr, loss)
                for lr, loss in zip(lrs, losses, strict=True)
                if ranges[family].low <= lr <= ranges[family].high
            ]
            axes.plot(*zip(*inside, strict=True), color=color, linewidth=5, alpha=0.4)
    _use_log_if_wide(axes, [loss for _, losses in lines.values() for loss in losses])


def _use_log_if_wide(axes: Axes, values: Sequence[float]) -> None:
    if series.spans_decade(values):
        axes.set_yscale("log")


def save_figure(figure: Figure | Axes, path: str | os.PathLike[str]) -> Path:
    """Save a figure in the format of the path's suffix.

    The same figure always gives the same SVG or PDF file: no date is written.

    Args:
        figure: a matplotlib figure, or axes, whose figure is saved.
        path: a file name that ends in ``.png``, ``.svg`` or ``.pdf``; missing folders are created.

    Returns:
        The path.

    Raises:
        RatecraftError: the suffix is not supported.

    >>> import tempfile
    >>> from ratecraft import cosine
    >>> from ratecraft.report import plot_schedule, save_figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_figure(plot_schedule(cosine(1, 0), total_steps=100), f"{folder}/cosine.svg")
    ...     path.name, path.is_file()
    ('cosine.svg', True)
    """
    drawn: Any = getattr(figure, "figure", figure)
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in FIGURE_SUFFIXES:
        expected = ", ".join(FIGURE_SUFFIXES)
        raise RatecraftError(
            f"{target}: cannot save a figure as {target.suffix!r}; expected one of {expected}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with _deterministic_svg_ids():
        drawn.savefig(target, dpi=150, metadata=undated.get(suffix))
    return target


def _deterministic_svg_ids() -> Any:
    from matplotlib import rc_context

    return rc_context({"svg.hashsalt": "ratecraft"})


def _new_figure(width: float, height: float) -> Figure:
    try:
        # pyplot would keep every figure in a global list and might open a window.
        from matplotlib.figure import Figure
    except ImportError:
        raise RatecraftError("figures need matplotlib: pip install 'ratecraft[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def _add_axes(figure: Figure, cell: Any, title: str, x_label: str, y_label: str) -> Axes:
    axes = figure.add_subplot(cell)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.ticklabel_format(scilimits=(-3, 6))  # 3 and a common 1e-4, not 0.0003
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _draw_line(axes: Axes, i: int, xs: Sequence[float], ys: Sequence[float]) -> Line2D:
    """Draw line number ``i``; a line of one point is drawn as a dot."""
    style = _LINE_STYLES[i // len(PALETTE) % len(_LINE_STYLES)]
    marker = "o" if len(ys) == 1 else None
    return axes.plot(xs, ys, color=PALETTE[i % len(PALETTE)], linestyle=style, marker=marker)[0]


def _add_legend(parent: Any, lines: Sequence[Line2D], names: Sequence[str], **options: Any) -> None:
    # matplotlib drops labels that start with "_" and parses "$", so the names are set afterwards.
    labels = [str(i) for i in range(len(lines))]
    legend = parent.legend(lines, labels, frameon=False, **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
        text.set_parse_math(False)
