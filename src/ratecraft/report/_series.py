"""Turn results into the lines that figures draw."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from ratecraft.results import (
    Comparison,
    Forecast,
    LayerStats,
    LRFinderResult,
    LRRangeTestResult,
    layer_names,
)
from ratecraft.schedule import Curve

MAX_FIGURE_LINES: Final = 8

Line = tuple[Sequence[float], Sequence[float]]


class Spread(NamedTuple):
    """A metric over steps: the mean, lowest and highest value over seeds."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def time_unit(curve: Curve) -> str:
    """Return the unit of the curve's time axis: step, sample or token."""
    return {"steps": "step", "samples": "sample", "tokens": "token"}[curve.horizon.clock]


def different_clocks(units: Collection[str]) -> str:
    """Return the error message for curves that cannot share a time axis."""
    return (
        f"cannot plot curves on different clocks ({', '.join(sorted(units))}) together; plot the "
        "curves of each clock separately"
    )


def select_plotted(comparison: Comparison) -> Comparison:
    """Return each schedule at its best learning rate, limited to the `MAX_FIGURE_LINES` best."""
    best = comparison.best_per_schedule()
    names = {row.name for row in best.summaries()[:MAX_FIGURE_LINES]}
    return best.select([name for name in best.schedules if name in names])


def lrs_by_schedule(comparison: Comparison) -> dict[str, Line]:
    """Return the learning rate of every step of each schedule's first run."""
    lines: dict[str, Line] = {}
    for name in comparison.schedules:
        runs = comparison.runs_for(name)
        values = runs[0].curve().values().tolist() if runs else []
        lines[name] = (range(len(values)), values)
    return lines


def validation_by_schedule(comparison: Comparison, metric: str = "loss") -> dict[str, Spread]:
    """Return a validation metric over steps, by schedule.

    Steps that some seed did not reach are left out: a mean without the seed that diverged would
    flatter its schedule.
    """
    spreads = {}
    for name in comparison.schedules:
        runs = comparison.runs_for(name)
        values_at: dict[int, list[float]] = {}
        for run in runs:
            for evaluation in run.evaluations:
                if metric in evaluation.metrics:
                    values_at.setdefault(evaluation.step, []).append(evaluation.metrics[metric])
        rows = [(k, values_at[k]) for k in sorted(values_at) if len(values_at[k]) == len(runs)]
        rows = [(k, values) for k, values in rows if all(map(math.isfinite, values))]
        spreads[name] = Spread(
            [k for k, _ in rows],
            [statistics.fmean(values) for _, values in rows],
            [min(values) for _, values in rows],
            [max(values) for _, values in rows],
        )
    return spreads


def final_loss_by_lr(comparison: Comparison) -> tuple[Mapping[str, Line], Mapping[str, Line]]:
    """Return the final validation loss over learning rates, by schedule and optimizer.

    Returns:
        The means over seeds, and the lowest and highest values.
    """
    # Families without a point are included, so that colours match the other figures.
    lines: dict[str, tuple[list[float], list[float]]] = {
        family: ([], []) for family in comparison.families()
    }
    bands: dict[str, tuple[list[float], list[float]]] = {family: ([], []) for family in lines}
    families = {name: family for family, names in comparison.families().items() for name in names}
    for name, (lr, _, _) in sorted(comparison.configs.items(), key=lambda item: item[1].lr):
        finals = [run.final() for run in comparison.runs_for(name)]
        if not finals or not all(map(math.isfinite, finals)):
            continue
        label = families[name]
        (xs, ys), (low, high) = lines[label], bands[label]
        xs.append(lr)
        ys.append(statistics.fmean(finals))
        low.append(min(finals))
        high.append(max(finals))
    return lines, bands


def final_loss_by_length(comparison: Comparison) -> tuple[dict[str, Line], dict[str, Line]]:
    """Return the final validation loss over the length of the run, by schedule and optimizer.

    Each length is represented by its best learning rate. A schedule trained for one length only
    has no line.

    Returns:
        The means over seeds, and the lowest and highest values.
    """
    best = comparison.best_per_schedule()
    names_by_length: dict[tuple[str, str], dict[int, str]] = {}
    for row in best.summaries():
        if math.isfinite(row.mean["loss"]):
            optimizer = best.runs_for(row.name)[0].optimizer
            names_by_length.setdefault((row.schedule, optimizer), {})[row.total_steps] = row.name
    positions = {name: i for i, name in enumerate(best.schedules)}
    lines: dict[str, Line] = {}
    bands: dict[str, Line] = {}
    for names in sorted(
        names_by_length.values(), key=lambda names: min(positions[n] for n in names.values())
    ):
        if len(names) < 2:
            continue
        lengths = sorted(names)
        finals = [
            [run.final() for run in best.runs_for(names[total_steps])] for total_steps in lengths
        ]
        label = _common_label(list(names.values()))
        lines[label] = lengths, [statistics.fmean(values) for values in finals]
        bands[label] = [min(values) for values in finals], [max(values) for values in finals]
    return lines, bands


