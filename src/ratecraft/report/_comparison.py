"""Report sections about a comparison: verdict, tables, figures and single runs."""

import math
from collections.abc import Iterable
from html import escape
from typing import Final

from ratecraft._render._axis import number
from ratecraft._render._html import collapsible, figure, heading, name_cell, table, table_row
from ratecraft._render._svg import svg_key
from ratecraft.results import Comparison, Evaluation, OptimalLRRange, Run, TimeToTarget
from ratecraft.results._base import pluralize
from ratecraft.results._charts import MAX_CHART_LINES, metric_chart, training_loss_chart
from ratecraft.results._verdict import gap_texts, mean_texts

from . import _charts as charts
from ._heat_map import heat_map_figure

MAX_FAILED_LINES: Final = 5  # more are collapsed
MAX_EVALUATION_ROWS: Final = 8000  # in the whole page, about 100 bytes each


def comparison_section(comparison: Comparison) -> list[str]:
    """Return the page sections of a comparison, without its single runs."""
    return [
        f'<p class="soft">{escape(_description(comparison))}</p>',
        f'<p class="verdict">{escape(comparison.verdict())}</p>',
        *_failed(comparison),
        *heat_map_figure(comparison),
        heading("Results"),
        *_summary(comparison),
        *_lr_sensitivity(comparison),
        *_time_to_target(comparison),
        *_loss_by_length(comparison),
        heading("Schedules and losses"),
        *_figures(comparison),
    ]


def _failed(comparison: Comparison) -> list[str]:
    lines = []
    for name, error in comparison.failed.items():
        reason = (error.strip().splitlines() or ["no traceback"])[-1]
        lines.append(f"<p>Failed: {escape(name)}: {escape(reason)}</p>")
    if len(lines) <= MAX_FAILED_LINES:
        return lines
    return [collapsible(f"{len(lines)} failed runs", lines)]


def color_keys(comparison: Comparison) -> dict[str, str]:
    """Return a piece of the line of each candidate in the figures; an empty string for others."""
    plotted = list(comparison.best_runs(MAX_CHART_LINES))
    return {
        name: svg_key(plotted.index(name)) if name in plotted else ""
        for name in comparison.schedules
    }


def _listed(values: Iterable[float], separator: str = ", ") -> str:
    return separator.join(f"{v}" if isinstance(v, int) else number(v) for v in sorted(values))


def _description(comparison: Comparison) -> str:
    runs = comparison.runs
    parts = [comparison.task, pluralize(len(comparison.schedules), "candidate")]
    parts.append(pluralize(len({run.seed for run in runs}), "seed"))
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
    means = [mean_texts(summaries, metric) for metric in metrics]
    for row, gap, *values in zip(summaries, gap_texts(summaries), *means, strict=True):
        is_best = best_of_length.setdefault(row.total_steps, row.name) == row.name
        notes = [f"stopped early: {row.stopped} of {row.seeds} seeds"] if row.stopped else []
        notes += [f"seeds missing: {row.missing}"] if row.missing else []
        cells = [name_cell(keys[row.name], row.name, row.schedule, notes)]
        cells += [*[f"{row.total_steps:,}"] * several_lengths, str(row.seeds)]
        cells += [values[0], "" if is_best else gap, *values[1:]]
        cells += [str(row.diverged)] * any_diverged
        cells += [_mean_seconds(comparison, row.name)] * any_timed
        highlight = is_best and not math.isnan(row.mean["loss"])
        rows.append(table_row(cells, css_class="best" if highlight else ""))
    head = ["schedule", *["steps"] * several_lengths, "seeds", "validation loss"]
    head += ["relative to best", *metrics[1:], *["diverged"] * any_diverged, *["time"] * any_timed]
    same_length = " with the same number of steps" if several_lengths else ""
    is_ratio = any(row.is_ratio for row in summaries)
    measure = "ratio to the loss of" if is_ratio else "mean difference from"
    note = (
        "Final validation metrics: mean ± sample standard deviation over seeds. Relative to best: "
        f"{measure} the best schedule{same_length}, paired by seed, with its 95 % confidence "
        "interval, corrected for the number of schedules."
    )
    if any_timed:
        note += " Time: mean wall time per run."
    if any(row.stopped for row in summaries):
        note += " Runs that were stopped early have no final value."
    return [table(head, rows), f'<p class="soft">{note}</p>']


