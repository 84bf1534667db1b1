"""Figures for papers and notebooks, drawn with matplotlib, which loads with the first one."""

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


POINTS: Final = 2000  # a line of more points looks the same
FORMATS: Final = (".png", ".svg", ".pdf")

_LINES = ("-", "--", ":", "-.")


def plot_schedule(
    schedules: Schedule | Sequence[Schedule] | Mapping[str, Schedule],
    total_steps: object = None,
    *,
    steps_per_epoch: float | None = None,
    ax: Axes | None = None,
    log: bool = False,
) -> Axes:
    """Draw one schedule, or several overlaid with a legend, and return the axes.

    Args:
        schedules: one, several, or several by name; the names are texts otherwise.
        total_steps: length of the run; default a run of nominal length, in which an epoch has 100
            steps.
        steps_per_epoch: steps per epoch, beside ``total_steps``; then there is an axis in epochs as well.
        ax: axes to draw on; default a new figure's.
        log: logarithmic lr axis; zeros are gaps.

    Raises:
        RatecraftError: matplotlib is not installed.
        ScheduleError: a schedule does not resolve over ``total_steps``.

    >>> from ratecraft import cosine, linear
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
    """Draw resolved schedules over their steps and return the axes.

    Args:
        curves: resolved schedules, by name.
        ax: axes to draw on; default a new figure's.
        log: logarithmic lr axis; zeros are gaps.

    Raises:
        RatecraftError: matplotlib is not installed, or the curves run on different clocks.
        ScheduleError: a curve is endless.

    >>> from ratecraft import cosine
    >>> axes = plot_curves({"cosine": cosine(1, 0.01).resolve(total_steps=100)}, log=True)
    >>> axes.get_title(), axes.get_yscale()
    ('cosine', 'log')
    """
    units = {series.unit(curve) for curve in curves.values()}
    if len(units) > 1:
        raise RatecraftError(f"curves on different clocks ({', '.join(sorted(units))}) in one plot")
    lines = {name: series.sampled(curve, POINTS) for name, curve in curves.items()}
    unit = next(iter(units), "step")
    axes = ax
    if axes is None:
        axes = _axes(_figure(7, 4 + 0.22 * (len(lines) - 1)), 111, "", unit, "lr")
    else:
        axes.set_xlabel(unit)
        axes.set_ylabel("lr")
    drawn = [_draw(axes, i, xs, ys) for i, (xs, ys) in enumerate(lines.values())]
    if len(drawn) > 1 and ax is None:
        # Above the axes: the names are whole schedules, too long to lie beside the lines.
        _legend(axes.get_figure(root=True), drawn, list(lines), loc="outside upper left")
    elif len(drawn) > 1:
        _legend(axes, drawn, list(lines), loc="best")
    else:
        axes.set_title("".join(lines), parse_math=False)
    if log:
        axes.set_yscale("log", nonpositive="mask")
    elif all(min(ys) >= 0 for _, ys in lines.values()):
        axes.set_ylim(bottom=0)
    sizes = {size for curve in curves.values() if (size := curve.horizon.epochs) is not None}
    if len(sizes) == 1:
        _epochs(axes, sizes.pop())
    return axes


def _epochs(axes: Axes, size: float) -> None:
    """Put a second axis on top that counts epochs of ``size`` steps."""

    def shown(steps: Any) -> Any:
        return steps / size

    def back(epochs: Any) -> Any:
        return epochs * size

    axes.secondary_xaxis("top", functions=(shown, back)).set_xlabel("epoch")


def plot_breakdown(result: Breakdown) -> Figure:
    """Return a figure of who makes the lr: above the lr, below each scheduler's own factor.

    Args:
        result: what `ratecraft.torch.breakdown` returned.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.results import Breakdown
    >>> result = Breakdown("head", 0.1, {"StepLR": (1.0, 0.5)}, (0.1, 0.05))
    >>> [axes.get_ylabel() for axes in plot_breakdown(result).axes]
    ['lr', 'factor']
    """
    names = list(result.factors)
    figure = _figure(7, 5 + 0.22 * len(names))
    title = f"group {result.group}, base {number(result.base)}"
    above = _axes(figure, 211, title, "", "lr")
    below = _axes(figure, 212, "", "step", "factor")
    steps = range(len(result.lrs))
    above.plot(steps, result.lrs, color="0.13")
    above.sharex(below)
    above.tick_params(labelbottom=False)
    drawn = [_draw(below, i, steps, ys) for i, ys in enumerate(result.factors.values())]
    for axes, lines in ((above, [result.lrs]), (below, list(result.factors.values()))):
        if all(min(ys, default=0) >= 0 for ys in lines):
            axes.set_ylim(bottom=0)
    _legend(figure, drawn, names, loc="outside lower left")
    return figure


def plot_range_test(result: LRRangeTestResult, rules: Sequence[str] = ()) -> Figure:
    """Return a figure of a range test: the losses, their average and the lrs that rules read.

    Args:
        result: what the test saw.
        rules: other known rules (see `LRRangeTestResult.suggest`) whose lrs are marked, too.

    Raises:
        RatecraftError: matplotlib is not installed, or there is no such rule.

    >>> from ratecraft.results import LRRangeTestResult
    >>> curve = (0.01, 0.1, 1.0), (2.0, 1.0, 4.0), (2.0, 1.5, 2.5)
    >>> figure = plot_range_test(LRRangeTestResult(*curve, "the loss rose", 0.1, "by hand"))
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['loss', 'smoothed', 'suggestion 0.1']
    """
    figure = _figure(7, 4)
    axes = _axes(figure, 111, result.task or "range test", "lr", "training loss")
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
    if window := series.loss_window(result):
        axes.set_ylim(window)
    axes.legend(frameon=False)
    return figure


def plot_lr_finder(result: LRFinderResult) -> Figure:
    """Return a figure of a search: the loss after each short run, the lr and its band.

    A cross at the upper edge is a run that diverged, or did more harm than the figure shows.

    Args:
        result: what `find_lr` returned.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.results import LRFinderResult, ShortRun
    >>> runs = tuple(ShortRun(10.0**-k, (1.0, 0.5), 0.1 * k, 0.01) for k in (1, 2, 3))
    >>> figure = plot_lr_finder(LRFinderResult(1e-3, 5e-4, 2e-3, "the best", 1.0, runs, length=20))
    >>> figure.axes[0].get_lines()[-1].get_label()
    '0.001 (0.0005 to 0.002)'
    """
    figure = _figure(7, 4)
    axes = _axes(figure, 111, result.task or "find_lr", "lr", "loss after the short run")
    axes.set_xscale("log")
    axes.axhline(result.before, color="0.72", linewidth=1, label="before training")
    low, high = series.gain_window(result)
    shown = [(lr, loss) for lr, loss in zip(*result.curve, strict=True) if loss <= high]
    axes.plot(*zip(*shown, strict=True), marker="o", color=PALETTE[0], label="short runs")
    rest = sorted({run.lr for run in result.runs} - {lr for lr, _ in shown})
    if rest:
        axes.plot(rest, [high] * len(rest), "x", color=PALETTE[1], label="worse, or diverged",
                  clip_on=False)  # fmt: skip
    if result.lr is not None and result.low is not None and result.high is not None:
        axes.axvspan(result.low, result.high, color=PALETTE[2], alpha=0.15, linewidth=0)
        label = f"{result.lr:.2g} ({result.low:.2g} to {result.high:.2g})"
        label += f" for a run of {result.total_steps} steps" if result.total_steps else ""
        axes.axvline(result.lr, color="0.13", linestyle="--", linewidth=1, label=label)
    axes.set_ylim(low, high)
    axes.legend(frameon=False)
    return figure


def plot_layer_stats(
    rows: Sequence[LayerStats] | Mapping[str, Sequence[LayerStats]], column: str = "effective"
) -> Figure:
    """Return a figure of what a Probe measured: above by layer over time, beneath the schedule.

    Args:
        rows: what ``Probe.rows()`` returned; several by name stand beside each other.
        column: which column is drawn above, on a logarithmic axis.

    Raises:
        RatecraftError: matplotlib is not installed, there are no rows, or no such column.

    >>> from ratecraft.results import LayerStats
    >>> rows = [LayerStats(k, "0", "head", 0.1, *[1.0] * 11) for k in range(3)]
    >>> [axes.get_ylabel() for axes in plot_layer_stats(rows, "relative").axes]
    ['relative', 'lr']
    """
    runs = rows if isinstance(rows, Mapping) else {"": rows}
    if not runs or not all(runs.values()):
        raise RatecraftError("a Probe has measured nothing yet: there are no rows to draw")
    if column not in series.COLUMNS:
        raise RatecraftError(f"no column {column!r}; there is {', '.join(series.COLUMNS)}")
    layers = list(
        dict.fromkeys(layer for one in runs.values() for layer in layer_names(one).values())
    )
    figure = _figure(max(7, 3.2 * len(runs) + 1), 5.2)
    grid = figure.add_gridspec(2, len(runs), height_ratios=(5, 2))
    first: list[Axes] = []
    drawn: dict[str, Line2D] = {}
    for i, (name, one) in enumerate(runs.items()):
        above = _axes(figure, grid[0, i], name, "", "" if i else column)
        below = _axes(figure, grid[1, i], "", "step", "" if i else "lr")
        for layer, line in series.measured(one, column).items():
            drawn[layer] = _draw(above, layers.index(layer), *line)
        if any(getattr(row, column) > 0 for row in one):
            above.set_yscale("log", nonpositive="mask")
        lrs = series.measured_lrs(one)
        for xs, ys in lrs.values():
            below.plot(xs, ys, color="0.13")
        below.set_ylim(bottom=0)
        above.sharex(below)
        above.tick_params(labelbottom=False)
        if first:
            above.sharey(first[0])
            above.tick_params(labelleft=False)
        first.append(above)
    first[0].autoscale(axis="y")  # for all that share it
    lines = [drawn[layer] for layer in layers]
    _legend(figure, lines, layers, loc="outside lower center", ncols=min(len(layers), 6))
    return figure


def plot_forecast(result: Forecast) -> Figure:
    """Return a figure of a forecast: lrs, predicted losses over logged ones, and final bands.

    Args:
        result: what `ratecraft.forecasting._forecast` returned.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.results import Forecast, ForecastEntry
    >>> one = ForecastEntry("cosine", "0.1 * cosine(1, 0)", 1.0, 0.9, 1.1, (50, 100), (1.5, 1.0))
    >>> figure = plot_forecast(Forecast((one,), (), 100, None, 0.1, {}, {}, 0.01))
    >>> [axes.get_title() for axes in figure.axes]
    ['Schedules', 'Foreseen loss', 'after 100 steps']
    """
    count = len(result.candidates)
    figure = _figure(13, 4.4 + 0.22 * count)
    lrs = _axes(figure, 131, "Schedules", "step", "lr")
    losses = _axes(figure, 132, "Foreseen loss", "step", "loss")
    ends = _axes(figure, 133, f"after {result.total_steps:,} steps", "loss", "")
    for steps, logged in result.logs.values():
        losses.plot(steps, logged, color="0.72", linewidth=1)
    drawn = []
    for i, one in enumerate(result.candidates):
        curve = one.curve(result.total_steps, result.steps_per_epoch)
        drawn.append(_draw(lrs, i, *series.sampled(curve, POINTS)))
        _draw(losses, i, one.steps, one.losses)
        color = drawn[-1].get_color()
        ends.plot([one.low, one.high], [i, i], color=color, linewidth=6, alpha=0.3)
        ends.plot([one.loss], [i], "o", color=color)
    lrs.set_ylim(bottom=0)
    losses.set_ylim(series.foreseen_window(result))
    ends.set_yticks([])
    ends.invert_yaxis()
    ends.ticklabel_format(axis="x", useOffset=False)
    names = [one.name for one in result.candidates]
    if any(one.steps for one in result.candidates) and result.logs:
        drawn.append(losses.get_lines()[0])
        names.append("logged")
    _legend(figure, drawn, names, loc="outside lower center", ncols=1 if count > 4 else 2)
    return figure


def plot_comparison(result: Comparison) -> Figure:
    """Return a figure of a comparison: lrs, validation loss and training loss over steps.

    Of several lrs each schedule's best one is drawn, and there is a panel of the final loss over
    lrs: a thick line is the flat region, whose lrs 95 % confidence does not tell from the best.
    There is a panel of the first metric beside the loss, if there is one. Of more than 8 schedules
    the best are drawn, and the legend says so.

    Validation metrics are means over seeds, their bands from the lowest to the highest; training
    loss is smoothed and averaged over seeds.

    Args:
        result: what `ratecraft.experiments.compare` returned.

    Raises:
        RatecraftError: matplotlib is not installed.

    >>> from ratecraft.results import Comparison, Evaluation, Run
    >>> text, ends = "cosine(1, 0)", (Evaluation(4, {"loss": 0.5}),)
    >>> run = Run(text, 0.1, seed=0, total_steps=4, steps_per_epoch=2, losses=(1, 0.8, 0.6, 0.5), evaluations=ends)
    >>> result = Comparison("a quadratic", {"cosine": text}, (run,))
    >>> [axes.get_title() for axes in plot_comparison(result).axes]
    ['Schedules', 'Validation loss', 'Training loss, smoothed']
    """
    shown = series.shown(result)
    names = list(shown.schedules)
    over_lrs, ends = series.sensitivity(result)
    several = any(len(xs) > 1 for xs, _ in over_lrs.values())
    metrics = shown.metrics()[:2]
    count = 2 + several + len(metrics)
    columns = count if count <= 3 else (count + 1) // 2
    rows = -(-count // columns)
    wide = max(map(len, names), default=0)
    per_row = max(min(4, int(4.3 * columns * 13 / (wide + 6))), 1)  # 13 letters an inch, about
    lines = -(-len(names) // per_row)
    figure = _figure(4.3 * columns, 3.8 * rows + 0.4 + 0.22 * lines)
    grid = figure.add_gridspec(rows, columns)
    places = (grid[i] for i in range(count))

    lrs = _axes(figure, next(places), "Schedules", "step", "lr")
    drawn = [_draw(lrs, i, *line) for i, line in enumerate(series.lrs(shown).values())]
    if several:
        axes = _axes(figure, next(places), "Validation loss over lrs", "lr", "loss")
        _draw_lrs(axes, result, names, over_lrs, ends)
    for metric in metrics:
        axes = _axes(figure, next(places), f"Validation {metric}", "step", metric)
        spreads = series.validation(shown, metric).values()
        for i, spread in enumerate(spreads):
            color = _draw(axes, i, spread.steps, spread.mean).get_color()
            axes.fill_between(
                spread.steps, spread.low, spread.high, color=color, alpha=0.15, linewidth=0
            )
        _log_if_wide(axes, [value for spread in spreads for value in spread.mean])
    training = _axes(figure, next(places), "Training loss, smoothed", "step", "loss")
    losses = series.training(shown).values()
    for i, smooth in enumerate(losses):
        _draw(training, i, *smooth)
    _log_if_wide(training, [loss for _, ys in losses for loss in ys])
    _legend(figure, drawn, names, loc="outside lower center", ncols=per_row)
    every = len(result.best_per_schedule().schedules)
    if every > len(names):
        figure.legends[0].set_title(f"the {len(names)} best of {every}")
    return figure


def _draw_lrs(
    axes: Axes,
    result: Comparison,
    names: Sequence[str],
    lines: Mapping[str, series.Line],
    ends: Mapping[str, series.Line],
) -> None:
    """Draw the loss over lrs of the schedules that have a line in the other panels."""
    axes.set_xscale("log")
    flat = result.flat()
    for family, members in result.families().items():
        place = next((names.index(name) for name in members if name in names), None)
        if place is None or not lines[family][0]:
            continue
        lrs, losses = lines[family]
        color = _draw(axes, place, lrs, losses).get_color()
        axes.fill_between(lrs, *ends[family], color=color, alpha=0.1, linewidth=0)
        if family in flat:
            inside = [
                (lr, loss)
                for lr, loss in zip(lrs, losses, strict=True)
                if flat[family].low <= lr <= flat[family].high
            ]
            axes.plot(*zip(*inside, strict=True), color=color, linewidth=5, alpha=0.4)
    _log_if_wide(axes, [loss for _, losses in lines.values() for loss in losses])


def _log_if_wide(axes: Axes, values: Sequence[float]) -> None:
    if series.spans_decade(values):
        axes.set_yscale("log")


def save_figure(drawn: Figure | Axes, path: str | os.PathLike[str]) -> Path:
    """Write a figure (or the one that axes are on) by the path's suffix, and return the path.

    Args:
        drawn: a figure or axes, as the functions here return them.
        path: a name ending in ``.png``, ``.svg`` or ``.pdf``; its folder is made if need be.

    Raises:
        RatecraftError: another suffix.

    >>> import tempfile
    >>> from ratecraft import cosine
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_figure(plot_schedule(cosine(1, 0), total_steps=100), f"{folder}/cosine.svg")
    ...     path.name, path.is_file()
    ('cosine.svg', True)
    """
    figure: Any = getattr(drawn, "figure", drawn)
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise RatecraftError(
            f"{target}: a figure is saved as one of {', '.join(FORMATS)}, not {target.suffix!r}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Without a date the same figure is the same file.
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with _same_ids():
        figure.savefig(target, dpi=150, metadata=dated.get(target.suffix.lower()))
    return target


def _same_ids() -> Any:
    """Give the parts of an SVG the same ids every time."""
    from matplotlib import rc_context

    return rc_context({"svg.hashsalt": "ratecraft"})


def _figure(width: float, height: float) -> Figure:
    try:
        # Not pyplot: that keeps every figure in a global list and may open a window.
        from matplotlib.figure import Figure
    except ImportError:
        raise RatecraftError("figures need matplotlib: pip install 'ratecraft[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def _axes(figure: Figure, place: Any, title: str, x_label: str, y_label: str) -> Axes:
    axes = figure.add_subplot(place)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.ticklabel_format(scilimits=(-3, 6))  # 3 and a common 1e-4, not 0.0003
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _draw(axes: Axes, i: int, xs: Sequence[float], ys: Sequence[float]) -> Line2D:
    """Draw line ``i``; a line of one point shows as a dot."""
    style = _LINES[i // len(PALETTE) % len(_LINES)]
    dot = "o" if len(ys) == 1 else None
    return axes.plot(xs, ys, color=PALETTE[i % len(PALETTE)], linestyle=style, marker=dot)[0]


def _legend(owner: Any, lines: Sequence[Line2D], names: Sequence[str], **place: Any) -> None:
    # DropInScheduler afterwards, since a label that starts with "_" would be left out, and "$" is no math.
    legend = owner.legend(lines, [str(i) for i in range(len(lines))], frameon=False, **place)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
        text.set_parse_math(False)
