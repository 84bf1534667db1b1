"""SEE: schedules, searches for a rate and comparisons as pictures, from values and records alone.

    axis.py       from numbers to places and tick labels; thinning a long line
    series.py     from records to the lines worth drawing
    terminal.py   plain text in braille, for a terminal or a log
    svg.py        one small SVG line chart
    picture.py    what a notebook shows of a schedule
    plot.py       matplotlib figures, for papers
    html.py       the pieces of a page: tables, figures, folds, its style
    report.py     one self-contained HTML page about a comparison, a forecast or both
    report_comparison.py  its answer, tables and figures
    report_runs.py        its tables of single runs, epoch by epoch
    report_forecast.py    what was foreseen, beside what happened

Importing this loads the standard library only; matplotlib and numpy come with the first figure.
"""

from ratecraft.view.picture import curve_svg, schedule_svg
from ratecraft.view.plot import (
    plot_breakdown,
    plot_comparison,
    plot_curves,
    plot_forecast,
    plot_found_rate,
    plot_measured,
    plot_range_test,
    plot_schedule,
    save_figure,
)
from ratecraft.view.report import write_report
from ratecraft.view.svg import svg_chart
from ratecraft.view.terminal import (
    terminal_curve,
    terminal_forecast,
    terminal_found_rate,
    terminal_plot,
)

__all__ = [
    "curve_svg",
    "plot_breakdown",
    "plot_comparison",
    "plot_curves",
    "plot_forecast",
    "plot_found_rate",
    "plot_measured",
    "plot_range_test",
    "plot_schedule",
    "save_figure",
    "schedule_svg",
    "svg_chart",
    "terminal_curve",
    "terminal_forecast",
    "terminal_found_rate",
    "terminal_plot",
    "write_report",
]
