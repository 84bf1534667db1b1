"""Report sections about a forecast, alone and against the comparison of the same schedules."""

import math
from html import escape
from typing import Any, Final

from ratecraft._render._axis import number
from ratecraft._render._html import figure, heading, name_cell, table, table_row
from ratecraft._render._svg import svg_key
from ratecraft.results import Comparison, Forecast, ForecastEntry, Summary
from ratecraft.results._charts import MAX_CHART_LINES, metric_chart
from ratecraft.results._verdict import mean_texts

from . import _charts as charts

EQUAL_CURVES_REL_TOL: Final = 1e-9  # of the highest learning rate; smaller differences are rounding


def match_names(forecast: Forecast, comparison: Comparison) -> dict[str, str]:
    """Map names of forecast entries to the names of the candidates that were trained.

    An entry matches a candidate of the same length with the same learning rate at every step.
    Without one, it matches the candidate of the same name and length.
    """
    matches = {}
    curves = {
        name: runs[0].curve().values()
        for name in comparison.schedules
        if (runs := comparison.runs_for(name))
        and runs[0].total_steps == forecast.total_steps
        and runs[0].has_curve
    }
    for entry in forecast.entries:
        lrs = _lrs(entry, forecast)
        equal = [name for name, values in curves.items() if _are_close(lrs, values)]
        if entry.name in curves and entry.name not in equal:
            equal.append(entry.name)
        if equal:
            matches[entry.name] = equal[0]
    return matches


def _lrs(entry: ForecastEntry, forecast: Forecast) -> Any:
    return entry.curve(forecast.total_steps, forecast.steps_per_epoch).values()


def _are_close(lrs: Any, reference: Any) -> bool:
    tolerance = EQUAL_CURVES_REL_TOL * abs(reference).max(initial=0.0)
    return bool(lrs.shape == reference.shape and (abs(lrs - reference) <= tolerance).all())


def forecast_vs_measured_section(forecast: Forecast, comparison: Comparison) -> list[str]:
    """Return the section that compares forecast and measured losses of the same schedules."""
    matches = match_names(forecast, comparison)
    if not matches:
        return []
    summaries = {row.name: row for row in comparison.summaries()}
    entries = {entry.name: entry for entry in forecast.entries}
    trained_names = list(dict.fromkeys(matches.values()))
    rows, within = [], list[str]()
    means = mean_texts([summaries[name] for name in matches.values()])
    for (name, trained), mean in zip(matches.items(), means, strict=True):
        entry, summary = entries[name], summaries[trained]
        notes = [f"in the forecast: {name}"] if name != trained else []
        run = comparison.runs_for(trained)[0]
        if not _are_close(_lrs(entry, forecast), run.curve().values()):
            notes.append("matched by name; the learning rates differ")
        within.append(_is_within(entry, summary))
        text = name_cell(svg_key(trained_names.index(trained)), trained, notes=notes)
        cells = [text, number(entry.loss), f"{number(entry.low)} to {number(entry.high)}"]
        rows.append(table_row([*cells, mean, within[-1]]))
    judged = [answer for answer in within if answer != "-"]
    head = ["schedule", "forecast", "interval", "measured", "within interval"]
    note = (
        f"{judged.count('yes')} of {len(judged)} measured losses are within their interval. "
        "Measured: final validation loss, mean ± sample standard deviation over seeds. A forecast "
        "predicts the kind of loss that it was fitted to, such as the training loss."
    )
    return [
        heading("Forecast vs. measured"),
        table(head, rows),
        f'<p class="soft">{note}</p>',
        _forecast_vs_measured_figure(forecast, comparison, matches),
    ]


def _is_within(entry: ForecastEntry, summary: Summary) -> str:
    loss = summary.mean["loss"]
    if math.isnan(loss):
        return "-"
    return "yes" if entry.low <= loss <= entry.high else "no"


def _forecast_vs_measured_figure(
    forecast: Forecast, comparison: Comparison, matches: dict[str, str]
) -> str:
    plotted = dict(list(matches.items())[:MAX_CHART_LINES])
    trained = {name: comparison.runs_for(name) for name in plotted.values()}
    caption = "Validation loss, mean over seeds; dashed: forecast."
    count, shown = len(matches), len(plotted)
    if count > shown:
        caption += f" The {shown} schedules with the lowest forecast loss of {count} are shown."
    chart = charts.forecast_vs_measured_chart(forecast, metric_chart(trained), plotted)
    return figure(chart, caption)


def forecast_section(result: Forecast, *, alone: bool) -> list[str]:
    """Return the sections about a forecast; if it is ``alone``, its verdict is the page's."""
    logs = ", ".join(f"{name} ({len(losses)} losses)" for name, (_, losses) in result.logs.items())
    run = f"{result.total_steps:,} steps, peak learning rate {number(result.peak_lr)}"
    title, css_class = heading("Forecast"), ' class="verdict"' if alone else ""
    return [
        *([] if alone else [title]),
        f'<p class="soft">{run} · fitted to {escape(logs)}</p>',
        f"<p{css_class}>{escape(result.verdict())}</p>",
        *(f"<p>{escape(note)}</p>" for note in result.notes),
        *([title] if alone else []),
        table(["schedule", "final loss", "interval"], _entry_rows(result)),
        '<p class="soft">Predictions of a loss law fitted to the logs. The intervals cover the '
        "typical error of the law on real training curves plus two standard deviations of the "
        "fit.</p>",
        figure(
            result.chart(limit=len(result.entries)),
            "Gray: logged losses. The other lines are predictions, not training runs.",
        ),
        figure(charts.forecast_lrs_chart(result), "The learning rate of every step."),
    ]


def _entry_rows(result: Forecast) -> list[str]:
    best = result.entries[0].name
    tied_with_best = {name for pair in result.tied if best in pair for name in pair}
    rows = []
    for i, entry in enumerate(result.entries):
        notes = list(entry.notes)
        if i and entry.name in tied_with_best:
            notes.append("tied with the best")
        text = name_cell(svg_key(i), entry.name, entry.schedule, notes)
        cells = [text, f"{entry.loss:.4g}", f"{entry.low:.4g} to {entry.high:.4g}"]
        rows.append(table_row(cells, css_class="best" if i == 0 else ""))
    return rows
