"""Figures and HTML reports of schedules and results.

_figures.py     matplotlib figures
_page.py        write_report: one self-contained HTML page
_comparison.py  its sections about a comparison
_forecast.py    its sections about a forecast
_runs.py        its tables of single runs
_html.py        HTML parts: page, style sheet, tables, figures
_picture.py     SVG pictures of schedules, for notebooks
_series.py      turns results into lines
_terminal.py    line plots as text

Importing this package loads the standard library only. The first figure loads matplotlib.
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
