"""SEE: schedules, searches for an lr and comparisons as pictures, from values and results alone.

    axis.py       from numbers to places and tick labels; thinning a long line
    series.py     from results to the lines worth drawing
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

from ratecraft._public import set_public_module as _set_public_module
from ratecraft._render._svg import svg_chart as svg_chart

from ._figures import plot_breakdown as plot_breakdown
from ._figures import plot_comparison as plot_comparison
from ._figures import plot_curves as plot_curves
from ._figures import plot_forecast as plot_forecast
from ._figures import plot_layer_stats as plot_layer_stats
from ._figures import plot_lr_finder as plot_lr_finder
from ._figures import plot_range_test as plot_range_test
from ._figures import plot_schedule as plot_schedule
from ._figures import save_figure as save_figure
from ._page import write_report as write_report
from ._picture import curve_svg as curve_svg
from ._picture import schedule_svg as schedule_svg
from ._terminal import terminal_curve as terminal_curve
from ._terminal import terminal_forecast as terminal_forecast
from ._terminal import terminal_lr_finder as terminal_lr_finder
from ._terminal import terminal_plot as terminal_plot

_set_public_module(globals())
