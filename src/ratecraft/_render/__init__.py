"""Charts of plain numbers; this package imports no other package of ratecraft.

_axis.py        axes, tick labels, and decimation of long lines
_chart.py       Chart: what a chart shows
_svg.py         draws a chart as SVG
_heat_map.py    draws a heat map as SVG
_terminal.py    draws a chart as text
_text.py        text that any terminal can show
_matplotlib.py  draws charts as a matplotlib figure
_html.py        HTML headings, tables and figures
"""
