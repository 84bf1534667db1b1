"""One self-contained HTML page about results, without external resources."""

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from pathlib import Path

from ratecraft._files import write_atomically
from ratecraft._render._chart import DARK_PALETTE, PALETTE
from ratecraft._render._html import figure, heading
from ratecraft.errors import RatecraftError
from ratecraft.results import (
    Comparison,
    Forecast,
    LayerStats,
    LRFinderResult,
    LRRangeTestResult,
)

from . import _charts as charts
from ._comparison import comparison_section, runs_section
from ._forecast import forecast_section, forecast_vs_measured_section
from ._reproduce import reproduce_section


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

    The page is self-contained: it makes no request. A small script in it shows the values under
    the pointer, hides lines, switches axes, sorts and filters tables, and copies texts. Without
    JavaScript the page shows the same figures and tables.

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
        *([*runs_section(comparison), reproduce_section(comparison)] if comparison else []),
    ]
    return write_atomically(path, _page(title, sections))


def _page(title: str, sections: Sequence[str]) -> str:
    style, script = (
        files("ratecraft.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("_style.css", "_script.js")
    )
    # The marks let an XML parser read the page, too.
    script = f"//<![CDATA[\n{script}//]]>"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Requests and other scripts are refused by the browser, even if a text were not escaped.
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'"
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}{_dark_colors()}</style>\n</head>\n"
        f"<body>\n{_contents(body)}\n<main>\n{body}\n</main>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _dark_colors() -> str:
    """Return the style of the chart colors on a dark page."""
    rules = (
        f'svg [{attribute}="{light}"] {{ {attribute}: {dark}; }}'
        for light, dark in zip(PALETTE, DARK_PALETTE, strict=True)
        for attribute in ("fill", "stroke")
    )
    return "@media screen and (prefers-color-scheme: dark) {\n  " + "\n  ".join(rules) + " }\n"


def _contents(body: str) -> str:
    """Return the list of the page's headings: at the side of a broad page, else collapsed."""
    headings = re.findall(r'<(?:h2|details) id="([a-z0-9-]+)">(?:<summary>)?(.*?)</', body)
    links = "\n".join(f'<li><a href="#{anchor}">{text}</a></li>' for anchor, text in headings)
    return (
        f'<nav class="side" aria-label="Contents">\n<ol>\n{links}\n</ol>\n</nav>\n'
        f'<details class="contents"><summary>Contents</summary>\n<ol>\n{links}\n</ol></details>'
    )


def _lr_search_section(result: LRFinderResult | LRRangeTestResult) -> list[str]:
    if isinstance(result, LRRangeTestResult):
        name, has_curve = "Learning-rate range test", True
        details = [f"{len(result.lrs)} steps", result.stop_reason]
    else:
        name, has_curve, details = "Learning rate", bool(result.runs), [result.cost]
    caption = " · ".join(filter(None, [result.task, result.optimizer, *details]))
    answer, _, reason = result.verdict().partition(": ")
    return [
        heading(name),
        f"<p><strong>{escape(answer)}</strong>: {escape(reason)}</p>",
        *([figure(result.chart(), caption)] if has_curve else []),
    ]


def _layer_stats_section(rows: Sequence[LayerStats]) -> list[str]:
    sections = [heading("Layer statistics")]
    for column, title, divisor in (
        ("effective_lr", "Effective learning rate by layer", "gradient"),
        ("relative_step", "Relative step size by layer", "weights"),
    ):
        chart = replace(charts.layer_stats_chart(rows, column), title=title, y_label="")
        sections.append(figure(chart, f"Norm of the step / norm of the {divisor}.", height=320))
    caption = "The schedule over the same steps."
    return [*sections, figure(charts.group_lrs_chart(rows), caption, height=220)]
