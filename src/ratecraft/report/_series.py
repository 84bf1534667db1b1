"""From results to the lines worth drawing; every number comes from the result."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
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

MOST: Final = 8  # lines in one figure

Line = tuple[Sequence[float], Sequence[float]]


class Spread(NamedTuple):
    """A metric over steps: mean, lowest and highest over the seeds."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def unit(curve: Curve) -> str:
    """Return what the curve's time counts: step, sample or token."""
    return {"steps": "step", "samples": "sample", "tokens": "token"}[curve.horizon.clock]


def shown(comparison: Comparison) -> Comparison:
    """Return what is worth drawing: each schedule at its best lr, the `MOST` best of them."""
    best = comparison.best_per_schedule()
    kept = {row.name for row in best.summaries()[:MOST]}
    return best.select([name for name in best.schedules if name in kept])


def lrs(comparison: Comparison) -> dict[str, Line]:
    """Return the lr of every step, by schedule (of its first run)."""
    lines: dict[str, Line] = {}
    for name in comparison.schedules:
        runs = comparison.runs_for(name)
        values = runs[0].curve().values().tolist() if runs else []
        lines[name] = (range(len(values)), values)
    return lines


def validation(comparison: Comparison, metric: str = "loss") -> dict[str, Spread]:
    """Return a validation metric over steps, by schedule.

    Only steps that every seed reached are here: a mean without the seed that diverged would
    flatter its schedule.
    """
    spreads = {}
    for name in comparison.schedules:
        runs = comparison.runs_for(name)
        seen: dict[int, list[float]] = {}
        for run in runs:
            for evaluation in run.evaluations:
                if metric in evaluation.metrics:
                    seen.setdefault(evaluation.step, []).append(evaluation.metrics[metric])
        rows = [(u, seen[u]) for u in sorted(seen) if len(seen[u]) == len(runs)]
        rows = [(u, values) for u, values in rows if all(map(math.isfinite, values))]
        spreads[name] = Spread(
            [u for u, _ in rows],
            [statistics.fmean(values) for _, values in rows],
            [min(values) for _, values in rows],
            [max(values) for _, values in rows],
        )
    return spreads


def sensitivity(
    comparison: Comparison,
) -> tuple[Mapping[str, Line], Mapping[str, Line]]:
    """Return the last validation loss over lrs, by schedule and optimizer: mean, and its ends."""
    # All of them, in the order of the other figures, so that each has its colour of there.
    lines: dict[str, tuple[list[float], list[float]]] = {
        family: ([], []) for family in comparison.families()
    }
    bands: dict[str, tuple[list[float], list[float]]] = {family: ([], []) for family in lines}
    families = {name: family for family, some in comparison.families().items() for name in some}
    for name, (lr, _, _) in sorted(comparison.settings.items(), key=lambda one: one[1].lr):
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


def budgets(comparison: Comparison) -> tuple[dict[str, Line], dict[str, Line]]:
    """Return the last validation loss over steps planned: mean, and its ends.

    A line is of one schedule and optimizer, at the best lr of each length; only what was trained
    over several lengths has one.
    """
    best = comparison.best_per_schedule()
    alike: dict[tuple[str, str], dict[int, str]] = {}
    for row in best.summaries():
        if math.isfinite(row.mean["loss"]):
            alike.setdefault((row.schedule, best.runs_for(row.name)[0].optimizer), {})[
                row.total_steps
            ] = row.name
    places = {name: place for place, name in enumerate(best.schedules)}
    lines: dict[str, Line] = {}
    bands: dict[str, Line] = {}
    for names in sorted(alike.values(), key=lambda names: min(places[n] for n in names.values())):
        if len(names) < 2:
            continue
        totals = sorted(names)
        finals = [
            [run.final() for run in best.runs_for(names[total_steps])] for total_steps in totals
        ]
        label = _shared(list(names.values()))
        lines[label] = totals, [statistics.fmean(values) for values in finals]
        bands[label] = [min(values) for values in finals], [max(values) for values in finals]
    return lines, bands


def _shared(names: Sequence[str]) -> str:
    """Return what names have in common: the schedule and the optimizer come before the length."""
    parts = zip(*(name.split(", ") for name in names), strict=False)
    common = itertools.takewhile(lambda some: len(set(some)) == 1, parts)
    return ", ".join(some[0] for some in common) or names[0]


