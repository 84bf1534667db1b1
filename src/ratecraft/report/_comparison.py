"""What a report says of schedules that were trained: the answer, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

from ratecraft._render._axis import number
from ratecraft.results import Comparison, Flat, Summary, TimeToTarget

from . import _html as html
from . import _series as series


def comparison_section(comparison: Comparison) -> list[str]:
    """Return the parts of a page about a comparison, but for its single runs."""
    return [
        f'<p class="soft">{escape(_setting(comparison))}</p>',
        f'<p class="verdict">{escape(comparison.verdict())}</p>',
        *(
            f"<p>Failed: {escape(name)}: {escape(error.splitlines()[-1])}</p>"
            for name, error in comparison.failed.items()
        ),
        "<h2>Results</h2>",
        *_summary(comparison),
        *_sensitivity(comparison),
        *_how_soon(comparison),
        *_budgets(comparison),
        "<h2>Schedules and losses</h2>",
        *_figures(comparison),
    ]


def figure_keys(comparison: Comparison) -> dict[str, str]:
    """Return a patch of the colour that each candidate has in the figures; nothing for others."""
    drawn = list(series.shown(comparison).schedules)
    return {
        name: html.key(drawn.index(name)) if name in drawn else "" for name in comparison.schedules
    }


def joined(values: Iterable[float]) -> str:
    """Return numbers as text, in order."""
    return ", ".join(f"{v}" if isinstance(v, int) else number(v) for v in sorted(values))


def _setting(comparison: Comparison) -> str:
    runs = comparison.runs
    parts = [comparison.task, html.counted(len(comparison.schedules), "candidate")]
    parts.append(html.counted(len({run.seed for run in runs}), "seed"))
    if totals := {run.total_steps for run in runs}:
        parts.append(f"{joined(totals)} steps")
        parts.append(f"lr {joined({run.lr for run in runs})}")
    return " · ".join(part for part in parts if part)


def _summary(comparison: Comparison) -> list[str]:
    metrics, summaries = comparison.metrics(), comparison.summaries()
    some_diverged = any(row.diverged for row in summaries)
    some_timed = any(run.seconds for run in comparison.runs)
    lengths = len({row.total_steps for row in summaries if row.total_steps}) > 1
    rows, keys = [], figure_keys(comparison)
    firsts: dict[int, str] = {}  # the best of each length, with which the others are compared
    for row in summaries:
        first = firsts.setdefault(row.total_steps, row.name) == row.name
        name = f"{keys[row.name]}<strong>{escape(row.name)}</strong>"
        name += f"<code>{escape(row.schedule)}</code>"
        if row.stopped:
            name += f'<div class="soft">stopped early: {row.stopped} of {row.seeds} seeds</div>'
        if row.missing:
            name += f'<div class="soft">seeds missing: {row.missing}</div>'
        values = [mean_and_spread(row, metric) for metric in metrics]
        cells = [name, *[f"{row.total_steps:,}"] * lengths, str(row.seeds)]
        cells += [values[0], "" if first else _gap(row), *values[1:]]
        cells += [str(row.diverged)] * some_diverged
        cells += [_seconds(comparison, row.name)] * some_timed
        best = first and not math.isnan(row.mean["loss"])
        rows.append(html.row(cells, kind="best" if best else ""))
    head = ["schedule", *["steps"] * lengths, "seeds", "validation loss", "above the best"]
    head += [*metrics[1:], *["diverged"] * some_diverged, *["time"] * some_timed]
    of_length = " of as many steps" if lengths else ""
    note = (
        "Last value on the validation data: mean ± sample standard deviation over seeds; above the "
        f"best{of_length}: the mean of the differences seed by seed, and its 95 % confidence "
        "interval."
    )
    if some_timed:
        note += " Time: mean wall time of a run."
    if any(row.stopped for row in summaries):
        note += " What was stopped early has no last value."
    return [html.table(head, rows), f'<p class="soft">{note}</p>']


def _gap(row: Summary) -> str:
    """Return how far a candidate is above the best, and how surely."""
    if math.isnan(row.gap):
        return "-"
    if math.isnan(row.gap_low):
        return number(row.gap, 2)
    return f"{number(row.gap, 2)} ({number(row.gap_low, 2)} to {number(row.gap_high, 2)})"


def mean_and_spread(row: Summary, metric: str = "loss") -> str:
    """Return a metric's mean over seeds and its standard deviation, both to the same place."""
    mean, spread = row.mean[metric], row.spread[metric]
    if math.isnan(mean):
        return "-"
    if not math.isfinite(spread) or not 1e-3 <= abs(mean) < 1e4:
        return number(mean) + (f" ± {number(spread, 2)}" if math.isfinite(spread) else "")
    places = 3 - math.floor(math.log10(abs(mean)))
    small = 0 < spread < 0.5 * 10**-places
    return f"{mean:.{places}f} ± {number(spread, 2) if small else f'{spread:.{places}f}'}"


