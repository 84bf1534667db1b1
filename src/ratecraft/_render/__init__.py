"""Charts of plain numbers; this package imports no other package of ratecraft.

_axis.py  axes, tick labels, and decimation of long lines
_svg.py   a line chart as SVG
"""
