"""Results on standard output: tables, rows of numbers, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ._console import out

if TYPE_CHECKING:
    from ratecraft.results import Comparison, Evaluation, Forecast, OptimalLRRange, Summary


def print_comparison(result: Comparison) -> None:
    """Print a comparison: its table, the best learning rates, failed runs and the verdict."""
    if not result.runs:
        out.print("no runs: the shard is empty, or every run failed")
        return
    lengths = sorted({run.total_steps for run in result.runs})
    seeds = len({run.seed for run in result.runs})
    steps = " and ".join(f"{length:,}" for length in lengths)
    table = Table(title=f"Validation after {steps} steps, {seeds} seeds")
    table.add_column("schedule", overflow="fold")
    for metric in result.metrics():
        table.add_column(escape(f"{metric} ± sd"), justify="right")
    table.add_column("diverged", justify="right")
    for row in result.summaries():
        cells = [_mean_and_spread(row.mean[m], row.spread[m]) for m in result.metrics()]
        table.add_row(escape(row.name), *cells, _diverged(row))
    out.print(table)
    if seeds > 1:  # one seed cannot show which learning rates are equally good
        for family, lr_range in result.optimal_lr_ranges().items():
            out.print(f"{family}: {_describe_range(lr_range)}", markup=False)
    for name, error in result.failed.items():
        out.print(f"failed: {name}: {error.strip().splitlines()[-1]}", markup=False)
    out.print(result.verdict(), markup=False)


def _mean_and_spread(mean: float, spread: float) -> str:
    """Return mean ± sample standard deviation, with enough digits for small values."""
    if math.isnan(mean):
        return "-"
    scientific = 0 < abs(mean) < 0.001 or abs(mean) >= 1e4
    texts = [f"{value:.3g}" if scientific else f"{value:.4f}" for value in (mean, spread)]
    return texts[0] if math.isnan(spread) else " ± ".join(texts)


def _diverged(row: Summary) -> str:
    """Return how many seeds diverged, and whether some were stopped early or are missing."""
    stopped = " (stopped early)" if row.stopped else ""
    missing = f" ({row.missing} missing)" if row.missing else ""
    return f"{row.diverged} of {row.seeds}{stopped}{missing}"


def _describe_range(lr_range: OptimalLRRange) -> str:
    """Return the best learning rate, and those that are not significantly worse."""
    ends = ", or lower" * lr_range.open_low + ", or higher" * lr_range.open_high
    equal = f"{lr_range.low:g} to {lr_range.high:g}{ends}"
    return f"best lr {lr_range.best:g}, not significantly worse: {equal}"


def print_comparison_json(result: Comparison) -> None:
    """Print a comparison as one line of JSON."""
    data = {
        "event": "result",
        "verdict": result.verdict() if result.runs else "",
        "rows": [asdict(row) for row in result.summaries()],
        "failed": result.failed,
    }
    out.print(json.dumps(_finite(data)), markup=False)


def _finite(value: Any) -> Any:
    """Return plain data with null in place of inf and nan, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_forecast(result: Forecast) -> None:
    """Print a forecast: its table, its notes and the verdict."""
    table = Table(title=f"Loss after {result.total_steps:,} steps")
    table.add_column("schedule", overflow="fold")
    table.add_column("forecast", justify="right", no_wrap=True)
    table.add_column("band", justify="right", no_wrap=True)
    for entry in result.entries:
        name = escape("\n  ".join([entry.name, *entry.notes]))
        table.add_row(name, f"{entry.loss:.4f}", f"{entry.low:.4f} to {entry.high:.4f}")
    out.print(table)
    for note in result.notes:
        out.print(f"caution: {note}", markup=False)
    out.print(result.verdict(), markup=False)


def epoch_header(evaluation: Evaluation) -> str:
    """Return the column titles of the lines that train prints after each epoch."""
    metrics = [f"{part} {name}" for name in evaluation.metrics for part in ("train", "val")]
    groups = list(evaluation.lrs)
    lrs = ["lr"] if len(groups) == 1 else [f"lr {group}" for group in groups]
    return _align(["epoch", "step", *metrics, *lrs])


def epoch_row(evaluation: Evaluation, steps_per_epoch: int) -> str:
    """Return the line that train prints after an epoch."""
    values = [
        value
        for name in evaluation.metrics
        for value in (evaluation.train.get(name, math.nan), evaluation.metrics[name])
    ]
    return _align(
        [
            f"{evaluation.step / steps_per_epoch:.3g}",
            str(evaluation.step),
            *(f"{value:.4g}" for value in (*values, *evaluation.lrs.values())),
        ]
    )


def _align(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:>{10 if i > 1 else 6}}" for i, cell in enumerate(cells))
