"""Report sections about a comparison: verdict, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

from ratecraft._render._axis import number
from ratecraft.results import Comparison, OptimalLRRange, Summary, TimeToTarget

from . import _html as html
from . import _series as series


def comparison_section(comparison: Comparison) -> list[str]:
    """Return the page sections of a comparison, without its single runs."""
    return [
        f'<p class="soft">{escape(_description(comparison))}</p>',
        f'<p class="verdict">{escape(comparison.verdict())}</p>',
        *(
            f"<p>Failed: {escape(name)}: {escape(error.splitlines()[-1])}</p>"
            for name, error in comparison.failed.items()
        ),
        "<h2>Results</h2>",
        *_summary(comparison),
        *_lr_sensitivity(comparison),
        *_time_to_target(comparison),
        *_loss_by_length(comparison),
        "<h2>Schedules and losses</h2>",
        *_figures(comparison),
    ]


def color_keys(comparison: Comparison) -> dict[str, str]:
    """Return a color key for each candidate that the figures show; an empty string for others."""
    plotted = list(series.select_plotted(comparison).schedules)
    return {
        name: html.color_key(plotted.index(name)) if name in plotted else ""
        for name in comparison.schedules
    }


def _listed(values: Iterable[float]) -> str:
    """Return numbers as text, in ascending order."""
    return ", ".join(f"{v}" if isinstance(v, int) else number(v) for v in sorted(values))


def _description(comparison: Comparison) -> str:
    runs = comparison.runs
    parts = [comparison.task, html.pluralize(len(comparison.schedules), "candidate")]
    parts.append(html.pluralize(len({run.seed for run in runs}), "seed"))
    if lengths := {run.total_steps for run in runs}:
        parts.append(f"{_listed(lengths)} steps")
        parts.append(f"learning rate {_listed({run.lr for run in runs})}")
    return " · ".join(part for part in parts if part)


def _summary(comparison: Comparison) -> list[str]:
    metrics, summaries = comparison.metrics(), comparison.summaries()
    any_diverged = any(row.diverged for row in summaries)
    any_timed = any(run.seconds for run in comparison.runs)
    several_lengths = len({row.total_steps for row in summaries if row.total_steps}) > 1
    rows, keys = [], color_keys(comparison)
    best_of_length: dict[int, str] = {}
    for row in summaries:
        is_best = best_of_length.setdefault(row.total_steps, row.name) == row.name
        name = f"{keys[row.name]}<strong>{escape(row.name)}</strong>"
        name += f"<code>{escape(row.schedule)}</code>"
        if row.stopped:
            name += f'<div class="soft">stopped early: {row.stopped} of {row.seeds} seeds</div>'
        if row.missing:
            name += f'<div class="soft">seeds missing: {row.missing}</div>'
        values = [mean_and_spread(row, metric) for metric in metrics]
        cells = [name, *[f"{row.total_steps:,}"] * several_lengths, str(row.seeds)]
        cells += [values[0], "" if is_best else _gap(row), *values[1:]]
        cells += [str(row.diverged)] * any_diverged
        cells += [_mean_seconds(comparison, row.name)] * any_timed
        highlight = is_best and not math.isnan(row.mean["loss"])
        rows.append(html.row(cells, css_class="best" if highlight else ""))
    head = ["schedule", *["steps"] * several_lengths, "seeds", "validation loss", "gap to best"]
    head += [*metrics[1:], *["diverged"] * any_diverged, *["time"] * any_timed]
    same_length = " with the same number of steps" if several_lengths else ""
    note = (
        "Final validation metrics: mean ± sample standard deviation over seeds. Gap to best: mean "
        f"difference from the best schedule{same_length}, paired by seed, with its 95 % confidence "
        "interval."
    )
    if any_timed:
        note += " Time: mean wall time per run."
    if any(row.stopped for row in summaries):
        note += " Runs that were stopped early have no final value."
    return [html.table(head, rows), f'<p class="soft">{note}</p>']


def _gap(row: Summary) -> str:
    """Return the gap to the best candidate with its confidence interval."""
    if math.isnan(row.gap):
        return "-"
    if math.isnan(row.gap_low):
        return number(row.gap, 2)
    return f"{number(row.gap, 2)} ({number(row.gap_low, 2)} to {number(row.gap_high, 2)})"


def mean_and_spread(row: Summary, metric: str = "loss") -> str:
    """Return a metric's mean and standard deviation over seeds, with the same decimal places."""
    mean, spread = row.mean[metric], row.spread[metric]
    if math.isnan(mean):
        return "-"
    if not math.isfinite(spread) or not 1e-3 <= abs(mean) < 1e4:
        return number(mean) + (f" ± {number(spread, 2)}" if math.isfinite(spread) else "")
    decimals = 3 - math.floor(math.log10(abs(mean)))
    small = 0 < spread < 0.5 * 10**-decimals
    return f"{mean:.{decimals}f} ± {number(spread, 2) if small else f'{spread:.{decimals}f}'}"


