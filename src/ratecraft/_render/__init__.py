"""Charts from plain numbers; this package imports nothing above it.

_axis.py  from numbers to positions and tick labels; thinning a long line
_svg.py   one small SVG line chart
"""
