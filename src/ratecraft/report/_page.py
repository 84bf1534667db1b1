"""One self-contained HTML page about results, without scripts or external resources."""

import os
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from pathlib import Path

from ratecraft._render._html import figure
from ratecraft.errors import RatecraftError
from ratecraft.results import (
    Comparison,
    Forecast,
    LayerStats,
    LRFinderResult,
    LRRangeTestResult,
    Run,
)

from . import _charts as charts
from ._comparison import comparison_section, runs_section
from ._forecast import forecast_section, forecast_vs_measured_section


def write_report(
    path: str | os.PathLike[str],
    *,
    comparison: Comparison | None = None,
    forecast: Forecast | None = None,
    lr_search: LRFinderResult | LRRangeTestResult | None = None,
    layer_stats: Sequence[LayerStats] = (),
    title: str,
) -> Path:
    """Write a report about a comparison, a forecast or both as one HTML file.

    The page is self-contained: it loads no resources and runs no script.

    Args:
        path: the file to write; missing folders are created.
        comparison: from `ratecraft.compare`.
        forecast: from `ratecraft.forecast`.
        lr_search: the search that chose the learning rate, from `ratecraft.find_lr` or
            `ratecraft.range_test`.
        layer_stats: rows of a Probe from one of the runs.
        title: the page's heading.

    Raises:
        RatecraftError: neither a comparison nor a forecast is given.

    >>> import tempfile
    >>> from ratecraft.report import write_report
    >>> from ratecraft.results import Comparison, Evaluation, Run
    >>> run = Run("cosine(1, 0)", 0.1, seed=0, total_steps=4, steps_per_epoch=2,
    ...           losses=(1, 0.8, 0.6, 0.5), evaluations=(Evaluation(4, {"loss": 0.5}),))
    >>> result = Comparison("a quadratic", {"cosine": "cosine(1, 0)"}, (run,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(f"{folder}/report.html", comparison=result, title="A quadratic")
    ...     "<h1>A quadratic</h1>" in page.read_text(encoding="utf-8")
    True
    """
    if comparison is None and forecast is None:
        raise RatecraftError("a report needs comparison=, forecast= or both; neither was given")
    sections = [
        f"<h1>{escape(title)}</h1>",
        *(comparison_section(comparison) if comparison else []),
        *(forecast_vs_measured_section(forecast, comparison) if forecast and comparison else []),
        *(forecast_section(forecast, alone=comparison is None) if forecast else []),
        *(_lr_search_section(lr_search) if lr_search else []),
        *(_layer_stats_section(layer_stats) if layer_stats else []),
        *([*runs_section(comparison), _footer(comparison)] if comparison else []),
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_page(title, sections), encoding="utf-8")
    return target


def _page(title: str, sections: Sequence[str]) -> str:
    style = files("ratecraft.report").joinpath("_style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _lr_search_section(result: LRFinderResult | LRRangeTestResult) -> list[str]:
    if isinstance(result, LRRangeTestResult):
        heading, has_curve = "Learning-rate range test", True
        details = [f"{len(result.lrs)} steps", result.stop_reason]
    else:
        heading, has_curve, details = "Learning rate", bool(result.runs), [result.cost]
    caption = " · ".join(filter(None, [result.task, result.optimizer, *details]))
    answer, _, reason = result.verdict().partition(": ")
    return [
        f"<h2>{heading}</h2>",
        f"<p><strong>{answer}</strong>: {escape(reason)}</p>",
        *([figure(result.chart(), caption)] if has_curve else []),
    ]


def _layer_stats_section(rows: Sequence[LayerStats]) -> list[str]:
    sections = ["<h2>Layer statistics</h2>"]
    for column, title, divisor in (
        ("effective_lr", "Effective learning rate by layer", "gradient"),
        ("relative_step", "Relative step size by layer", "weights"),
    ):
        chart = replace(charts.layer_stats_chart(rows, column), title=title, y_label="")
        sections.append(figure(chart, f"Norm of the step / norm of the {divisor}.", height=320))
    caption = "The schedule over the same steps."
    return [*sections, figure(charts.group_lrs_chart(rows), caption, height=220)]


def _footer(comparison: Comparison) -> str:
    entries = "\n".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
        for key, value in comparison.environment.items()
    )
    return (
        "<footer>\n<h2>Reproduce</h2>\n"
        "<p>Seeds set the initial weights and the order of the data. "
        "These curves give the learning rate of every step:</p>\n"
        f"<pre><code>{escape(_recipe(comparison))}</code></pre>\n"
        + (f"<h2>Environment</h2>\n<dl>\n{entries}\n</dl>\n" if entries else "")
        + "</footer>"
    )


def _recipe(comparison: Comparison) -> str:
    """Return Python code that builds every curve."""
    lines = ["from ratecraft import parse", ""]
    for name in comparison.schedules:
        curves: dict[str, list[Run]] = {}
        for run in comparison.runs_for(name):
            # A plateau schedule's learning rates differ by seed.
            curves.setdefault(run.realized_schedule or run.schedule, []).append(run)
        for text, runs in curves.items():
            first, seeds = runs[0], ", ".join(str(run.seed) for run in runs)
            lines.append(f"# {' '.join(name.split())}: seeds {seeds}")
            schedule = f"({first.lr!r} * parse({text!r}))"
            sizes = f"total_steps={first.total_steps}, steps_per_epoch={first.steps_per_epoch}"
            lines.append(f"{schedule}.resolve({sizes})")
    return "\n".join(lines)