def _mean_seconds(comparison: Comparison, name: str) -> str:
    """Return the mean wall time of a candidate's runs."""
    seconds = [run.seconds for run in comparison.runs_for(name)]
    return f"{number(sum(seconds) / len(seconds), 3)} s" if seconds else "-"


def _lr_sensitivity(comparison: Comparison) -> list[str]:
    """Draw the final loss over learning rates, if there are several, and list optimal ranges."""
    plotted = set(series.select_plotted(comparison).schedules)
    members = [
        name
        for names in comparison.families().values()
        if plotted.intersection(names)
        for name in names
    ]
    lines, bands = series.final_loss_by_lr(comparison.select(members))
    if not any(len(lrs) > 1 for lrs, _ in lines.values()):
        return []
    caption = (
        "Mean over seeds; the band spans the lowest to the highest seed. Learning rates at which a "
        "seed diverged or was stopped early are left out. Figures over steps show each schedule at "
        "its best learning rate."
    )
    figure = html.figure(
        lines,
        caption + _omitted_lines(comparison),
        title="Validation loss by learning rate",
        x_label="learning rate",
        y_label="loss",
        log_x=True,
        log_y=series.spans_decade([y for _, ys in lines.values() for y in ys]),
        band=bands,
    )
    return ["<h2>Learning-rate sensitivity</h2>", figure, *_optimal_ranges(comparison)]


def _optimal_ranges(comparison: Comparison) -> list[str]:
    rows, families, keys = [], comparison.families(), color_keys(comparison)
    for family, optimum in comparison.optimal_lr_ranges().items():
        key = next((keys[name] for name in families[family] if keys[name]), "")
        low, high = number(optimum.low), number(optimum.high)
        low += " or lower" if optimum.open_low else ""
        high += " or higher" if optimum.open_high else ""
        seeds = min(len(comparison.runs_for(name)) for name in families[family])
        cells = [f"{key}{escape(family)}", number(optimum.best)]
        cells += [low if low == high else f"{low} to {high}", _interpret(optimum, seeds)]
        rows.append(html.row(cells))
    if not rows:
        return []
    note = (
        "The optimal range holds the learning rates around the best one that are not significantly "
        "worse (95 % confidence, paired by seed). More seeds narrow it; more learning rates locate "
        "its ends more precisely."
    )
    head = ["schedule", "best learning rate", "optimal range", "interpretation"]
    return [html.table(head, rows, css_class="prose"), f'<p class="soft">{note}</p>']


def _interpret(optimum: OptimalLRRange, seeds: int) -> str:
    """Return what an optimal range means for the choice of a learning rate."""
    if seeds < 2:
        return "one seed is not enough to compare learning rates"
    if optimum.open_high and optimum.best == optimum.high:
        return "the best learning rate is the highest tried: try higher ones"
    if optimum.open_low and optimum.best == optimum.low:
        return "the best learning rate is the lowest tried: try lower ones"
    if optimum.open_low and optimum.open_high:
        return "no learning rate tried is significantly worse"
    if optimum.open_low or optimum.open_high:
        side = "lower" if optimum.open_low else "higher"
        return f"no {side} learning rate tried is significantly worse"
    if optimum.low == optimum.high:
        return "its neighbors are worse: the result is sensitive to the learning rate"
    factor = number(optimum.high / optimum.low, 2)
    return f"within a factor of {factor} the learning rate hardly matters"


