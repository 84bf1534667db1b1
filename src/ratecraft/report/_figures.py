"""Matplotlib figures of schedules and results; without matplotlib they raise RatecraftError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ratecraft._render._axis import number
from ratecraft._render._chart import Chart, Line
from ratecraft._render._matplotlib import new_figure, plot_chart
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
from ratecraft.results._charts import MAX_CHART_LINES, metric_chart, training_loss_chart
from ratecraft.schedule import Curve, Schedule
from ratecraft.schedule._picture import curves_chart, plot

from . import _charts as charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK: Final = 6  # in the palette
MAX_FIGURE_METRICS: Final = 2
_PANEL_WIDTH, _PANEL_HEIGHT = 4.3, 3.8  # inches, of a figure with several panels


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
        total_steps: length of the run. By default each schedule's own length, or else an assumed
            one with 100 steps per epoch, which the label of the x axis names.
        steps_per_epoch: steps per epoch, used together with ``total_steps``; adds a second x axis
            that counts epochs.
        ax: axes to plot on; by default those of a new figure.
        log: use a logarithmic learning-rate axis; zeros become gaps.

    Raises:
        ScheduleError: a schedule does not resolve for ``total_steps``.

    >>> from ratecraft import cosine, linear
    >>> axes = plot_schedule([cosine(1, 0), linear(1, 0)], total_steps=100)
    >>> len(axes.get_lines())
    2
    """
    if isinstance(schedules, Schedule):
        schedules = [schedules]
    named = schedules if isinstance(schedules, Mapping) else {str(s): s for s in schedules}
    return plot(named, total_steps, steps_per_epoch=steps_per_epoch, ax=ax, log=log)


def plot_curves(curves: Mapping[str, Curve], *, ax: Axes | None = None, log: bool = False) -> Axes:
    """Plot resolved schedules over their steps.

    Args:
        curves: resolved schedules, by name.
        ax: axes to plot on; by default those of a new figure.
        log: use a logarithmic learning-rate axis; zeros become gaps.

    Raises:
        RatecraftError: the curves run on different clocks.
        ScheduleError: a curve is endless.

    >>> from ratecraft import cosine
    >>> axes = plot_curves({"cosine": cosine(1, 0.01).resolve(total_steps=100)}, log=True)
    >>> axes.get_title(), axes.get_yscale()
    ('cosine', 'log')
    """
    return plot_chart(curves_chart(curves, log_y=log), ax)


def plot_breakdown(result: Breakdown) -> Figure:
    """Plot the learning rate above and each scheduler's factor below.

    Args:
        result: from `ratecraft.diagnostics.breakdown`.

    >>> from ratecraft.results import Breakdown
    >>> result = Breakdown("head", 0.1, {"StepLR": (1.0, 0.5)}, (0.1, 0.05))
    >>> [axes.get_ylabel() for axes in plot_breakdown(result).axes]
    ['learning rate', 'factor']
    """
    lrs = Chart(
        lines=[Line("", range(len(result.lrs)), result.lrs, color=BLACK)],
        title=f"group {result.group}, base {number(result.base)}",
        x_label="",
        y_label="learning rate",
    )
    return new_figure([[lrs], [result.chart()]], height=5)


def plot_range_test(result: LRRangeTestResult) -> Figure:
    """Plot the losses of a range test, raw and smoothed, and the suggested learning rate.

    Args:
        result: from `ratecraft.range_test`.

    >>> from ratecraft.results import LRRangeTestResult
    >>> curve = (0.01, 0.1, 1.0), (2.0, 1.0, 4.0), (2.0, 1.5, 2.5)
    >>> figure = plot_range_test(LRRangeTestResult(*curve, "the loss rose", 0.1, "by hand"))
    >>> figure.axes[0].get_xscale(), len(figure.axes[0].get_lines())
    ('log', 3)
    """
    return new_figure([[_with_task(result.chart(), result.task)]])


def plot_lr_finder(result: LRFinderResult) -> Figure:
    """Plot the loss after each short run, the chosen learning rate and the range as good as it.

    Runs that diverged or ended far above the initial loss are crosses at the upper edge.

    Args:
        result: from `ratecraft.find_lr`.

    >>> from ratecraft.results import LRFinderResult, ShortRun
    >>> runs = tuple(ShortRun(10.0**-k, (1.0, 0.5), 0.1 * k, 0.01) for k in (1, 2, 3))
    >>> result = LRFinderResult(1e-3, 5e-4, 2e-3, "the best", 1.0, runs, run_steps=20)
    >>> figure = plot_lr_finder(result)
    >>> figure.legends[0].get_texts()[-1].get_text()
    'learning rate 1e-3 (5e-4 to 2e-3)'
    """
    return new_figure([[_with_task(result.chart(), result.task)]])


