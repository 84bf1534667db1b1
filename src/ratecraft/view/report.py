"""One self-contained HTML page about results: nothing is fetched and no script runs."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ratecraft.errors import RatecraftError
from ratecraft.records import Comparison, Forecast, FoundRate, Measured, RangeTest, Run, Summary
from ratecraft.view import series
from ratecraft.view.axis import number
from ratecraft.view.svg import PALETTE, svg_chart

__all__ = ["write_report"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5d636b; --line: #dcdfe3;
        --page: #f6f7f8; --card: #ffffff; --best: #0072b214; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e9eb; --soft: #a2a8b0; --line: #3a3f46; --page: #15171a; --card: #1e2125;
          --best: #56b4e926; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.verdict { margin: 1.25rem 0 0; padding: .9rem 1.1rem; background: var(--card); font-size: 1.08rem;
           border: 1px solid var(--line); border-left: 4px solid #0072b2; border-radius: 6px;
           overflow-wrap: anywhere; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
        border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .75rem; text-align: right; border-top: 1px solid var(--line);
         vertical-align: top; }
td { white-space: nowrap; } td.text { white-space: normal; }
thead th { border-top: 0; color: var(--soft); font-size: .85rem; font-weight: 600; }
.text { text-align: left; overflow-wrap: anywhere; min-width: 13rem; }
tr.best { background: var(--best); } tr.best td.text strong { font-weight: 700; }
code, pre { font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre code { font: inherit; } td code { display: block; color: var(--soft); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em; }
figure { margin: 0 0 1rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; border: 1px solid var(--line);
             border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; overflow-wrap: anywhere; }
details summary { cursor: pointer; font-weight: 600; margin: 2rem 0 .75rem; }
footer { margin-top: 2.5rem; padding-top: .5rem; border-top: 1px solid var(--line);
         font-size: .92rem; }
footer h2 { margin-top: 1.25rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0;
      padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { main { max-width: none; padding: 0; } tr { break-inside: avoid; }
  :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff; --card: #fff; --best: #eef5fa; } }
"""