def training(comparison: Comparison) -> dict[str, Line]:
    """Return the training loss, smoothed and averaged over seeds, by schedule."""
    lines: dict[str, Line] = {}
    for name in comparison.schedules:
        smooth = [_smoothed(run.losses, run.total_steps / 50) for run in comparison.runs_for(name)]
        # The shortest seed ends the line, for the same reason as in `validation`.
        means = [statistics.fmean(losses) for losses in zip(*smooth, strict=False)]
        lines[name] = (range(len(means)), means)
    return lines


def _smoothed(losses: Sequence[float], window: float) -> list[float]:
    """Return an exponential moving average with bias correction, up to the first NaN."""
    keep = 1 - 1 / max(window, 1.0)
    average, weight, smooth = 0.0, 0.0, []
    for loss in losses:
        if not math.isfinite(loss):
            break
        average = keep * average + (1 - keep) * loss
        weight = keep * weight + (1 - keep)
        smooth.append(average / weight)
    return smooth


def loss_window(result: LRRangeTestResult) -> tuple[float, float] | None:
    """Return the losses worth showing: the blow-up at the end would flatten all before it."""
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


def gain_window(result: LRFinderResult) -> tuple[float, float]:
    """Return the losses worth showing: from the best up to a little above where they began."""
    low = min([result.before, *result.curve[1]])
    fall = result.before - low or abs(result.before) or 1.0
    return low - 0.1 * fall, result.before + 0.3 * fall


COLUMNS: Final = (
    "weight", "step", "gradient", "gradient_l1", "unclipped", "effective", "relative", "decay",
    "low", "median", "high",
)  # fmt: skip
"""What a Probe measures of each layer."""


def measured(rows: Sequence[LayerStats], column: str) -> dict[str, Line]:
    """Return one of `COLUMNS` over steps, by layer."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    names = layer_names(rows)
    for row in rows:
        xs, ys = lines.setdefault(names[row.group, row.layer], ([], []))
        xs.append(row.step)
        ys.append(getattr(row, column))
    return dict(lines)


def foreseen(result: Forecast) -> dict[str, Line]:
    """Return the predicted losses over steps, by schedule."""
    return {one.name: (one.steps, one.losses) for one in result.candidates}


def foreseen_window(result: Forecast) -> tuple[float, float]:
    """Return the losses worth showing: the fall at the start would flatten all that differs."""
    low = min(one.low for one in result.candidates)
    late = [
        loss
        for one in result.candidates
        for step, loss in zip(one.steps, one.losses, strict=True)
        if step > result.total_steps / 4
    ]
    high = max(late + [one.high for one in result.candidates])
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def measured_lrs(rows: Sequence[LayerStats]) -> dict[str, Line]:
    """Return the lr over steps, by group."""
    lines: dict[str, dict[float, float]] = {}
    for row in rows:
        lines.setdefault(row.group, {})[row.step] = row.lr
    return {group: (list(line), list(line.values())) for group, line in lines.items()}


def spans_decade(values: Sequence[float]) -> bool:
    """Return whether all finite values are positive and the highest is 10 times the lowest."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 10 * min(finite)


def sampled(curve: Curve, count: int) -> tuple[list[float], list[float]]:
    """Return evenly spaced points up to the end of the run, and each peak and trough between."""
    whole = curve.horizon.clock == "steps" or math.isinf(curve.length)
    end = len(curve) if whole else curve.length  # raises for an endless curve, and says what to do
    times = [float(i * end // count) if whole else end * i / count for i in range(count + 1)]
    times = list(dict.fromkeys(times))  # a short run has fewer steps than samples
    values = [curve(t) for t in times]
    if len(times) > count:
        for i in range(1, count):
            before, here, after = values[i - 1 : i + 2]
            if before <= here >= after and before != after:
                times.append(_summit(curve, times[i - 1], times[i + 1], 1, whole))
            elif before >= here <= after and before != after:
                times.append(_summit(curve, times[i - 1], times[i + 1], -1, whole))
        times = sorted(set(times))
        values = [curve(t) for t in times]
    return times, values


def _summit(curve: Curve, low: float, high: float, sign: int, whole: bool) -> float:
    """Return where the curve is highest (sign 1) or lowest (-1) between two times."""
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
