"""Charts of schedules and curves, which notebooks show and `ratecraft.report` draws.

`_nodes.py` and `_curve.py` import this module, so a schedule or a curve has type Any here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ratecraft._render._chart import Chart, Line
from ratecraft._render._matplotlib import plot_chart
from ratecraft._render._svg import svg_chart
from ratecraft._render._terminal import terminal_chart
from ratecraft.errors import RatecraftError, ScheduleError

from ._duration import CLOCK_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ASSUMED_TOTAL_STEPS: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
ASSUMED_SIZES: Final = {"steps_per_epoch": 100.0, "samples_per_step": 1.0, "tokens_per_step": 1.0}
ASSUMED_SIZE_TEXTS: Final = {
    "epochs(": "100 steps per epoch",
    "samples(": "1 sample per step",
    "tokens(": "1 token per step",
}
MAX_PICTURE_POINTS: Final = 1000
MAX_FIGURE_POINTS: Final = 2000  # per line; more would not be visible
SAMPLES_PER_COLUMN: Final = 4  # of a terminal; a column has two dots, and each is sampled twice


def curves_chart(
    curves: Mapping[str, Any],
    *,
    points: int = MAX_FIGURE_POINTS,
    log_y: bool = False,
    y_label: str = "learning rate",
    assumed: str = "",
) -> Chart:
    """Return the chart of resolved schedules by name; ``assumed`` goes into the x label."""
    units = {CLOCK_NAMES[curve.horizon.clock] for curve in curves.values()}
    if len(units) > 1:
        clocks, fix = ", ".join(sorted(units)), "plot the curves of each clock separately"
        raise RatecraftError(f"cannot plot curves on different clocks ({clocks}) together; {fix}")
    epochs = {curve.horizon.epochs for curve in curves.values()} - {None}
    return Chart(
        lines=[Line(name, *sample_curve(curve, points)) for name, curve in curves.items()],
        title="" if len(curves) > 1 else "".join(curves),
        x_label=next(iter(units), "step") + (f" ({assumed})" if assumed else ""),
        y_label=y_label,
        log_y=log_y,
        steps_per_epoch=epochs.pop() if len(epochs) == 1 else None,
    )


def resolve_for_chart(schedule: Any) -> tuple[Any, str]:
    """Resolve a schedule over its own length, or else over an assumed one, which is named."""
    text = repr(schedule)
    size_texts = [size for word, size in ASSUMED_SIZE_TEXTS.items() if word in text]
    for units in ({}, ASSUMED_SIZES):
        assumed = size_texts if units else []
        for total_steps in (None, *ASSUMED_TOTAL_STEPS):
            try:
                curve = schedule.resolve(total_steps=total_steps, **units)
                if total_steps is not None:
                    return curve, f"assumed: {', '.join([f'{total_steps:,} steps', *assumed])}"
                if 0 < curve.natural_length < math.inf:
                    curve = schedule.resolve(total_steps=math.ceil(curve.natural_length), **units)
                    return curve, f"assumed: {', '.join(assumed)}" if assumed else ""
            except ScheduleError as error:
                refusal = error
    raise refusal


def schedule_svg(schedule: Any, curve: Any = None) -> str:
    """Draw the curve of a schedule as SVG; if there is none with an end, over an assumed length."""
    assumed = ""
    if curve is None or math.isinf(curve.length):
        curve, assumed = resolve_for_chart(schedule)
    chart = curves_chart(
        {str(schedule): curve}, points=MAX_PICTURE_POINTS, y_label="value", assumed=assumed
    )
    return svg_chart(chart, width=480, height=260)


def terminal_curve(
    curves: Mapping[str, Any],
    *,
    width: int = 72,
    height: int = 16,
    log_y: bool = False,
    y_label: str = "lr",
    color: bool = False,
) -> str:
    """Return a text plot of resolved schedules, in a time independent of the run's length.

    Args:
        curves: resolved schedules, by name.
        width: total width in characters.
        height: height of the plot area in characters.
        log_y: use a logarithmic y axis.
        y_label: label of the y axis.
        color: color the lines with ANSI escape codes.

    Raises:
        RatecraftError: the curves run on different clocks.
        ScheduleError: a curve is endless.

    >>> from ratecraft import constant, warmup
    >>> curve = warmup(300).then(constant(1)).resolve(total_steps=900)
    >>> print(terminal_curve({"warmup": curve}, width=32, height=2))
    lr
    1.0 ┤    ⢀⣀⠤⠖⠊⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉
    0.5 ┤⣀⠤⠖⠊⠉
        └┬─────────────┬────────────
         0            500
                                step
    """
    chart = curves_chart(curves, points=SAMPLES_PER_COLUMN * width, log_y=log_y, y_label=y_label)
    return terminal_chart(chart, width=width, height=height, color=color)


def plot(
    schedules: Mapping[str, Any],
    total_steps: object = None,
    *,
    steps_per_epoch: float | None = None,
    ax: Axes | None = None,
    log: bool = False,
) -> Axes:
    """Plot schedules by name with matplotlib; see `ratecraft.report.plot_schedule`."""
    if total_steps is None:
        resolved = {name: resolve_for_chart(schedule) for name, schedule in schedules.items()}
        curves = {name: curve for name, (curve, _) in resolved.items()}
        assumed = dict.fromkeys(text for _, text in resolved.values() if text)
        return plot_chart(curves_chart(curves, log_y=log, assumed="; ".join(assumed)), ax)
    sizes = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    curves = {name: schedule.resolve(**sizes) for name, schedule in schedules.items()}
    return plot_chart(curves_chart(curves, log_y=log), ax)


def sample_curve(curve: Any, count: int) -> tuple[list[float], list[float]]:
    """Return evenly spaced points up to the end of the run, plus the extrema between them."""
    whole = curve.horizon.clock == "steps" or math.isinf(curve.length)
    end = len(curve) if whole else curve.length  # len() raises if the curve is endless
    times = [float(i * end // count) if whole else end * i / count for i in range(count + 1)]
    times = list(dict.fromkeys(times))  # a short run has fewer steps than samples
    values = [curve(t) for t in times]
    if len(times) > count:
        for i, sign in itertools.product(range(1, count), (1, -1)):
            left, middle, right = (sign * value for value in values[i - 1 : i + 2])
            if left <= middle >= right and left != right:
                times.append(_find_maximum(curve, times[i - 1], times[i + 1], sign, whole))
        times = sorted(set(times))
        values = [curve(t) for t in times]
    return times, values


def _find_maximum(curve: Any, low: float, high: float, sign: int, whole: bool) -> float:
    """Return the time between two others at which ``sign`` times the curve is largest."""
    best = low
    for _ in range(12):
        grid = [low + (high - low) * k / 8 for k in range(9)]
        grid = sorted({float(round(t)) for t in grid}) if whole else grid
        best = max(grid, key=lambda t: sign * curve(t))
        if whole and high - low <= 8:
            break
        step = (high - low) / 8
        low, high = max(low, best - step), min(high, best + step)
    return best
