"""What a report says of schedules that were not run, and of what happened to those that were."""

from __future__ import annotations

import math
from html import escape

from ratecraft._render._axis import number
from ratecraft.results import Comparison, Forecast, ForecastEntry, Summary

from . import _html as html
from . import _series as series
from ._comparison import mean_and_spread

SAME = 1e-9  # relative difference of lrs that is rounding


def matched(forecast: Forecast, comparison: Comparison) -> dict[str, str]:
    """Return what was foreseen and then trained: by the forecast's names, the comparison's.

    Two are the same if their lrs are, at every step; else if their names and lengths are.
    """
    found = {}
    curves = {
        name: runs[0].curve().values()
        for name in comparison.schedules
        if (runs := comparison.runs_for(name)) and runs[0].total_steps == forecast.total_steps
    }
    for one in forecast.candidates:
        lrs = _lrs(one, forecast)
        alike = [name for name, values in curves.items() if _close(lrs, values.tolist())]
        if one.name in curves and one.name not in alike:
            alike.append(one.name)
        if alike:
            found[one.name] = alike[0]
    return found


def _lrs(one: ForecastEntry, forecast: Forecast) -> list[float]:
    values: list[float] = (
        one.curve(forecast.total_steps, forecast.steps_per_epoch).values().tolist()
    )
    return values


def _close(some: list[float], others: list[float]) -> bool:
    top = max(map(abs, others), default=0.0)
    return len(some) == len(others) and all(
        abs(a - b) <= SAME * top for a, b in zip(some, others, strict=True)
    )


def beside_section(forecast: Forecast, comparison: Comparison) -> list[str]:
    """Return what was foreseen beside what happened, for all that was foreseen and trained."""
    pairs = matched(forecast, comparison)
    if not pairs:
        return []
    happened = {row.name: row for row in comparison.summaries()}
    foreseen = {one.name: one for one in forecast.candidates}
    rows = []
    places = list(dict.fromkeys(pairs.values()))
    for name, trained in pairs.items():
        one, row = foreseen[name], happened[trained]
        text = f"{html.key(places.index(trained))}<strong>{escape(trained)}</strong>"
        if name != trained:
            text += f'<div class="soft">foreseen as {escape(name)}</div>'
        run = comparison.runs_for(trained)[0]
        if not _close(_lrs(one, forecast), run.curve().values().tolist()):
            text += '<div class="soft">of the same name, but its lrs differ</div>'
        cells = [text, number(one.loss), f"{number(one.low)} to {number(one.high)}"]
        rows.append(html.row([*cells, mean_and_spread(row), _within(one, row)]))
    told = [
        _within(foreseen[name], happened[trained]) == "yes"
        for name, trained in pairs.items()
        if math.isfinite(happened[trained].mean["loss"])
    ]
    head = ["schedule", "foreseen", "band", "happened", "in the band"]
    note = (
        f"{sum(told)} of {len(told)} ended within their bands. Happened: the final validation "
        "loss, mean ± sample standard deviation over seeds. A forecast is of the kind of loss that "
        "was logged: one that was fitted to training losses foresees these."
    )
    return [
        "<h2>ForecastEntry, and what happened</h2>",
        html.table(head, rows),
        f'<p class="soft">{note}</p>',
        _beside_figure(forecast, comparison, pairs),
    ]


def _within(one: ForecastEntry, row: Summary) -> str:
    """Return whether what happened lies in the band that was foreseen."""
    loss = row.mean["loss"]
    if math.isnan(loss):
        return "-"
    return "yes" if one.low <= loss <= one.high else "no"


def _beside_figure(forecast: Forecast, comparison: Comparison, pairs: dict[str, str]) -> str:
    shown = dict(list(pairs.items())[: series.MOST])
    spreads = series.validation(comparison.select(list(dict.fromkeys(shown.values()))))
    lines: dict[str, series.Line] = {
        name: (spread.steps, spread.mean) for name, spread in spreads.items()
    }
    before = series.foreseen(forecast)
    dashed = {f"foreseen: {name}": trained for name, trained in shown.items()}
    for name in shown:
        lines[f"foreseen: {name}"] = before[name]
    late = [
        loss
        for steps, losses in lines.values()
        for step, loss in zip(steps, losses, strict=True)
        if step > forecast.total_steps / 4
    ]
    low, high = min(late, default=0.0), max(late, default=1.0)
    margin = 0.05 * (high - low) or 0.1
    caption = "Validation loss, mean over seeds; dashed: foreseen."
    if len(pairs) > len(shown):
        caption += f" Drawn are the {len(shown)} best foreseen of {len(pairs)}."
    return html.figure(
        lines,
        caption,
        title="ForecastEntry, and what happened",
        x_label="step",
        y_label="loss",
        y_range=(low - margin, high + margin),
        dashed=dashed,
    )


def forecast_section(result: Forecast, *, alone: bool) -> list[str]:
    """Return the parts of a page about a forecast."""
    logs = ", ".join(f"{name} ({len(losses)} losses)" for name, (_, losses) in result.logs.items())
    best = result.candidates[0].name
    equal = {name for pair in result.tied if best in pair for name in pair}
    rows = []
    for i, one in enumerate(result.candidates):
        text = (
            f"{html.key(i)}<strong>{escape(one.name)}</strong><code>{escape(one.schedule)}</code>"
        )
        remarks = [*one.notes, *(["not told from the best"] if i and one.name in equal else [])]
        text += "".join(f'<div class="soft">{escape(note)}</div>' for note in remarks)
        cells = [text, f"{one.loss:.4g}", f"{one.low:.4g} to {one.high:.4g}"]
        rows.append(html.row(cells, kind="best" if i == 0 else ""))
    logged = {f"logged: {name}": line for name, line in result.logs.items()}
    lines = series.foreseen(result)
    losses = html.figure(
        {**logged, **lines},
        "Grey: what was logged. A prediction is no training.",
        title="Foreseen loss",
        x_label="step",
        y_label="loss",
        y_range=series.foreseen_window(result),
        faint=tuple(logged),
    )
    lrs = html.figure(
        {
            one.name: series.sampled(one.curve(result.total_steps, result.steps_per_epoch), 1000)
            for one in result.candidates
        },
        "The lr of every step.",
        title="Schedules",
        x_label="step",
        y_label="lr",
    )
    setting = f"{result.total_steps:,} steps at a peak of {number(result.peak)} · fitted to {logs}"
    verdict = f'<p class="verdict">{escape(result.verdict())}</p>'
    return [
        *([] if alone else ["<h2>Foreseen</h2>"]),
        f'<p class="soft">{escape(setting)}</p>',
        verdict if alone else f"<p>{escape(result.verdict())}</p>",
        *(f"<p>{escape(note)}</p>" for note in result.notes),
        *(["<h2>Forecast</h2>"] if alone else []),
        html.table(["schedule", "final loss", "band"], rows),
        '<p class="soft">A law of the loss, fitted to the logs; bands are what the law is off by '
        "on real curves, and two standard deviations of the fit.</p>",
        losses,
        lrs,
    ]