def _seconds(comparison: Comparison, name: str) -> str:
    """Return the mean wall time of a candidate's runs."""
    seconds = [run.seconds for run in comparison.runs_for(name)]
    return f"{number(sum(seconds) / len(seconds), 3)} s" if seconds else "-"


def _sensitivity(comparison: Comparison) -> list[str]:
    """Draw the loss of each schedule over lrs, if there are several, and say what is flat."""
    families = comparison.families()
    drawn = series.shown(comparison).schedules
    kept = [name for names in families.values() if set(names) & set(drawn) for name in names]
    lines, bands = series.sensitivity(comparison.select(kept))
    if not any(len(lrs) > 1 for lrs, _ in lines.values()):
        return []
    caption = (
        "Mean over seeds; the band is from the lowest to the highest. An lr at which a seed "
        "diverged or was stopped early is left out. The figures of losses and lrs over steps "
        "are those of each schedule's best lr."
    )
    figure = html.figure(
        lines,
        caption + _left_out(comparison),
        title="Validation loss over lrs",
        x_label="lr",
        y_label="loss",
        log_x=True,
        log_y=series.spans_decade([y for _, ys in lines.values() for y in ys]),
        band=bands,
    )
    return ["<h2>How much the lr matters</h2>", figure, *_flat(comparison)]


def _flat(comparison: Comparison) -> list[str]:
    rows, families, keys = [], comparison.families(), figure_keys(comparison)
    for family, flat in comparison.flat().items():
        key = next((keys[name] for name in families[family] if keys[name]), "")
        low = f"{number(flat.low)} or lower" if flat.open_low else number(flat.low)
        high = f"{number(flat.high)} or higher" if flat.open_high else number(flat.high)
        seeds = min(len(comparison.runs_for(name)) for name in families[family])
        cells = [f"{key}{escape(family)}", number(flat.best)]
        cells += [low if low == high else f"{low} to {high}", _meaning(flat, seeds)]
        rows.append(html.row(cells))
    if not rows:
        return []
    note = (
        "The lrs around the best one that 95 % confidence does not tell from it, by the "
        "differences seed by seed. More seeds would make these regions narrower, more lrs "
        "their ends sharper."
    )
    head = ["schedule", "best lr", "not told from it", "in words"]
    return [html.table(head, rows, kind="prose"), f'<p class="soft">{note}</p>']


def _meaning(flat: Flat, seeds: int) -> str:
    """Return what a flat region means for whoever picks an lr."""
    if seeds < 2:
        return "one seed tells no lr from another"
    if flat.open_high and flat.best == flat.high:
        return "the best lr is the highest tried: try higher ones"
    if flat.open_low and flat.best == flat.low:
        return "the best lr is the lowest tried: try lower ones"
    if flat.open_low or flat.open_high:
        side = "" if flat.open_low and flat.open_high else "lower " if flat.open_low else "higher "
        return f"no {side}lr that was tried is told to be worse"
    if flat.low == flat.high:
        return "its neighbours are worse: the lr matters"
    return f"within a factor of {number(flat.high / flat.low, 2)} the lr hardly matters"


