"""Charts of training runs, and helpers for the charts of other results."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from ratecraft._render._chart import Chart, Line, spans_decade

from ._run import Run

MAX_CHART_LINES: Final = 8  # more would be hard to distinguish


def lrs_chart(runs: Mapping[str, Sequence[Run]]) -> Chart:
    """Return the chart of the learning rate of every step, from the first run of each name."""
    values = {
        name: seeds[0].curve().values().tolist() if seeds and seeds[0].has_curve else []
        for name, seeds in runs.items()
    }
    lines = [Line(name, range(len(lrs)), lrs) for name, lrs in values.items()]
    return Chart(lines=lines, title="Schedules", y_label="learning rate")


def metric_chart(runs: Mapping[str, Sequence[Run]], metric: str = "loss") -> Chart:
    """Return the chart of a validation metric over steps: mean, lowest and highest of the seeds."""
    lines = []
    for name, seeds in runs.items():
        values_at: dict[float, list[float]] = {}
        for run in seeds:
            for evaluation in run.evaluations:
                if metric in evaluation.metrics:
                    values_at.setdefault(evaluation.step, []).append(evaluation.metrics[metric])
        # A mean without the seeds that diverged before a step would flatter the schedule.
        complete = {k: values_at[k] for k in sorted(values_at) if len(values_at[k]) == len(seeds)}
        lines.append(spread_line(name, complete))
    return loss_chart(lines, title=f"Validation {metric}", y_label=metric)


def training_loss_chart(runs: Mapping[str, Sequence[Run]]) -> Chart:
    """Return the chart of the training loss, smoothed and averaged over seeds."""
    lines = []
    for name, seeds in runs.items():
        smooth = [_smooth(run.losses, run.total_steps / 50) for run in seeds]
        # A line ends with its shortest seed, as in `metric_chart`.
        means = [statistics.fmean(losses) for losses in zip(*smooth, strict=False)]
        steps = seeds[0].loss_steps if seeds else ()
        lines.append(Line(name, steps[: len(means)] or range(len(means)), means))
    return loss_chart(lines, title="Training loss, smoothed")


def spread_line(
    name: str, values_at: Mapping[float, Sequence[float]], color: int | None = None
) -> Line:
    """Return the mean of the values at each x, with a band from the lowest to the highest."""
    rows = {x: ys for x, ys in values_at.items() if ys and all(map(math.isfinite, ys))}
    band = list(map(min, rows.values())), list(map(max, rows.values()))
    return Line(name, list(rows), list(map(statistics.fmean, rows.values())), "solid", color, band)


def loss_chart(lines: Sequence[Line], *, y_label: str = "loss", **settings: Any) -> Chart:
    """Return a chart whose y axis is logarithmic if the lines span more than a factor of 10."""
    return Chart(lines=lines, y_label=y_label, log_y=spans_decade(lines), **settings)


def late_ys(lines: Iterable[Line], total_steps: int) -> list[float]:
    """Return the y values after the first quarter of a run, in which losses fall fast."""
    points = (point for line in lines for point in zip(line.xs, line.ys, strict=True))
    return [y for step, y in points if step > total_steps / 4]


def with_margin(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _smooth(losses: Iterable[float], window: float) -> list[float]:
    """Return an exponential moving average with bias correction, up to the first NaN."""
    momentum = 1 - 1 / max(window, 1.0)
    average, smooth = 0.0, []
    for count, loss in enumerate(takewhile(math.isfinite, losses), 1):
        average = momentum * average + (1 - momentum) * loss
        smooth.append(average / (1 - momentum**count))
    return smooth
