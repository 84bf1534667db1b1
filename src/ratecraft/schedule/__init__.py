"""Schedules as values, their text notation, and their curves over a run.

_value.py     Value: the base class of immutable values
_duration.py  lengths in steps, epochs, percent, samples and tokens
_formulas.py  one formula per shape, for math, numpy and torch
_pieces.py    resolved parts of a schedule: functions of a time and of arrays of times
_curve.py     Curve: a resolved schedule as a function of the step
_base.py      Node: what a part of the tree tells the others; the text of calls
_nodes.py     Schedule, and the nodes that combine schedules
_leaves.py    schedules without parts
_shapes.py    functions for single shapes: constant, linear, cosine, warmup, ...
_recipes.py   functions for whole schedules: wsd, one_cycle, restarts, ...
_parser.py    the notation: parse(repr(s)) == s
_check.py     likely mistakes in a schedule for a given run
_picture.py   charts of schedules and curves
"""

import typing as _typing

from ratecraft._public import set_public_module as _set_public_module

from ._curve import Curve as Curve
from ._curve import Difference as Difference
from ._duration import Duration as Duration
from ._duration import epochs as epochs
from ._duration import percent as percent
from ._duration import samples as samples
from ._duration import steps as steps
from ._duration import tokens as tokens
from ._nodes import Schedule as Schedule
from ._parser import parse as parse
from ._parser import parse_length as parse_length
from ._recipes import exp_range as exp_range
from ._recipes import knee as knee
from ._recipes import linear_to_zero as linear_to_zero
from ._recipes import noam as noam
from ._recipes import one_cycle as one_cycle
from ._recipes import power_scheduler as power_scheduler
from ._recipes import restarts as restarts
from ._recipes import trapezoid as trapezoid
from ._recipes import triangular as triangular
from ._recipes import triangular2 as triangular2
from ._recipes import wsd as wsd
from ._shapes import constant as constant
from ._shapes import cooldown as cooldown
from ._shapes import cosine as cosine
from ._shapes import custom as custom
from ._shapes import decay as decay
from ._shapes import exp_decay as exp_decay
from ._shapes import exponential as exponential
from ._shapes import inverse_sqrt as inverse_sqrt
from ._shapes import linear as linear
from ._shapes import multiplicative as multiplicative
from ._shapes import one_minus_sqrt as one_minus_sqrt
from ._shapes import polynomial as polynomial
from ._shapes import power_law as power_law
from ._shapes import rex as rex
from ._shapes import sqrt as sqrt
from ._shapes import square as square
from ._shapes import staircase as staircase
from ._shapes import tanh as tanh
from ._shapes import untuned_warmup as untuned_warmup
from ._shapes import warmup as warmup

if _typing.TYPE_CHECKING:
    from ._check import Finding as Finding
    from ._check import check as check

_LATER = ("Finding", "check")  # since `_check.py` has dataclasses, which take long to load
_set_public_module(globals(), later=_LATER)


def __getattr__(name: str) -> _typing.Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _check

    globals().update(Finding=_check.Finding, check=_check.check)
    _set_public_module(globals())
    return globals()[name]
