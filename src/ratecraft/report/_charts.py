"""Charts that only figures and reports show; results have the others."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Final

from ratecraft._render._chart import Chart, Line, spans_decade
from ratecraft.errors import RatecraftError
from ratecraft.results import Comparison, Forecast, LayerStats, Run, layer_names
from ratecraft.results._charts import (
    MAX_CHART_LINES,
    late_ys,
    loss_chart,
    lrs_chart,
    spread_line,
    with_margin,
)
from ratecraft.schedule._picture import curves_chart

LAYER_STAT_COLUMNS: Final = tuple(field.name for field in fields(LayerStats))[4:]
"""What a Probe measures of each layer; before it come the step, the group, the layer and its lr."""


FACTOR_LABEL: Final = "learning rate / its maximum"
MAX_PEAK_RATIO: Final = 10  # of learning rates on one linear axis; beyond, factors are drawn


def schedules_chart(runs: Mapping[str, Sequence[Run]]) -> Chart:
    """Return the chart of the learning rates; of factors, if their maxima lie far apart."""
    chart = lrs_chart(runs)
    low, high = peak_range(runs)
    if not high > MAX_PEAK_RATIO * low > 0:
        return chart
    lines = []
    for line in chart.lines:
        highest = max(line.ys, default=0.0) or 1.0
        lines.append(replace(line, ys=[lr / highest for lr in line.ys]))
    return replace(chart, lines=lines, y_label=FACTOR_LABEL)


def peak_range(runs: Mapping[str, Sequence[Run]]) -> tuple[float, float]:
    """Return the lowest and the highest of the maxima of the learning rates above 0."""
    peaks = [max(line.ys, default=0.0) for line in lrs_chart(runs).lines]
    positive = [peak for peak in peaks if peak > 0]
    return min(positive, default=0.0), max(positive, default=0.0)


def loss_by_lr_chart(comparison: Comparison, plotted: Sequence[str]) -> Chart | None:
    """Return the chart of the final loss over learning rates, if a schedule has results at several.

    A thick line marks those that are not significantly worse than the best. ``plotted`` are the
    names of the candidates to draw, in the order of their colors.
    """
    configs, ranges = comparison.configs, comparison.optimal_lr_ranges()
    lines, thick = [], []
    for family, members in comparison.families().items():
        color = next((plotted.index(name) for name in members if name in plotted), None)
        if color is None:
            continue
        names = {configs[name].lr: name for name in members if name in configs}
        line = spread_line(family, _finals(comparison, names), color)
        lines.append(line)
        if (optimum := ranges.get(family)) is not None:
            points = zip(line.xs, line.ys, strict=True)
            inside = {lr: loss for lr, loss in points if optimum.low <= lr <= optimum.high}
            thick.append(Line("", list(inside), list(inside.values()), "thick", color))
    if not any(len(line.xs) > 1 for line in lines):
        return None
    title = "Validation loss by learning rate"
    return loss_chart([*lines, *thick], title=title, x_label="learning rate", log_x=True)


def loss_by_length_chart(comparison: Comparison) -> Chart | None:
    """Return the chart of the final loss over the length of the run, if a schedule has several.

    Each length is represented by its best learning rate. Of many schedules, those with the lowest
    loss after the longest run are shown.
    """
    best = comparison.best_per_schedule()
    finished = {row.name: row for row in best.summaries() if math.isfinite(row.mean["loss"])}
    names_by_length: dict[tuple[str, str], dict[float, str]] = {}
    for name in best.schedules:
        if (row := finished.get(name)) is not None:
            optimizer = best.runs_for(name)[0].optimizer
            names_by_length.setdefault((row.schedule, optimizer), {})[row.total_steps] = name
    lines = [
        spread_line(_common_label(list(names.values())), _finals(best, names))
        for names in names_by_length.values()
        if len(names) > 1
    ]
    if not lines:
        return None
    shown = sorted(lines, key=lambda line: line.ys[-1])[:MAX_CHART_LINES]
    return loss_chart(
        [line for line in lines if line in shown],
        title="Final loss by training length",
        x_label="total steps",
        log_x=spans_decade([Line("", (), line.xs) for line in lines]),
    )


def _finals(comparison: Comparison, names: Mapping[float, str]) -> dict[float, list[float]]:
    return {x: [run.final() for run in comparison.runs_for(names[x])] for x in sorted(names)}


def _common_label(names: Sequence[str]) -> str:
    """Return the leading parts that candidate names share: the schedule and the optimizer."""
    columns = zip(*(name.split(", ") for name in names), strict=False)
    common = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return ", ".join(column[0] for column in common) or names[0]


def forecast_lrs_chart(result: Forecast) -> Chart:
    size = result.total_steps, result.steps_per_epoch
    lines = curves_chart({entry.name: entry.curve(*size) for entry in result.entries}).lines
    return Chart(lines=lines, title="Schedules", y_label="learning rate")


def forecast_intervals_chart(result: Forecast) -> Chart:
    """Return the chart of the forecast final losses with their intervals, the best on top."""
    lines = []
    for i, entry in enumerate(result.entries):
        lines.append(Line("", (entry.low, entry.high), (i, i), "thick", color=i))
        lines.append(Line(entry.name, (entry.loss,), (i,), "dots", color=i))
    return Chart(
        lines=lines,
        title=f"Loss after {result.total_steps:,} steps",
        x_label="loss",
        y_range=(len(result.entries) - 0.5, -0.5),
        y_ticks=False,
    )


def forecast_vs_measured_chart(
    forecast: Forecast, measured: Chart, matches: Mapping[str, str]
) -> Chart:
    """Return the chart of measured losses, with the forecasts that match one of them dashed."""
    colors = {line.name: i for i, line in enumerate(measured.lines)}
    lines = list(measured.lines) + [
        Line("", entry.steps, entry.losses, "dashed", color=colors[matches[entry.name]])
        for entry in forecast.entries
        if entry.name in matches
    ]
    late = late_ys(lines, forecast.total_steps)
    limits = with_margin(min(late, default=0.0), max(late, default=1.0))
    return Chart(lines=lines, title="Forecast vs. measured loss", y_label="loss", y_range=limits)


def layer_stats_chart(rows: Sequence[LayerStats], column: str, layers: Sequence[str] = ()) -> Chart:
    """Return the chart of one statistic of a Probe; positions in ``layers`` are colors."""
    if column not in LAYER_STAT_COLUMNS:
        expected = ", ".join(LAYER_STAT_COLUMNS)
        raise RatecraftError(f"unknown column {column!r}; expected one of {expected}")
    names = layer_names(rows)
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        points.setdefault(names[row.group, row.layer], {})[row.step] = getattr(row, column)
    lines = _lines(points, [(layers or list(points)).index(name) for name in points])
    return Chart(lines=lines, y_label=column, log_y=any(y > 0 for line in lines for y in line.ys))


def group_lrs_chart(rows: Sequence[LayerStats], first_color: int = 0) -> Chart:
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        points.setdefault(f"group {row.group}", {})[row.step] = row.lr
    lines = _lines(points, range(first_color, first_color + len(points)))
    return Chart(lines=lines, title="Learning rate by param group", y_label="learning rate")


def _lines(points: Mapping[str, Mapping[float, float]], colors: Sequence[int]) -> list[Line]:
    return [
        Line(name, list(ys), list(ys.values()), color=color)
        for (name, ys), color in zip(points.items(), colors, strict=True)
    ]