def _time_to_target(comparison: Comparison) -> list[str]:
    """Return a table of the steps each schedule needs to reach a loss that all reached."""
    target = comparison.target()
    if target is None:
        return []
    best = comparison.best_per_schedule()
    times, keys = best.time_to_target(target), color_keys(comparison)
    any_timed = any(run.seconds for run in best.runs)
    rows = []
    for name, time in sorted(times.items(), key=lambda item: _soonest_first(item[1])):
        cells = [f"{keys[name]}{escape(name)}"]
        cells.append("-" if math.isnan(time.steps) else f"{time.steps:,.0f}")
        seconds = "-" if math.isnan(time.seconds) else f"{number(time.seconds, 3)} s"
        cells += [*[seconds] * any_timed, f"{time.seeds} of {len(best.runs_for(name))}"]
        rows.append(html.row(cells))
    note = (
        f"Target: a validation loss of {number(target)}, the lowest that every finished schedule "
        "reached with all its seeds at its best learning rate. Steps and times are those of the "
        "first evaluation at or below the target: means over seeds, if all seeds reached it."
    )
    return [
        "<h2>Time to target</h2>",
        html.table(["schedule", "steps", *["time"] * any_timed, "seeds"], rows),
        f'<p class="soft">{note}</p>',
    ]


def _soonest_first(time: TimeToTarget) -> tuple[bool, float]:
    """Return a sort key by steps; candidates with a seed that missed the target come last."""
    return math.isnan(time.steps), -time.seeds if math.isnan(time.steps) else time.steps


def _loss_by_length(comparison: Comparison) -> list[str]:
    """Draw the final loss over the length of the run, if there are several lengths."""
    lines, bands = series.final_loss_by_length(comparison)
    if not lines:
        return []
    # Of many schedules, those with the lowest loss after the longest run.
    labels = sorted(lines, key=lambda label: lines[label][1][-1])[: series.MAX_FIGURE_LINES]
    lines = {label: line for label, line in lines.items() if label in labels}
    caption = (
        "Final validation loss of runs of different lengths, each at its best learning rate: mean "
        "over seeds; the band spans the lowest to the highest seed."
    )
    figure = html.figure(
        lines,
        caption,
        title="Final loss by training length",
        x_label="total steps",
        y_label="loss",
        log_x=series.spans_decade([x for xs, _ in lines.values() for x in xs]),
        log_y=series.spans_decade([y for _, ys in lines.values() for y in ys]),
        band={label: bands[label] for label in lines},
    )
    return ["<h2>Final loss by training length</h2>", figure]


def _omitted_lines(comparison: Comparison) -> str:
    """Return a caption's sentence about schedules that the figures leave out."""
    count = len(comparison.best_per_schedule().schedules)
    limit = series.MAX_FIGURE_LINES
    return f" The {limit} best of {count} schedules are shown." if count > limit else ""


def _figures(comparison: Comparison) -> list[str]:
    plotted = series.select_plotted(comparison)
    losses = series.training_loss_by_schedule(plotted)
    caption_end = _omitted_lines(comparison)
    if any(run.diverged is not None for run in plotted.runs):
        caption_end = f" A line ends where the first of its seeds diverged.{caption_end}"
    lrs = html.figure(
        series.lrs_by_schedule(plotted),
        f"The learning rate of every step.{_omitted_lines(comparison)}",
        title="Schedules",
        x_label="step",
        y_label="learning rate",
    )
    training = html.figure(
        losses,
        "Exponential moving average over 2 % of the run, mean over seeds." + caption_end,
        title="Training loss, smoothed",
        x_label="step",
        y_label="loss",
        log_y=series.spans_decade([y for _, ys in losses.values() for y in ys]),
    )
    return [lrs, *_metrics(plotted, caption_end), training]


def _metrics(plotted: Comparison, caption_end: str) -> list[str]:
    """Draw each validation metric over steps."""
    figures = []
    for metric in plotted.metrics():
        spreads = series.validation_by_schedule(plotted, metric)
        lines: Mapping[str, series.Line] = {
            name: (spread.steps, spread.mean) for name, spread in spreads.items()
        }
        figure = html.figure(
            lines,
            f"Mean over seeds; the band spans the lowest to the highest seed.{caption_end}",
            title=f"Validation {metric}",
            x_label="step",
            y_label=metric,
            log_y=series.spans_decade([y for _, ys in lines.values() for y in ys]),
            band={name: (spread.low, spread.high) for name, spread in spreads.items()},
        )
        figures.append(figure)
    return figures