def _mean_seconds(comparison: Comparison, name: str) -> str:
    seconds = [run.seconds for run in comparison.runs_for(name)]
    return f"{number(sum(seconds) / len(seconds), 3)} s" if seconds else "-"


def _lr_sensitivity(comparison: Comparison) -> list[str]:
    chart = charts.loss_by_lr_chart(comparison, list(comparison.best_runs(MAX_CHART_LINES)))
    if chart is None:
        return []
    caption = (
        "Mean over seeds; the band spans the lowest to the highest seed, and a thick line the "
        "optimal range. Learning rates at which a seed diverged or was stopped early are left out. "
        "Figures over steps show each schedule at its best learning rate."
    )
    drawn = figure(chart, caption + _omitted_lines(comparison))
    return [heading("Learning-rate sensitivity"), drawn, *_optimal_ranges(comparison)]


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
        rows.append(table_row(cells))
    if not rows:
        return []
    note = (
        "The optimal range holds the learning rates around the best one that are not significantly "
        "worse (95 % confidence, paired by seed). More seeds narrow it; more learning rates locate "
        "its ends more precisely."
    )
    head = ["schedule", "best learning rate", "optimal range", "interpretation"]
    return [table(head, rows, css_class="prose"), f'<p class="soft">{note}</p>']


def _interpret(optimum: OptimalLRRange, seeds: int) -> str:
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
        rows.append(table_row(cells))
    note = (
        f"Target: a validation loss of {number(target)}, the lowest that every finished schedule "
        "reached with all its seeds at its best learning rate. Steps and times are those of the "
        "first evaluation at or below the target: means over seeds, if all seeds reached it."
    )
    return [
        heading("Time to target"),
        table(["schedule", "steps", *["time"] * any_timed, "seeds"], rows),
        f'<p class="soft">{note}</p>',
    ]


def _soonest_first(time: TimeToTarget) -> tuple[bool, float]:
    """Return a sort key by steps; candidates with a seed that missed the target come last."""
    return math.isnan(time.steps), -time.seeds if math.isnan(time.steps) else time.steps


def _loss_by_length(comparison: Comparison) -> list[str]:
    chart = charts.loss_by_length_chart(comparison)
    if chart is None:
        return []
    caption = (
        "Final validation loss of runs of different lengths, each at its best learning rate: mean "
        "over seeds; the band spans the lowest to the highest seed."
    )
    return [heading("Final loss by training length"), figure(chart, caption)]


def _omitted_lines(comparison: Comparison) -> str:
    count = len(comparison.families())
    limit = MAX_CHART_LINES
    return f" The {limit} best of {count} schedules are shown." if count > limit else ""


def _figures(comparison: Comparison) -> list[str]:
    plotted = comparison.best_runs(MAX_CHART_LINES)
    omitted = caption_end = _omitted_lines(comparison)
    if any(run.diverged is not None for runs in plotted.values() for run in runs):
        caption_end = f" A line ends where the first of its seeds diverged.{omitted}"
    spread = f"Mean over seeds; the band spans the lowest to the highest seed.{caption_end}"
    smoothed = f"Exponential moving average over 2 % of the run, mean over seeds.{caption_end}"
    lrs = charts.schedules_chart(plotted)
    drawn = "The learning rate of every step."
    if lrs.y_label == charts.FACTOR_LABEL:
        drawn = (
            "The learning rate of every step, divided by the highest one of its schedule, since "
            f"the highest ones range from {_listed(charts.peak_range(plotted), ' to ')}."
        )
    return [
        figure(lrs, f"{drawn}{omitted}"),
        *(figure(metric_chart(plotted, name), spread) for name in comparison.metrics()),
        figure(training_loss_chart(plotted), smoothed),
    ]


