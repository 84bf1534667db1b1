"""SAY: a schedule as a value, its notation, and the curve it becomes.

duration.py    how long: steps, epochs, percent, and what they measure on a run
formulas.py    one formula per shape, over math, numpy or torch
pieces.py      resolved parts that read a value at a time
curve.py       a resolved schedule: a pure function of the update number
nodes.py       the values, and the ways to combine them
leaves.py      the values without parts
shapes.py      the words for leaves: constant, linear, cosine, warmup, ...
composites.py  the words for whole schedules: wsd, one_cycle, restarts, ...
text.py        the notation: parse(repr(s)) == s
plain.py       the same as nested dicts, for JSON and YAML
check.py       what a schedule will do that nobody may have meant
"""

from ratecraft.schedule.check import Finding, check
from ratecraft.schedule.composites import (
    exp_range,
    knee,
    linear_to_zero,
    noam,
    one_cycle,
    power_scheduler,
    restarts,
    trapezoid,
    triangular,
    triangular2,
    wsd,
)
from ratecraft.schedule.curve import Curve, Difference
from ratecraft.schedule.duration import Duration, epochs, percent, samples, steps, tokens
from ratecraft.schedule.nodes import Schedule
from ratecraft.schedule.plain import from_dict, to_dict
from ratecraft.schedule.shapes import (
    constant,
    cooldown,
    cosine,
    custom,
    decay,
    exp_decay,
    exponential,
    inverse_sqrt,
    levels,
    linear,
    multiplicative,
    one_minus_sqrt,
    polynomial,
    power_law,
    rex,
    sqrt,
    square,
    staircase,
    tanh,
    untuned,
    warmup,
)
from ratecraft.schedule.text import parse, parse_length

__all__ = [
    "Curve",
    "Difference",
    "Duration",
    "Finding",
    "Schedule",
    "check",
    "constant",
    "cooldown",
    "cosine",
    "custom",
    "decay",
    "epochs",
    "exp_decay",
    "exp_range",
    "exponential",
    "from_dict",
    "inverse_sqrt",
    "knee",
    "levels",
    "linear",
    "linear_to_zero",
    "multiplicative",
    "noam",
    "one_cycle",
    "one_minus_sqrt",
    "parse",
    "parse_length",
    "percent",
    "polynomial",
    "power_law",
    "power_scheduler",
    "restarts",
    "rex",
    "samples",
    "sqrt",
    "square",
    "staircase",
    "steps",
    "tanh",
    "to_dict",
    "tokens",
    "trapezoid",
    "triangular",
    "triangular2",
    "untuned",
    "warmup",
    "wsd",
]
