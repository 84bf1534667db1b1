"""Leaves: the schedules without parts.

A ramp stretches to its length. All other leaves are functions of the time since their start, and
are cut at their length.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Final

from ratecraft.errors import ScheduleError

from . import _pieces as pieces
from ._duration import Duration, Horizon, Length, as_duration, as_number, number_text
from ._formulas import CLOCKED, RAMPS
from ._nodes import Schedule, set_fields
from ._pieces import Piece

Call = tuple[str, list[Any], dict[str, Any]]
"""The text of a leaf: its function, and the positional and keyword arguments of the call."""

ONE_MINUS: Final = {0.5: "one_minus_sqrt", 2.0: "square"}


class Leaf(Schedule):
    """A schedule without parts. ``over_`` is its length; None: the rest of the run."""

    __slots__ = ()
    over_: Duration | None

    def over(self, length: Length) -> Schedule:
        """Return this leaf with that length if it has none; else cut or hold it there."""
        # A percent in this leaf is of the new length, so it needs its own scope (rule 11).
        if self.over_ is not None or any(inner.percent for inner in self._lengths()):
            return super().over(length)
        return replace(self, over_=as_duration(length, ".over()"))  # type: ignore[type-var]

    def call(self) -> Call:
        """Return the call that builds this leaf, without ``over=``."""
        raise NotImplementedError

    def _lengths(self) -> Iterable[Duration]:
        """Return the lengths of this leaf other than ``over_``."""
        return ()

    def _is_open(self) -> bool:
        return self.over_ is None

    def _names_percent(self) -> bool:
        lengths = [*self._lengths()] if self.over_ is None else [*self._lengths(), self.over_]
        return any(length.percent for length in lengths)

    def _length(self, horizon: Horizon, scope: float, room: float) -> float:
        return room if self.over_ is None else horizon.measure(self.over_, scope, repr(self))

    def __repr__(self) -> str:
        word, args, kwargs = self.call()
        if self.over_ is not None and word not in ("warmup", "cooldown"):
            kwargs = kwargs | {"over": self.over_}
        texts = [*map(_text, args), *(f"{name}={_text(v)}" for name, v in kwargs.items())]
        return f"{word}({', '.join(texts)})"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if callable(value):
        function = value if hasattr(value, "__qualname__") else type(value)
        return f"<{function.__module__}.{function.__qualname__}>"
    return str(value)


@dataclass(frozen=True, slots=True, repr=False)
class Ramp(Leaf):
    """A leaf from ``start`` to ``end`` that stretches to its length."""

    shape: str
    start: float
    end: float
    over_: Duration | None = None
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        start, end = as_number(self.start, f"{self.shape}: start"), as_number(self.end, "end")
        parameters = tuple(as_number(p, f"{self.shape}: a parameter") for p in self.parameters)
        set_fields(self, start=start, end=end, parameters=parameters)
        if self.shape == "exponential":
            ratio = end / start if start else 0.0
            if not 0 < ratio < math.inf:
                raise ScheduleError(
                    f"exponential({number_text(start)}, {number_text(end)}): both ends must have "
                    "the same sign and a finite ratio; write for example exponential(1, 0.001)"
                )
        powers = {"polynomial": "power", "one_minus_power": "power", "cosine": "half_cycles"}
        if self.shape in powers and parameters[0] <= 0:
            argument = f"{powers[self.shape]}={number_text(parameters[0])}"
            raise ScheduleError(f"{self.shape}: {argument} must be > 0")

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        length = self._length(horizon, scope, room)
        if (self.shape == "linear" and self.start == self.end) or length == 0:
            return pieces.ConstantPiece(self.end, length)
        if math.isinf(length):
            raise ScheduleError(f"{self!r} needs total_steps=, or over= as a length of its own")
        exact = self.shape != "tanh" and (self.shape != "cosine" or self.parameters == (1.0,))
        ends = self.start, self.end, *self.parameters
        return pieces.RampPiece(RAMPS[self.shape], length, ends, exact)

    def call(self) -> Call:
        """Return the simplest call that builds this ramp, without ``over=``."""
        start, end, over = self.start, self.end, self.over_
        if self.shape == "linear":
            if start == end:
                return "constant", [start], {}
            if over is not None and end == 1 and 0 <= start < 1:
                return "warmup", [over], {"start": start} if start else {}
            if over is not None and start == 1 and 0 <= end < 1:
                return "cooldown", [over], {"end": end} if end else {}
        if self.shape == "one_minus_power":
            return ONE_MINUS[self.parameters[0]], [start, end], {}
        plain = self.shape == "cosine" and self.parameters == (1.0,)
        return self.shape, [start, end, *(() if plain else self.parameters)], {}


@dataclass(frozen=True, slots=True, repr=False)
class Clocked(Leaf):
    """A leaf that is a formula in the time since its start.

    A decay has ``number`` gamma and ``lengths`` (every,); a power law has ``number`` exponent and
    ``lengths`` (timescale, shift).
    """

    shape: str
    number: float
    lengths: tuple[Duration, ...]
    over_: Duration | None = None

    def __post_init__(self) -> None:
        set_fields(self, number=as_number(self.number, self.shape))
        if self.shape == "decay" and self.number <= 0:
            raise ScheduleError(f"decay: gamma={number_text(self.number)} must be > 0")
        if self.shape == "power_law" and self.number >= 0:
            raise ScheduleError(
                f"power_law: exponent={number_text(self.number)} must be < 0; for a rise write "
                "polynomial(start, end, power)"
            )

    def _lengths(self) -> Iterable[Duration]:
        return self.lengths

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        sizes = [horizon.measure(length, scope, repr(self)) for length in self.lengths]
        if sizes[0] == 0:
            raise ScheduleError(f"{self!r}: {self.lengths[0]} measures 0 steps; it must be > 0")
        length = self._length(horizon, scope, room)
        if math.isinf(length) and self.number > 1:
            raise ScheduleError(
                f"{self!r} grows without limit; give it over=, or resolve with total_steps="
            )
        formula = pieces.ClockedPiece(CLOCKED[self.shape], (self.number, *sizes), length)
        return pieces.SpanPiece(formula, length)

    def call(self) -> Call:
        """Return the call that builds this leaf, without ``over=``."""
        if self.shape == "decay":
            return "decay", [self.number], {"every": self.lengths[0]}
        scale, shift = self.lengths
        if self.number == -0.5 and shift == scale:
            return "inverse_sqrt", [scale], {}
        return "power_law", [self.number, scale], {"shift": shift} if shift != Duration() else {}


@dataclass(frozen=True, slots=True, repr=False)
class Staircase(Leaf):
    """A leaf of constant levels: a new one at each time in ``at``, or after each ``every``."""

    values: tuple[float, ...]
    every: Duration | None = None
    at: tuple[Duration, ...] | None = None
    over_: Duration | None = None

    def __post_init__(self) -> None:
        levels = tuple(as_number(v, "staircase: a level") for v in self.values)
        set_fields(self, values=levels)
        if self.at is not None and len(self.at) != len(levels) - 1:
            raise ScheduleError(
                f"staircase: {len(levels)} levels need {len(levels) - 1} times in at=, "
                f"not {len(self.at)}; the first level begins at 0"
            )

    def _lengths(self) -> Iterable[Duration]:
        return (self.every,) if self.every is not None else self.at or ()

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        if self.every is not None:
            width = horizon.measure(self.every, scope, "staircase: every=")
            if width == 0:
                raise ScheduleError("staircase: every= measures 0 steps; it must be > 0")
            joins = [i * width for i in range(1, len(self.values))]
        else:
            joins = [horizon.measure(x, scope, "staircase: at=") for x in self.at or ()]
            for before, after in pairwise(joins):
                if after < before:
                    raise ScheduleError(
                        "staircase: the times in at= must not decrease, but "
                        f"{number_text(after)} follows {number_text(before)}"
                    )
        length = self._length(horizon, scope, room)
        return pieces.SpanPiece(pieces.StaircasePiece(self.values, joins), length)

    def call(self) -> Call:
        """Return the call that builds this leaf, without ``over=``."""
        when = {"at": self.at} if self.every is None else {"every": self.every}
        return "staircase", [self.values], when


@dataclass(frozen=True, slots=True, repr=False)
class Custom(Leaf):
    """A leaf that is a Python function of the time since its start, in steps."""

    function: Callable[[float], float]
    over_: Duration | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"custom() takes a function of t, not {self.function!r}")

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        length = self._length(horizon, scope, room)
        return pieces.SpanPiece(pieces.CustomPiece(self.function, repr(self)), length)

    def call(self) -> Call:
        """Return the call that builds this leaf; `parse` cannot read the function's name."""
        return "custom", [self.function], {}


@dataclass(frozen=True, slots=True, repr=False)
class Multiplicative(Leaf):
    """A leaf of running products of a Python function, tabulated when it is resolved."""

    function: Callable[[int], float]
    over_: Duration | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"multiplicative() takes a function of k, not {self.function!r}")

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        length = self._length(horizon, scope, room)
        if math.isinf(length):
            raise ScheduleError(
                f"{self!r} is tabulated step by step and needs total_steps= or over="
            )
        steps = range(1, math.ceil(length))
        factors = (as_number(self.function(k), f"{self!r} at {k}") for k in steps)
        levels = tuple(accumulate(factors, operator.mul, initial=1.0))
        return pieces.SpanPiece(pieces.StaircasePiece(levels, steps), length)

    def call(self) -> Call:
        """Return the call that builds this leaf; `parse` cannot read the function's name."""
        return "multiplicative", [self.function], {}