def write_report(
    path: str | os.PathLike[str],
    *,
    comparison: Comparison | None = None,
    forecast: Forecast | None = None,
    found: FoundRate | RangeTest | None = None,
    measured: Sequence[Measured] = (),
    title: str,
) -> Path:
    """Write a comparison, a forecast or both as one HTML file that opens anywhere; return its path.

    All numbers come from the records.

    Args:
        path: the file to write.
        comparison: what was trained.
        forecast: what was foreseen.
        found: what chose the rate, `find_lr` or a range test, to show it, too.
        measured: what a Probe measured in one such run.
        title: the page's heading.

    Raises:
        RatecraftError: neither a comparison nor a forecast.
    """
    if comparison is None and forecast is None:
        raise RatecraftError("a report is of a comparison, a forecast or both; neither was given")
    sections = [
        f"<h1>{escape(title)}</h1>",
        *(_comparison_section(comparison) if comparison else []),
        *(_forecast_section(forecast, alone=comparison is None) if forecast else []),
        *(_range_test_section(found) if isinstance(found, RangeTest) else []),
        *(_found_rate_section(found) if isinstance(found, FoundRate) else []),
        *(_measured_section(measured) if measured else []),
        *(_comparison_end(comparison) if comparison else []),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


def _comparison_section(comparison: Comparison) -> list[str]:
    return [
        f'<p class="soft">{escape(_setting(comparison))}</p>',
        f'<p class="verdict">{escape(comparison.verdict())}</p>',
        *(
            f"<p>Failed: {escape(name)}: {escape(error.splitlines()[-1])}</p>"
            for name, error in comparison.failed.items()
        ),
        "<h2>Results</h2>",
        _summary_table(comparison),
        *_sensitivity_section(comparison),
        "<h2>Schedules and losses</h2>",
        *_comparison_figures(comparison.at_best_rates()),
    ]


def _sensitivity_section(comparison: Comparison) -> list[str]:
    """Draw the loss of each schedule over rates, if there are several."""
    lines, bands = series.sensitivity(comparison)
    if not any(len(rates) > 1 for rates, _ in lines.values()):
        return []
    svg = svg_chart(
        lines,
        title="Validation loss over rates",
        x_label="rate",
        y_label="loss",
        log_x=True,
        log_y=series.spans_decade([y for _, ys in lines.values() for y in ys]),
        band=bands,
    )
    caption = (
        "Mean over seeds; the band is from the lowest to the highest. A rate at which a seed "
        "diverged is left out. The curves below are those of each schedule's best rate."
    )
    return ["<h2>How much the rate matters</h2>", _figure(svg, caption)]


def _comparison_end(comparison: Comparison) -> list[str]:
    return [
        "<details><summary>Every run</summary>",
        _run_table(comparison),
        "</details>",
        _footer(comparison),
    ]


def _forecast_section(record: Forecast, *, alone: bool) -> list[str]:
    logs = ", ".join(f"{name} ({len(losses)} losses)" for name, (_, losses) in record.logs.items())
    best = record.candidates[0].name
    equal = {name for pair in record.tied if best in pair for name in pair}
    rows = []
    for i, one in enumerate(record.candidates):
        key = f'<span class="key" style="background:{PALETTE[i % len(PALETTE)]}"></span>'
        text = f"{key}<strong>{escape(one.name)}</strong><code>{escape(one.schedule)}</code>"
        remarks = [*one.notes, *(["not told from the best"] if i and one.name in equal else [])]
        text += "".join(f'<div class="soft">{escape(note)}</div>' for note in remarks)
        cells = [text, f"{one.loss:.4g}", f"{one.low:.4g} to {one.high:.4g}"]
        rows.append(_row(cells, ' class="best"' if i == 0 else ""))
    logged = {f"logged: {name}": line for name, line in record.logs.items()}
    lines = series.foreseen(record)
    losses = svg_chart(
        {**logged, **lines},
        title="Foreseen loss",
        x_label="update",
        y_label="loss",
        y_range=series.foreseen_window(record),
        faint=tuple(logged),
    )
    rates = svg_chart(
        {
            one.name: series.sampled(one.curve(record.total, record.epoch), 1000)
            for one in record.candidates
        },
        title="Schedules",
        x_label="update",
        y_label="rate",
    )
    setting = f"{record.total:,} updates at a peak of {number(record.peak)} · fitted to {logs}"
    verdict = f'<p class="verdict">{escape(record.verdict())}</p>'
    return [
        *([] if alone else ["<h2>Foreseen</h2>"]),
        f'<p class="soft">{escape(setting)}</p>',
        verdict if alone else f"<p>{escape(record.verdict())}</p>",
        *(f"<p>{escape(note)}</p>" for note in record.notes),
        *(["<h2>Forecast</h2>"] if alone else []),
        _table(["schedule", "final loss", "band"], rows, 1),
        '<p class="soft">A law of the loss, fitted to the logs; bands are what the law is off by '
        "on real curves, and two standard deviations of the fit.</p>",
        _figure(losses, "Grey: what was logged. A prediction is no training."),
        _figure(rates, "The rate of every update."),
    ]


def _setting(comparison: Comparison) -> str:
    runs = comparison.runs
    parts = [comparison.task, _count(len(comparison.schedules), "schedule")]
    parts.append(_count(len({run.seed for run in runs}), "seed"))
    if totals := {run.total for run in runs}:
        parts.append(f"{_joined(totals)} updates")
        parts.append(f"rate {_joined({run.rate for run in runs})}")
    return " · ".join(part for part in parts if part)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _joined(values: Iterable[float]) -> str:
    return ", ".join(f"{v}" if isinstance(v, int) else number(v) for v in sorted(values))


def _table(head: Sequence[str], rows: Sequence[str], texts: int) -> str:
    """Return a table whose first ``texts`` columns are text and the others numbers."""
    cells = [
        f'<th scope="col"{_class(i < texts)}>{escape(name)}</th>' for i, name in enumerate(head)
    ]
    return (
        f'<div class="wide"><table>\n<thead><tr>{"".join(cells)}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _class(is_text: bool) -> str:
    return ' class="text"' if is_text else ""


def _row(cells: Sequence[str], kind: str = "") -> str:
    """Return a row of cells that are HTML, the first of them text."""
    filled = (f"<td{_class(i == 0)}>{cell}</td>" for i, cell in enumerate(cells))
    return f"<tr{kind}>{''.join(filled)}</tr>"


def _keys(comparison: Comparison) -> dict[str, str]:
    """Return a patch of the colour that each candidate has in the figures; nothing for others."""
    colors = dict(zip(comparison.at_best_rates().schedules, itertools.cycle(PALETTE), strict=False))
    return {
        name: f'<span class="key" style="background:{colors[name]}"></span>'
        if name in colors
        else ""
        for name in comparison.schedules
    }


def _summary_table(comparison: Comparison) -> str:
    metrics = comparison.metrics()
    some_diverged = any(run.diverged is not None for run in comparison.runs)
    rows, keys = [], _keys(comparison)
    for place, row in enumerate(comparison.summaries()):
        name = f"{keys[row.name]}<strong>{escape(row.name)}</strong>"
        cells = [f"{name}<code>{escape(row.schedule)}</code>", str(row.seeds)]
        values = [_value(row, metric) for metric in metrics]
        cells += [values[0], _gap(row) if place else "", *values[1:]]
        cells += [str(row.diverged)] * some_diverged
        best = place == 0 and not row.diverged
        rows.append(_row(cells, ' class="best"' if best else ""))
    head = ["schedule", "seeds", "validation loss", "above the best", *metrics[1:]]
    head += ["diverged"] * some_diverged
    note = (
        "Last value on the validation data: mean ± sample standard deviation over seeds; above the "
        "best: the mean of the differences seed by seed, and its 95 % confidence interval."
    )
    return f'{_table(head, rows, 1)}\n<p class="soft">{note}</p>'


def _gap(row: Summary) -> str:
    """Return how far a candidate is above the best, and how surely."""
    if math.isnan(row.gap):
        return "-"
    if math.isnan(row.gap_low):
        return number(row.gap, 2)
    return f"{number(row.gap, 2)} ({number(row.gap_low, 2)} to {number(row.gap_high, 2)})"


def _value(row: Summary, metric: str) -> str:
    mean, spread = row.mean[metric], row.spread[metric]
    if math.isnan(mean):
        return "-"
    if not math.isfinite(spread) or not 1e-3 <= abs(mean) < 1e4:
        return number(mean) + (f" ± {number(spread, 2)}" if math.isfinite(spread) else "")
    # Both to the same place, so that they can be compared at a glance.
    places = 3 - math.floor(math.log10(abs(mean)))
    small = 0 < spread < 0.5 * 10**-places
    return f"{mean:.{places}f} ± {number(spread, 2) if small else f'{spread:.{places}f}'}"


def _run_table(comparison: Comparison) -> str:
    metrics = comparison.metrics()
    rows, keys = [], _keys(comparison)
    for name in comparison.schedules:
        for run in comparison.of(name):
            cells = [f"{keys[name]}{escape(name)}", str(run.seed), number(run.rate)]
            cells += [_final(run, metric) for metric in metrics]
            fate = "" if run.diverged is None else ", diverged"
            cells += [f"{len(run.losses)}{fate}", f"{number(run.seconds, 3)} s"]
            rows.append(_row(cells))
    head = ["schedule", "seed", "rate", "validation loss", *metrics[1:], "updates", "time"]
    return _table(head, rows, 1)


def _final(run: Run, metric: str) -> str:
    value = run.final(metric)
    return "-" if math.isnan(value) else number(value)


def _figure(svg: str, caption: str) -> str:
    return f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def _comparison_figures(comparison: Comparison) -> list[str]:
    spreads = series.validation(comparison)
    training = series.training(comparison)
    rates = svg_chart(series.rates(comparison), title="Schedules", x_label="update", y_label="rate")
    validation = svg_chart(
        {name: (spread.updates, spread.mean) for name, spread in spreads.items()},
        title="Validation loss",
        x_label="update",
        y_label="loss",
        log_y=series.spans_decade([y for spread in spreads.values() for y in spread.mean]),
        band={name: (spread.low, spread.high) for name, spread in spreads.items()},
    )
    train = svg_chart(
        training,
        title="Training loss, smoothed",
        x_label="update",
        y_label="loss",
        log_y=series.spans_decade([y for _, ys in training.values() for y in ys]),
    )
    ends = (
        ""
        if all(run.diverged is None for run in comparison.runs)
        else (" A line ends where the first of its seeds diverged.")
    )
    return [
        _figure(rates, "The rate of every update."),
        _figure(validation, f"Mean over seeds; the band is from the lowest to the highest.{ends}"),
        _figure(train, f"Exponential moving average over 2 % of the run, mean over seeds.{ends}"),
    ]


def _range_test_section(record: RangeTest) -> list[str]:
    svg = svg_chart(
        {"loss": (record.rates, record.losses), "smoothed": (record.rates, record.smoothed)},
        title="Training loss while the rate rises",
        x_label="rate",
        y_label="loss",
        log_x=True,
        mark=record.suggestion,
        y_range=series.loss_window(record),
        faint=("loss",),
    )
    found = "No rate suggested" if record.suggestion is None else number(record.suggestion)
    about = [record.task, record.optimizer, f"{len(record.rates)} updates"]
    return [
        "<h2>Range test</h2>",
        f"<p><strong>{found}</strong>: {escape(record.reason)}</p>",
        _figure(svg, " · ".join(part for part in [*about, record.stopped] if part)),
    ]


def _found_rate_section(record: FoundRate) -> list[str]:
    if not record.runs:
        return ["<h2>The rate</h2>", f"<p><strong>No answer</strong>: {escape(record.reason)}</p>"]
    low, high = series.gain_window(record)
    rates, losses = record.curve
    shown = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if loss <= high]
    lines = {
        "after a short run": ([rate for rate, _ in shown], [loss for _, loss in shown]),
        "before": ([record.runs[0].rate, record.runs[-1].rate], [record.before] * 2),
    }
    svg = svg_chart(
        lines,
        title="Loss after short runs at different rates",
        x_label="rate",
        y_label="loss",
        log_x=True,
        mark=record.rate,
        y_range=(low, high),
        faint=("before",),
    )
    answer = "No answer"
    if record.rate is not None and record.low is not None and record.high is not None:
        answer = f"{record.rate:.2g}, from {record.low:.2g} to {record.high:.2g}"
    about = [record.task, record.optimizer, record.cost]
    return [
        "<h2>The rate</h2>",
        f"<p><strong>{answer}</strong>: {escape(record.reason)}</p>",
        _figure(svg, " · ".join(part for part in about if part)),
    ]


def _measured_section(rows: Sequence[Measured]) -> list[str]:
    def chart(lines: dict[str, series.Line], title: str, height: int, *, log: bool) -> str:
        return svg_chart(lines, title=title, x_label="update", y_label="", log_y=log, height=height)

    relative = series.measured(rows, "relative")
    return [
        "<h2>What updates did</h2>",
        _figure(
            chart(series.measured(rows, "effective"), "Effective rate by layer", 320, log=True),
            "Norm of what an update added / norm of the gradient.",
        ),
        _figure(
            chart(relative, "Relative change by layer", 320, log=True),
            "Norm of what an update added / norm of the weights.",
        ),
        _figure(
            chart(series.measured_rates(rows), "Rate of each param group", 220, log=False),
            "The schedule of the same updates.",
        ),
    ]


def _footer(comparison: Comparison) -> str:
    entries = "\n".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
        for key, value in comparison.environment.items()
    )
    return (
        "<footer>\n<h2>Reproduce</h2>\n"
        "<p>Seeds set the initial weights and the order of the data. "
        "These curves hold the rate of every update:</p>\n"
        f"<pre><code>{escape(_recipe(comparison))}</code></pre>\n"
        + (f"<h2>Environment</h2>\n<dl>\n{entries}\n</dl>\n" if entries else "")
        + "</footer>"
    )


def _recipe(comparison: Comparison) -> str:
    """Return Python that builds every curve again."""
    lines = ["from ratecraft import parse", ""]
    for name in comparison.schedules:
        for run in comparison.of(name)[:1]:
            seeds = ", ".join(str(r.seed) for r in comparison.of(name))
            lines.append(f"# {' '.join(name.split())}: seeds {seeds}")
            schedule = f"({run.rate!r} * parse({run.schedule!r}))"
            lines.append(f"{schedule}.resolve({run.total}, epoch={run.epoch})")
    return "\n".join(lines)