def _how_soon(comparison: Comparison) -> list[str]:
    """Return what each schedule needed to come to a loss that all came to."""
    target = comparison.target()
    if target is None:
        return []
    best = comparison.best_per_schedule()
    reached, keys = best.time_to_target(target), figure_keys(comparison)
    some_timed = any(run.seconds for run in best.runs)
    rows = []
    for name, one in sorted(reached.items(), key=lambda pair: _place(pair[1])):
        cells = [f"{keys[name]}{escape(name)}"]
        cells.append("-" if math.isnan(one.steps) else f"{one.steps:,.0f}")
        time = "-" if math.isnan(one.seconds) else f"{number(one.seconds, 3)} s"
        cells += [*[time] * some_timed, f"{one.seeds} of {len(best.runs_for(name))}"]
        rows.append(html.row(cells))
    note = (
        f"Down to a validation loss of {number(target)}: the lowest that every finished schedule "
        "reached with all its seeds, at its best lr. Losses are known at evaluations only; means "
        "over seeds, where all came there."
    )
    return [
        "<h2>How soon</h2>",
        html.table(["schedule", "steps", *["time"] * some_timed, "seeds"], rows),
        f'<p class="soft">{note}</p>',
    ]


def _place(one: TimeToTarget) -> tuple[bool, float]:
    """Return what sorts the soonest first, and last those of which a seed never came there."""
    return math.isnan(one.steps), -one.seeds if math.isnan(one.steps) else one.steps


def _budgets(comparison: Comparison) -> list[str]:
    """Draw the final loss over the length of the run, if schedules were trained over several."""
    lines, bands = series.budgets(comparison)
    if not lines:
        return []
    # Of many, those that end lowest after the longest run.
    kept = sorted(lines, key=lambda label: lines[label][1][-1])[: series.MOST]
    lines = {label: line for label, line in lines.items() if label in kept}
    caption = (
        "Final validation loss of runs of different lengths, each at its best lr: mean over "
        "seeds, from the lowest to the highest."
    )
    figure = html.figure(
        lines,
        caption,
        title="Loss over budgets",
        x_label="steps of the run",
        y_label="loss",
        log_x=series.spans_decade([x for xs, _ in lines.values() for x in xs]),
        log_y=series.spans_decade([y for _, ys in lines.values() for y in ys]),
        band={label: bands[label] for label in lines},
    )
    return ["<h2>Loss over budgets</h2>", figure]


def _left_out(comparison: Comparison) -> str:
    """Say of how many lines the figures show the best ones."""
    count = len(comparison.best_per_schedule().schedules)
    return f" Drawn are the {series.MOST} best of {count}." if count > series.MOST else ""


def _figures(comparison: Comparison) -> list[str]:
    shown = series.shown(comparison)
    losses = series.training(shown)
    ends = _left_out(comparison)
    if any(run.diverged is not None for run in shown.runs):
        ends = f" A line ends where the first of its seeds diverged.{ends}"
    lrs = html.figure(
        series.lrs(shown),
        f"The lr of every step.{_left_out(comparison)}",
        title="Schedules",
        x_label="step",
        y_label="lr",
    )
    training = html.figure(
        losses,
        f"Exponential moving average over 2 % of the run, mean over seeds.{ends}",
        title="Training loss, smoothed",
        x_label="step",
        y_label="loss",
        log_y=series.spans_decade([y for _, ys in losses.values() for y in ys]),
    )
    return [lrs, *_metrics(shown, ends), training]


def _metrics(shown: Comparison, ends: str) -> list[str]:
    """Draw each metric on the validation data."""
    figures = []
    for metric in shown.metrics():
        spreads = series.validation(shown, metric)
        lines: Mapping[str, series.Line] = {
            name: (spread.steps, spread.mean) for name, spread in spreads.items()
        }
        figure = html.figure(
            lines,
            f"Mean over seeds; the band is from the lowest to the highest.{ends}",
            title=f"Validation {metric}",
            x_label="step",
            y_label=metric,
            log_y=series.spans_decade([y for _, ys in lines.values() for y in ys]),
            band={name: (spread.low, spread.high) for name, spread in spreads.items()},
        )
        figures.append(figure)
    return figures
