"""One self-contained HTML page about results: nothing is fetched and no script runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ratecraft._render._axis import number
from ratecraft.errors import RatecraftError
from ratecraft.results import (
    Comparison,
    Forecast,
    LayerStats,
    LRFinderResult,
    LRRangeTestResult,
    Run,
)

from . import _html as html
from . import _series as series
from ._comparison import comparison_section
from ._forecast import beside_section, forecast_section
from ._runs import runs_section


def write_report(
    path: str | os.PathLike[str],
    *,
    comparison: Comparison | None = None,
    forecast: Forecast | None = None,
    found: LRFinderResult | LRRangeTestResult | None = None,
    measured: Sequence[LayerStats] = (),
    title: str,
) -> Path:
    """Write a comparison, a forecast or both as one HTML file that opens anywhere; return its path.

    All numbers come from the results.

    Args:
        path: the file to write.
        comparison: what was trained.
        forecast: what was foreseen.
        found: what chose the lr, `find_lr` or a range test, to show it, too.
        measured: what a Probe measured in one such run.
        title: the page's heading.

    Raises:
        RatecraftError: neither a comparison nor a forecast.

    >>> import tempfile
    >>> from ratecraft.results import Comparison, Evaluation, Run
    >>> text, ends = "cosine(1, 0)", (Evaluation(4, {"loss": 0.5}),)
    >>> run = Run(text, 0.1, seed=0, total_steps=4, steps_per_epoch=2, losses=(1, 0.8, 0.6, 0.5), evaluations=ends)
    >>> result = Comparison("a quadratic", {"cosine": text}, (run,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(f"{folder}/report.html", comparison=result, title="A quadratic")
    ...     "<h1>A quadratic</h1>" in page.read_text(encoding="utf-8")
    True
    """
    if comparison is None and forecast is None:
        raise RatecraftError("a report is of a comparison, a forecast or both; neither was given")
    sections = [
        f"<h1>{escape(title)}</h1>",
        *(comparison_section(comparison) if comparison else []),
        *(beside_section(forecast, comparison) if forecast and comparison else []),
        *(forecast_section(forecast, alone=comparison is None) if forecast else []),
        *(_range_test_section(found) if isinstance(found, LRRangeTestResult) else []),
        *(_lr_finder_section(found) if isinstance(found, LRFinderResult) else []),
        *(_measured_section(measured) if measured else []),
        *([*runs_section(comparison), _footer(comparison)] if comparison else []),
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html.page(title, sections), encoding="utf-8")
    return target


def _range_test_section(result: LRRangeTestResult) -> list[str]:
    found = "No lr suggested" if result.suggestion is None else number(result.suggestion)
    about = [result.task, result.optimizer, f"{len(result.lrs)} steps", result.stopped]
    figure = html.figure(
        {"loss": (result.lrs, result.losses), "smoothed": (result.lrs, result.smoothed)},
        " · ".join(part for part in about if part),
        title="Training loss while the lr rises",
        x_label="lr",
        y_label="loss",
        log_x=True,
        mark=result.suggestion,
        y_range=series.loss_window(result),
        faint=("loss",),
    )
    return [
        "<h2>Range test</h2>",
        f"<p><strong>{found}</strong>: {escape(result.reason)}</p>",
        figure,
    ]


def _lr_finder_section(result: LRFinderResult) -> list[str]:
    if not result.runs:
        return ["<h2>The lr</h2>", f"<p><strong>No answer</strong>: {escape(result.reason)}</p>"]
    low, high = series.gain_window(result)
    lrs, losses = result.curve
    shown = [(lr, loss) for lr, loss in zip(lrs, losses, strict=True) if loss <= high]
    lines = {
        "after a short run": ([lr for lr, _ in shown], [loss for _, loss in shown]),
        "before": ([result.runs[0].lr, result.runs[-1].lr], [result.before] * 2),
    }
    about = [result.task, result.optimizer, result.cost]
    figure = html.figure(
        lines,
        " · ".join(part for part in about if part),
        title="Loss after short runs at different lrs",
        x_label="lr",
        y_label="loss",
        log_x=True,
        mark=result.lr,
        y_range=(low, high),
        faint=("before",),
    )
    answer = "No answer"
    if result.lr is not None and result.low is not None and result.high is not None:
        answer = f"{result.lr:.2g}, from {result.low:.2g} to {result.high:.2g}"
    return [
        "<h2>The lr</h2>",
        f"<p><strong>{answer}</strong>: {escape(result.reason)}</p>",
        figure,
    ]


def _measured_section(rows: Sequence[LayerStats]) -> list[str]:
    def figure(
        lines: dict[str, series.Line], caption: str, title: str, height: int, *, log: bool
    ) -> str:
        return html.figure(
            lines, caption, title=title, x_label="step", y_label="", log_y=log, height=height
        )

    return [
        "<h2>What steps did</h2>",
        figure(
            series.measured(rows, "effective"),
            "Norm of what a step added / norm of the gradient.",
            "Effective lr by layer",
            320,
            log=True,
        ),
        figure(
            series.measured(rows, "relative"),
            "Norm of what a step added / norm of the weights.",
            "Relative change by layer",
            320,
            log=True,
        ),
        figure(
            series.measured_lrs(rows),
            "The schedule of the same steps.",
            "LR of each param group",
            220,
            log=False,
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
        "These curves hold the lr of every step:</p>\n"
        f"<pre><code>{escape(_recipe(comparison))}</code></pre>\n"
        + (f"<h2>Environment</h2>\n<dl>\n{entries}\n</dl>\n" if entries else "")
        + "</footer>"
    )


def _recipe(comparison: Comparison) -> str:
    """Return Python that builds every curve again."""
    lines = ["from ratecraft import parse", ""]
    for name in comparison.schedules:
        curves: dict[str, list[Run]] = {}
        for run in comparison.runs_for(name):
            # What a plateau did differs from seed to seed, and is written down as a schedule.
            curves.setdefault(run.innermost_optimizer or run.schedule, []).append(run)
        for text, runs in curves.items():
            run, seeds = runs[0], ", ".join(str(one.seed) for one in runs)
            lines.append(f"# {' '.join(name.split())}: seeds {seeds}")
            schedule = f"({run.lr!r} * parse({text!r}))"
            lines.append(
                f"{schedule}.resolve({run.total_steps}, steps_per_epoch={run.steps_per_epoch})"
            )
    return "\n".join(lines)
