"""Leaves: the schedules without parts.

A ramp stretches to its length; any other leaf is a function of time that is cut there.
"""

import math
import operator
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import Any

from ratecraft.errors import ScheduleError

from . import _pieces as pieces
from ._base import Text, call_text
from ._duration import MAX_DURATION, Duration, Horizon, Length, as_duration, as_number, number_text
from ._formulas import CLOCKED, RAMPS
from ._nodes import Schedule
from ._pieces import Piece


class Leaf(Schedule):
    """A schedule without parts. ``over_`` is its length; None: the rest of the run."""

    @property
    def over_(self) -> Duration | None:
        """Return the length, which is a field of each subclass."""
        raise NotImplementedError

    def over(self, length: Length) -> Schedule:
        """Return this leaf with that length if it has none; else cut or hold it there."""
        # A percent in this leaf is of the new length, so it needs its own scope (rule 11).
        if self.over_ is not None or any(inner.percent for inner in self._lengths()):
            return super().over(length)
        length = as_duration(length, ".over()")
        leaf = self._replace(over_=length)
        return leaf._with_text(f"{self}.over({length})") if self._written else leaf

    def _lengths(self) -> Iterable[Duration]:
        """Return the lengths of this leaf other than ``over_``."""
        return ()

    def _is_open(self) -> bool:
        return self.over_ is None

    def _names_percent(self) -> bool:
        return any(length.percent for length in (*self._lengths(), self.over_ or Duration()))

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        length = room
        if self.over_ is not None:
            length = horizon.measure(self.over_, scope, repr(self))
        piece = self._piece(horizon, scope, length)
        return piece if piece.length == length else pieces.span(piece, length)

    def _piece(self, horizon: Horizon, scope: float, length: float) -> Piece:
        """Return a piece of that length, or an endless one, to be cut."""
        raise NotImplementedError


class Ramp(Leaf):
    """A leaf from ``start`` to ``end`` that stretches to its length."""

    shape: str
    start: float
    end: float
    over_: Duration | None = None
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        start = as_number(self.start, f"{self.shape}: start")
        end = as_number(self.end, f"{self.shape}: end")
        parameters = tuple(as_number(p, f"{self.shape}: a parameter") for p in self.parameters)
        if self.shape == "cosine" and parameters == (1.0,):
            parameters = ()  # one half cycle is the default
        vars(self).update(start=start, end=end, parameters=parameters)
        if self.shape == "exponential":
            ratio = end / start if start else 0.0
            if not 0 < ratio < math.inf:
                raise ScheduleError(
                    f"exponential({number_text(start)}, {number_text(end)}): both ends must have "
                    "the same sign and a finite ratio; write for example exponential(1, 0.001)"
                )
        name = "half_cycles" if self.shape == "cosine" else "power"
        if parameters and self.shape != "tanh" and parameters[0] <= 0:
            raise ScheduleError(f"{self.shape}: {name}={number_text(parameters[0])} must be > 0")
        if name == "half_cycles" and parameters > (MAX_DURATION,):
            raise ScheduleError(f"cosine: half_cycles={parameters[0]} must be at most 1e18")

    def _piece(self, horizon: Horizon, scope: float, length: float) -> Piece:
        if (self.shape == "linear" and self.start == self.end) or length == 0:
            return pieces.constant(self.end, length)
        if math.isinf(length):
            raise ScheduleError(f"{self!r} needs total_steps=, or over= as a length of its own")
        exact = self.shape not in ("cosine", "tanh") or not self.parameters
        ends = self.start, self.end, *self.parameters
        return pieces.ramp(RAMPS[self.shape], length, ends, exact)

    def _format(self, text: Text) -> str:
        start, end, over = self.start, self.end, self.over_
        if self.shape == "linear":
            if start == end:
                return call_text("constant", start, over=over)
            if over is not None and end == 1 and 0 <= start < 1:
                return call_text("warmup", over, start=start or None)
            if over is not None and start == 1 and 0 <= end < 1:
                return call_text("cooldown", over, end=end or None)
        return call_text(self.shape, start, end, *self.parameters, over=over)


class Clocked(Leaf):
    """A leaf that is a formula in the time since its start."""

    shape: str
    number: float  # gamma of a decay, the exponent of a power law
    lengths: tuple[Duration, ...]  # (every,) of a decay, (timescale, shift) of a power law
    over_: Duration | None = None

    def _lengths(self) -> Iterable[Duration]:
        return self.lengths

    def _piece(self, horizon: Horizon, scope: float, length: float) -> Piece:
        sizes = [horizon.measure(length, scope, repr(self)) for length in self.lengths]
        if sizes[0] == 0:
            raise ScheduleError(f"{self!r}: {self.lengths[0]} measures 0 steps; it must be > 0")
        if math.isinf(length) and self.number > 1:
            fix = "give it over=, or resolve with total_steps="
            raise ScheduleError(f"{self!r} grows without limit; {fix}")
        return pieces.clocked(CLOCKED[self.shape], (self.number, *sizes), length)

    def _format(self, text: Text) -> str:
        if self.shape == "decay":
            return call_text("decay", self.number, every=self.lengths[0], over=self.over_)
        scale, shift = self.lengths
        if self.number == -0.5 and shift == scale:
            return call_text("inverse_sqrt", scale, over=self.over_)
        later = None if shift == Duration() else shift
        return call_text("power_law", self.number, scale, shift=later, over=self.over_)


class Staircase(Leaf):
    """A leaf of constant levels: a new one at each time in ``at``, or after each ``every``."""

    values: tuple[float, ...]
    every: Duration | None = None
    at: tuple[Duration, ...] | None = None
    over_: Duration | None = None

    def _lengths(self) -> Iterable[Duration]:
        return (self.every,) if self.every is not None else self.at or ()

    def _piece(self, horizon: Horizon, scope: float, length: float) -> Piece:
        if self.every is not None:
            width = horizon.measure(self.every, scope, "staircase: every=")
            if width == 0:
                raise ScheduleError("staircase: every= measures 0 steps; it must be > 0")
            joins = [i * width for i in range(1, len(self.values))]
        else:
            joins = [horizon.measure(x, scope, "staircase: at=") for x in self.at or ()]
            rule = "staircase: the times in at= must not decrease"
            for before, after in pairwise(joins):
                if after < before:
                    order = f"{number_text(after)} follows {number_text(before)}"
                    raise ScheduleError(f"{rule}, but {order}")
        return pieces.staircase(self.values, joins)

    def _format(self, text: Text) -> str:
        return call_text("staircase", self.values, at=self.at, every=self.every, over=self.over_)


class Custom(Leaf):
    """A leaf that is a Python function of the time since its start, or its running products."""

    word: str  # "custom" or "multiplicative"
    function: Callable[[Any], float]
    over_: Duration | None = None

    def _piece(self, horizon: Horizon, scope: float, length: float) -> Piece:
        if self.word == "custom":
            return pieces.custom(self.function, repr(self))
        if math.isinf(length):
            needs = "total_steps= or over="
            raise ScheduleError(f"{self!r} is tabulated step by step and needs {needs}")
        steps = range(1, math.ceil(length))
        factors = (as_number(self.function(k), f"{self!r} at {k}") for k in steps)
        levels = tuple(accumulate(factors, operator.mul, initial=1.0))
        return pieces.staircase(levels, steps)

    def _format(self, text: Text) -> str:
        return call_text(self.word, self.function, over=self.over_)  # `parse` cannot read it