def _common_label(names: Sequence[str]) -> str:
    """Return the leading parts that candidate names share: the schedule and the optimizer."""
    columns = zip(*(name.split(", ") for name in names), strict=False)
    common = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return ", ".join(column[0] for column in common) or names[0]


def training_loss_by_schedule(comparison: Comparison) -> dict[str, Line]:
    """Return the training loss, smoothed and averaged over seeds, by schedule."""
    lines: dict[str, Line] = {}
    for name in comparison.schedules:
        smooth = [_smooth(run.losses, run.total_steps / 50) for run in comparison.runs_for(name)]
        # A line ends with its shortest seed, as in `validation_by_schedule`.
        means = [statistics.fmean(losses) for losses in zip(*smooth, strict=False)]
        lines[name] = (range(len(means)), means)
    return lines


def _smooth(losses: Sequence[float], window: float) -> list[float]:
    """Return an exponential moving average with bias correction, up to the first NaN."""
    momentum = 1 - 1 / max(window, 1.0)
    average, weight, smooth = 0.0, 0.0, []
    for loss in losses:
        if not math.isfinite(loss):
            break
        average = momentum * average + (1 - momentum) * loss
        weight = momentum * weight + (1 - momentum)
        smooth.append(average / weight)
    return smooth


def range_test_limits(result: LRRangeTestResult) -> tuple[float, float] | None:
    """Return loss limits that leave out the divergence at the end; ``None`` for automatic ones."""
    smooth = [loss for loss in result.smoothed if math.isfinite(loss)]
    if not smooth:
        return None
    low = min(smooth + [loss for loss in result.losses if math.isfinite(loss)])
    start = max(smooth[: len(smooth) // 10 + 1])
    high = min(max(smooth), start + 0.5 * (start - min(smooth)))
    if high <= low:
        return None
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def lr_finder_limits(result: LRFinderResult) -> tuple[float, float]:
    """Return loss limits from the best run to a little above the initial loss."""
    low = min([result.initial_loss, *result.curve[1]])
    fall = result.initial_loss - low or abs(result.initial_loss) or 1.0
    return low - 0.1 * fall, result.initial_loss + 0.3 * fall


LAYER_STAT_COLUMNS: Final = (
    "weight_norm", "step_norm", "gradient_norm", "gradient_l1", "unclipped_norm", "effective_lr",
    "relative_step", "decay", "lr_low", "lr_median", "lr_high",
)  # fmt: skip
"""What a Probe measures of each layer."""


def stat_by_layer(rows: Sequence[LayerStats], column: str) -> dict[str, Line]:
    """Return one of `LAYER_STAT_COLUMNS` over steps, by layer."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    names = layer_names(rows)
    for row in rows:
        xs, ys = lines.setdefault(names[row.group, row.layer], ([], []))
        xs.append(row.step)
        ys.append(getattr(row, column))
    return dict(lines)


def lrs_by_group(rows: Sequence[LayerStats]) -> dict[str, Line]:
    """Return the learning rate over steps, by param group."""
    lines: dict[str, dict[float, float]] = {}
    for row in rows:
        lines.setdefault(row.group, {})[row.step] = row.lr
    return {group: (list(line), list(line.values())) for group, line in lines.items()}


def forecast_by_schedule(result: Forecast) -> dict[str, Line]:
    """Return the forecast losses over steps, by schedule."""
    return {entry.name: (entry.steps, entry.losses) for entry in result.entries}


def forecast_limits(result: Forecast) -> tuple[float, float]:
    """Return loss limits that leave out the fall in the first quarter of the run."""
    low = min(entry.low for entry in result.entries)
    late = [
        loss
        for entry in result.entries
        for step, loss in zip(entry.steps, entry.losses, strict=True)
        if step > result.total_steps / 4
    ]
    high = max(late + [entry.high for entry in result.entries])
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def spans_decade(values: Sequence[float]) -> bool:
    """Return whether all finite values are positive and span more than a factor of 10."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 10 * min(finite)


def sample_curve(curve: Curve, count: int) -> tuple[list[float], list[float]]:
    """Return evenly spaced points up to the end of the run, plus the extrema between them.

    Raises:
        ScheduleError: the curve is endless.
    """
    whole = curve.horizon.clock == "steps" or math.isinf(curve.length)
    end = len(curve) if whole else curve.length  # len() raises if the curve is endless
    times = [float(i * end // count) if whole else end * i / count for i in range(count + 1)]
    times = list(dict.fromkeys(times))  # a short run has fewer steps than samples
    values = [curve(t) for t in times]
    if len(times) > count:
        for i in range(1, count):
            left, middle, right = values[i - 1 : i + 2]
            if left <= middle >= right and left != right:
                times.append(_find_extremum(curve, times[i - 1], times[i + 1], 1, whole))
            elif left >= middle <= right and left != right:
                times.append(_find_extremum(curve, times[i - 1], times[i + 1], -1, whole))
        times = sorted(set(times))
        values = [curve(t) for t in times]
    return times, values


def _find_extremum(curve: Curve, low: float, high: float, sign: int, whole: bool) -> float:
    """Return the time of the curve's maximum (sign 1) or minimum (-1) between two times."""
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
