"""Figures and HTML reports of schedules and results.

_charts.py      charts that only figures and reports show
_figures.py     matplotlib figures
_page.py        write_report: one self-contained HTML page
_comparison.py  its sections about a comparison and its runs
_heat_map.py    the final losses of many candidates
_reproduce.py   the code that makes a comparison again
_grid.py        the schedule, learning rate, optimizer and length of each candidate
_forecast.py    its sections about a forecast
_style.css      its style sheet
_script.js      its script

Importing this package loads the standard library only. The first figure loads matplotlib.
"""

from ratecraft._public import set_public_module as _set_public_module
from ratecraft._render._chart import Chart as Chart
from ratecraft._render._chart import Line as Line
from ratecraft._render._chart import Mark as Mark
from ratecraft._render._matplotlib import plot_chart as plot_chart
from ratecraft._render._matplotlib import save_figure as save_figure
from ratecraft._render._svg import svg_chart as svg_chart
from ratecraft._render._terminal import terminal_chart as terminal_chart
from ratecraft.schedule._picture import terminal_curve as terminal_curve

from ._figures import plot_breakdown as plot_breakdown
from ._figures import plot_comparison as plot_comparison
from ._figures import plot_curves as plot_curves
from ._figures import plot_forecast as plot_forecast
from ._figures import plot_layer_stats as plot_layer_stats
from ._figures import plot_lr_finder as plot_lr_finder
from ._figures import plot_range_test as plot_range_test
from ._figures import plot_schedule as plot_schedule
from ._page import write_report as write_report

_set_public_module(globals())