def runs_section(comparison: Comparison) -> list[str]:
    """Return a collapsed section: a table of all runs, then the evaluations of each candidate."""
    columns = _evaluation_columns(comparison)
    max_rows = max(MAX_EVALUATION_ROWS // max(len(comparison.runs), 1), 5)
    sections = []
    for name, key in color_keys(comparison).items():
        tables = [
            _evaluations(run, columns, max_rows)
            for run in comparison.runs_for(name)
            if run.evaluations
        ]
        if tables:
            sections.append(collapsible(f"{key}{escape(name)}", tables))
    return [collapsible("Runs", [_overview(comparison), *sections], id="runs")]


def _overview(comparison: Comparison) -> str:
    metrics = comparison.metrics()
    rows, keys = [], color_keys(comparison)
    for name in comparison.schedules:
        for run in comparison.runs_for(name):
            cells = [f"{keys[name]}{escape(name)}", escape(str(run.seed)), number(run.lr)]
            cells += [_format(run.final(metric)) for metric in metrics]
            cells += [f"{run.trained_steps}{_status(run)}", f"{number(run.seconds, 3)} s"]
            rows.append(table_row(cells))
    head = ["schedule", "seed", "learning rate", "validation loss", *metrics[1:], "steps", "time"]
    return table(head, rows)


def _status(run: Run) -> str:
    if run.diverged is not None:
        return ", diverged"
    return ", stopped early" if run.stopped is not None else ""


def _format(value: float) -> str:
    return "-" if math.isnan(value) else number(value)


Columns = dict[str, tuple[str, str]]  # title -> a field of Evaluation, and a key in it


def _evaluation_columns(comparison: Comparison) -> Columns:
    """Return the columns of the evaluation tables, the same for all runs of a comparison."""
    evaluations = [evaluation for run in comparison.runs for evaluation in run.evaluations]
    in_training = {name for evaluation in evaluations for name in evaluation.train}
    columns = {}
    for name in comparison.metrics():
        if name in in_training:
            columns[f"training {name}"] = "train", name
        columns[f"validation {name}"] = "metrics", name
    groups = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.lrs))
    if len(groups) > 1:
        return columns | {f"learning rate of {name}": ("lrs", name) for name in groups}
    return columns | {"learning rate": ("lrs", "".join(groups))}


def _evaluation_cells(run: Run, evaluation: Evaluation, columns: Columns) -> list[str]:
    fields = {"train": evaluation.train, "metrics": evaluation.metrics}
    # Some results do not store learning rates.
    fields["lrs"] = evaluation.lrs
    if not evaluation.lrs and run.has_curve:
        fields["lrs"] = {"": run.curve()(max(evaluation.step - 1, 0))}
    values = [fields[field].get(key, math.nan) for field, key in columns.values()]
    epoch = number(evaluation.step / max(run.steps_per_epoch, 1))
    return [epoch, str(evaluation.step), *map(_format, values)]


def _evaluations(run: Run, columns: Columns, max_rows: int) -> str:
    """Return a table of a run's evaluations, evenly thinned to ``max_rows``."""
    count = len(run.evaluations)
    indices = list(range(count))
    title = escape(f"seed {run.seed}{_status(run)}")
    if count > max_rows:
        indices = sorted({round(i * (count - 1) / (max_rows - 1)) for i in range(max_rows)})
        title += f": {len(indices)} of {count} evaluations; the result file has all"
    cells = [_evaluation_cells(run, run.evaluations[i], columns) for i in indices]
    rows = [table_row(row, text_columns=0) for row in cells]
    listed = table(["epoch", "step", *columns], rows, text_columns=0, css_class="small")
    return f"<p>{title}</p>\n{listed}"