def plot_layer_stats(
    rows: Sequence[LayerStats] | Mapping[str, Sequence[LayerStats]], column: str = "effective_lr"
) -> Figure:
    """Plot one statistic of a Probe by layer, above the learning rate of the same steps.

    Args:
        rows: from ``Probe.rows()``, or several such lists by name, plotted side by side.
        column: the statistic to plot, a numeric field of `ratecraft.results.LayerStats`; the axis
            is logarithmic.

    Raises:
        RatecraftError: there are no rows, or ``column`` is unknown.

    >>> from ratecraft.results import LayerStats
    >>> rows = [LayerStats(k, "0", "head", 0.1, *[1.0] * 11) for k in range(3)]
    >>> [axes.get_ylabel() for axes in plot_layer_stats(rows, "relative_step").axes]
    ['relative_step', 'learning rate']
    """
    probes = rows if isinstance(rows, Mapping) else {"": rows}
    if not probes or not all(probes.values()):
        raise RatecraftError("no rows to plot: the Probe has not recorded a step yet")
    layers = list(
        dict.fromkeys(layer for stats in probes.values() for layer in layer_names(stats).values())
    )
    above = [
        replace(charts.layer_stats_chart(stats, column, layers), title=name, x_label="")
        for name, stats in probes.items()
    ]
    below = [
        replace(charts.group_lrs_chart(stats, first_color=len(layers)), title="")
        for stats in probes.values()
    ]
    # One range for all; only the first column has labels.
    lines = [line for chart in above for line in chart.lines]
    log_y = any(chart.log_y for chart in above)
    _, y_axis = replace(above[0], lines=lines, log_y=log_y).axes(y_pad=0.05)
    above = [replace(chart, y_range=(y_axis.low, y_axis.high), log_y=log_y) for chart in above]
    for row in (above, below):
        row[1:] = [replace(chart, y_label="") for chart in row[1:]]
    width = max(7, 3.2 * len(probes) + 1)
    return new_figure([above, below], width=width, height=5.2, height_ratios=(5, 2))


def plot_forecast(result: Forecast) -> Figure:
    """Plot a forecast: learning rates, forecast and logged losses, and final-loss intervals.

    Args:
        result: from `ratecraft.forecast`.

    >>> from ratecraft.results import Forecast, ForecastEntry
    >>> entry = ForecastEntry("cosine", "0.1 * cosine(1, 0)", 1.0, 0.9, 1.1, (50, 100), (1.5, 1.0))
    >>> figure = plot_forecast(Forecast((entry,), (), 100, None, 0.1, {}, {}, 0.01))
    >>> [axes.get_title() for axes in figure.axes]
    ['Schedules', 'Forecast loss', 'Loss after 100 steps']
    """
    panels = [
        charts.forecast_lrs_chart(result),
        result.chart(limit=len(result.entries)),
        charts.forecast_intervals_chart(result),
    ]
    return new_figure([panels], width=3 * _PANEL_WIDTH, height=4.4)


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

    >>> from ratecraft.results import Comparison, Evaluation, Run
    >>> run = Run("cosine(1, 0)", 0.1, seed=0, total_steps=4, steps_per_epoch=2,
    ...           losses=(1, 0.8, 0.6, 0.5), evaluations=(Evaluation(4, {"loss": 0.5}),))
    >>> result = Comparison("a quadratic", {"cosine": "cosine(1, 0)"}, (run,))
    >>> [axes.get_title() for axes in plot_comparison(result).axes]
    ['Schedules', 'Validation loss', 'Training loss, smoothed']
    """
    plotted = result.best_runs(MAX_CHART_LINES)
    by_lr = charts.loss_by_lr_chart(result, list(plotted))
    metrics = result.metrics()[:MAX_FIGURE_METRICS]
    panels = [charts.schedules_chart(plotted)]
    if by_lr is not None:  # its colors are those of the other panels, so it needs no legend
        panels.append(replace(by_lr, lines=[replace(line, name="") for line in by_lr.lines]))
    panels += [metric_chart(plotted, metric) for metric in metrics]
    panels.append(training_loss_chart(plotted))
    columns = len(panels) if len(panels) <= 3 else (len(panels) + 1) // 2
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    total, shown = len(result.families()), len(plotted)
    return new_figure(
        rows,
        width=_PANEL_WIDTH * columns,
        height=_PANEL_HEIGHT * len(rows) + 0.4,
        legend_title=f"the {shown} best of {total}" if total > shown else "",
    )


def _with_task(chart: Chart, task: str) -> Chart:
    return replace(chart, title=f"{chart.title}: {task}") if task else chart
