"""SAY: a schedule as a value, its notation, and the curve it becomes.

duration.py   how long: steps, epochs, percent, and what they measure on a run
formulas.py   one formula per shape, over math, numpy or torch
pieces.py     resolved parts that read a value at a time
curve.py      a resolved schedule: a pure function of the update number
nodes.py      the values: leaves, and ways to combine them
shapes.py     the words: constant, linear, cosine, warmup, ...
text.py       the notation: parse(repr(s)) == s
"""

from ratecraft.schedule.curve import Curve
from ratecraft.schedule.duration import Duration, epochs, percent, samples, steps, tokens
from ratecraft.schedule.nodes import Schedule
from ratecraft.schedule.shapes import (
    constant,
    cooldown,
    cosine,
    custom,
    exponential,
    linear,
    polynomial,
    staircase,
    warmup,
)
from ratecraft.schedule.text import parse, parse_length

__all__ = [
    "Curve",
    "Duration",
    "Schedule",
    "constant",
    "cooldown",
    "cosine",
    "custom",
    "epochs",
    "exponential",
    "linear",
    "parse",
    "parse_length",
    "percent",
    "polynomial",
    "samples",
    "staircase",
    "steps",
    "tokens",
    "warmup",
]
