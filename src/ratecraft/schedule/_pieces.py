"""Pieces: resolved schedules, which map a time to a value.

A piece starts at t = 0 and has a ``length``, which may be infinite. Before its start it holds its
value at 0, after its end its left limit. It is evaluated in two ways:

* ``at(t, e)`` for one time,
* ``array(times)`` for many, on numpy, torch or any array with the same namespace.

``e`` is the *signed slack*: t + e decides which part owns time t. With e > 0 (1e-9 steps or more)
a join belongs to the later part even where rounding put t just before it; with e < 0 the result
is the left limit. So the same method evaluates a piece forwards, past its end and backwards.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from ratecraft.errors import ScheduleError

from ._duration import MAX_DURATION, as_number
from ._formulas import Function

SLACK: Final = 1e-9  # steps
RELATIVE_SLACK: Final = 2.0**-50  # of t: 4 ulp of a number at the top of its binade
SLACK_LIMIT: Final = SLACK / RELATIVE_SLACK  # the time from which the relative slack is larger


def slack(t: float) -> float:
    """Return how far before a join a time ``t`` still belongs to the later part."""
    return SLACK if t < SLACK_LIMIT else t * RELATIVE_SLACK


class Times:
    """An array of times, with its namespace, its slack, and whether it is sorted.

    A sorted numpy array is cut into slices, one per part. On any other array every part is
    evaluated at all times and the results are selected elementwise, so nothing leaves its device.
    """

    __slots__ = ("e", "ordered", "t", "xp")

    def __init__(self, t: Any, e: Any, xp: Any, ordered: bool) -> None:
        self.t, self.e, self.xp, self.ordered = t, e, xp, ordered

    @classmethod
    def of(cls, t: Any, xp: Any) -> Times:
        """Wrap a float64 array, clip it to [0, MAX_DURATION] and compute its slack."""
        on_host = xp.__name__ == "numpy"  # elsewhere reading a value may synchronize a device
        if on_host and xp.isnan(t).any():
            raise ScheduleError("a curve has no value at nan; give step numbers")
        if on_host and t.ndim == 1 and t.size and bool((t[1:] >= t[:-1]).all()):
            if t[0] < 0 or t[-1] > MAX_DURATION:
                t = xp.clip(t, 0.0, MAX_DURATION)
            e = SLACK if t[-1] < SLACK_LIMIT else xp.maximum(t * RELATIVE_SLACK, SLACK)
            return cls(t, e, xp, True)
        t = xp.clip(t, 0.0, MAX_DURATION)
        return cls(t, xp.clip(t * RELATIVE_SLACK, SLACK, None), xp, False)

    def _slice(self, low: int, high: int, start: float) -> Times:
        e = self.e if isinstance(self.e, float) else self.e[low:high]
        t = self.t[low:high]
        return Times(t - start if start else t, e, self.xp, True)

    def full(self, value: float) -> Any:
        """Return an array with ``value`` at every time."""
        return self.xp.full_like(self.t, value)

    def table(self, values: Sequence[float]) -> Any:
        """Return the numbers as an array on the device of the times."""
        return self.xp.asarray(values, dtype=self.xp.float64, device=self.t.device)

    def select(
        self, joins: Sequence[float], readers: Sequence[Reader], starts: Sequence[float]
    ) -> Any:
        """Evaluate each time with the part that owns it.

        Args:
            joins: the times where one part ends and the next begins.
            readers: one function per part; part i owns joins[i-1] <= t + e < joins[i].
            starts: the time that each part's own t = 0 is at.
        """
        xp, t = self.xp, self.t
        if self.ordered:
            if isinstance(self.e, float):
                cuts = xp.searchsorted(t, xp.asarray(joins) - self.e).tolist()
            else:
                cuts = xp.searchsorted(t + self.e, xp.asarray(joins)).tolist()
            edges = [0, *cuts, t.size]
            filled = [i for i in range(len(readers)) if edges[i] < edges[i + 1]]
            if len(filled) == 1:
                return readers[filled[0]](self._slice(0, t.size, starts[filled[0]]))
            out = xp.empty_like(t)
            for i in filled:
                out[edges[i] : edges[i + 1]] = readers[i](
                    self._slice(edges[i], edges[i + 1], starts[i])
                )
            return out
        out = readers[0](Times(t - starts[0], self.e, xp, False))
        for join, reader, start in zip(joins, readers[1:], starts[1:], strict=True):
            value = reader(Times(t - start, self.e, xp, False))
            out = xp.where(t + self.e >= join, value, out)
        return out

    def flipped(self, length: float) -> Times:
        """Return length - t, with the sign of the slack flipped."""
        e = self.t * 0 + self.e
        widened = self.xp.sign(e) * self.xp.clip(self.xp.abs(e), slack(length), None)
        return Times(length - self.t, -widened, self.xp, False)


Reader = Callable[[Times], Any]
Segment = tuple[float, Callable[[float], float]]


class Piece:
    """A resolved schedule: a length, and a value at each time."""

    __slots__ = ("length",)
    length: float

    def at(self, t: float, e: float) -> float:
        """Return the value at time ``t``, by the part that owns ``t + e``."""
        raise NotImplementedError

    def array(self, times: Times) -> Any:
        """Return the values at many times."""
        raise NotImplementedError

    def segments(self, offset: float, factor: float) -> list[Segment]:
        """Return this piece as (start, function of t) pairs, for fast evaluation of one time.

        Args:
            offset: the time at which the piece starts.
            factor: multiplies all values.
        """
        at = self.at
        return [(offset, lambda t: factor * at(t - offset, slack(t)))]

    def bound(self) -> float:
        """Return an upper bound of all absolute values; infinite if a value would overflow."""
        raise NotImplementedError


class ConstantPiece(Piece):
    """The same value at all times."""

    __slots__ = ("value",)

    def __init__(self, value: float, length: float) -> None:
        self.value, self.length = value, length

    def at(self, t: float, e: float) -> float:
        return self.value

    def segments(self, offset: float, factor: float) -> list[Segment]:
        value = factor * self.value
        return [(offset, lambda t: value)]

    def bound(self) -> float:
        return abs(self.value)

    def array(self, times: Times) -> Any:
        return times.full(self.value)


class RampPiece(Piece):
    """A function of x = t / length with exact values at both ends."""

    __slots__ = ("arguments", "first", "formula", "function", "last")

    def __init__(
        self, formula: Callable[..., Function], length: float, ends: tuple[float, ...], exact: bool
    ) -> None:
        self.formula, self.length, self.arguments = formula, length, (length, *ends)
        self.function = formula(math, *self.arguments)
        # A cosine of two half cycles and a tanh do not reach their nominal end values.
        self.first = ends[0] if exact else self.function(0.0)
        self.last = ends[1] if exact else self.function(length)

    def at(self, t: float, e: float) -> float:
        if t >= self.length:
            return self.last
        if t <= 0:
            return self.first
        value: float = self.function(t)
        return value

    def segments(self, offset: float, factor: float) -> list[Segment]:
        function, first, last = self.function, factor * self.first, factor * self.last

        def ramp(t: float) -> Any:
            t -= offset
            return factor * function(t) if t > 0 else first

        def plain(t: float) -> Any:
            return function(t) if t > 0 else first

        return [
            (offset, plain if offset == 0 and factor == 1 else ramp),
            (offset + self.length, lambda t: last),
        ]

    def bound(self) -> float:
        return abs(self.arguments[1]) + abs(self.arguments[2])

    def array(self, times: Times) -> Any:
        xp, t, length = times.xp, times.t, self.length
        function = self.formula(xp, *self.arguments)
        if times.ordered:
            first, last = xp.searchsorted(t, 0.0, "right"), xp.searchsorted(t, length)
            if first == 0 and last == t.size:
                return function(t)
            out = xp.empty_like(t)
            out[:first], out[last:] = self.first, self.last
            out[first:last] = function(t[first:last])
            return out
        inside = function(xp.clip(t, 0.0, length))
        return xp.where(t >= length, self.last, xp.where(t <= 0, self.first, inside))


class ClockedPiece(Piece):
    """A function of t itself. Endless; a `SpanPiece` cuts it."""

    __slots__ = ("arguments", "formula", "function", "until")

    def __init__(
        self, formula: Callable[..., Function], arguments: tuple[float, ...], until: float
    ) -> None:
        self.formula, self.arguments, self.length = formula, arguments, math.inf
        self.function, self.until = formula(math, *arguments), until

    def at(self, t: float, e: float) -> float:
        value: float = self.function(max(t, 0.0))
        return value

    def bound(self) -> float:
        try:  # every clocked shape is monotone, so its largest value is at one of its ends
            return max(abs(self.at(0.0, SLACK)), abs(self.at(self.until, SLACK)))
        except OverflowError:
            return math.inf

    def array(self, times: Times) -> Any:
        return self.formula(times.xp, *self.arguments)(times.xp.clip(times.t, 0.0, None))


class StaircasePiece(Piece):
    """Constant levels: level i + 1 begins at joins[i]. Endless; a `SpanPiece` cuts it."""

    __slots__ = ("joins", "levels")

    def __init__(self, levels: tuple[float, ...], joins: Sequence[float]) -> None:
        self.levels, self.joins, self.length = levels, joins, math.inf

    def at(self, t: float, e: float) -> float:
        return self.levels[bisect.bisect_right(self.joins, t + e)]

    def bound(self) -> float:
        return max(map(abs, self.levels))

    def array(self, times: Times) -> Any:
        joins, levels = times.table(self.joins), times.table(self.levels)
        return levels[times.xp.searchsorted(joins, times.t + times.e, side="right")]


class CustomPiece(Piece):
    """A Python function of t, called once per time. Endless; a `SpanPiece` cuts it."""

    __slots__ = ("function", "name")

    def __init__(self, function: Callable[[float], float], name: str) -> None:
        self.function, self.name, self.length = function, name, math.inf

    def at(self, t: float, e: float) -> float:
        t = max(t, 0.0)
        whole = round(t)
        # Rule 5: within the slack of a whole step the function is called with the step itself,
        # so that `t // 30` changes at the intended step.
        snapped: float = whole if abs(t - whole) <= abs(e) else t
        argument = snapped if e > 0 or snapped == 0 else math.nextafter(snapped, 0.0)
        return as_number(self.function(argument), f"the value of {self.name} at {argument}")

    def bound(self) -> float:
        return 0.0  # unknown: each value is checked when the function is called

    def array(self, times: Times) -> Any:
        t, e = times.t.ravel().tolist(), (times.t * 0 + times.e).ravel().tolist()
        values = [self.at(*pair) for pair in zip(t, e, strict=True)]
        return times.table(values).reshape(times.t.shape)


class SpanPiece(Piece):
    """A piece that is cut, or holds its last value, at a given length."""

    __slots__ = ("piece",)

    def __init__(self, piece: Piece, length: float) -> None:
        self.piece, self.length = piece, length

    def at(self, t: float, e: float) -> float:
        length = self.length
        return self.piece.at(length, -slack(length)) if t + e >= length else self.piece.at(t, e)

    def bound(self) -> float:
        return self.piece.bound()

    def array(self, times: Times) -> Any:
        if math.isinf(self.length):
            return self.piece.array(times)
        final = self.piece.at(self.length, -slack(self.length))
        readers = (self.piece.array, lambda times: times.full(final))
        return times.select([self.length], readers, [0.0, 0.0])


class SequencePiece(Piece):
    """Parts one after the other; each owns the times from its start to the next part's start."""

    __slots__ = ("joins", "parts", "starts")

    def __init__(self, parts: Sequence[Piece], starts: Sequence[float]) -> None:
        self.parts, self.starts, self.joins = tuple(parts), tuple(starts), tuple(starts[1:])
        self.length = self.starts[-1] + self.parts[-1].length

    def at(self, t: float, e: float) -> float:
        i = bisect.bisect_right(self.joins, t + e)
        return self.parts[i].at(t - self.starts[i], e)

    def segments(self, offset: float, factor: float) -> list[Segment]:
        flat: list[Segment] = []
        for start, part in zip(self.starts, self.parts, strict=True):
            # The previous part's last segment holds its end value; this part replaces it.
            while flat and flat[-1][0] >= offset + start:
                flat.pop()
            flat += part.segments(offset + start, factor)
        return flat

    def bound(self) -> float:
        return max(part.bound() for part in self.parts)

    def array(self, times: Times) -> Any:
        return times.select(self.joins, [part.array for part in self.parts], self.starts)


class ScalePiece(Piece):
    """A piece times a number."""

    __slots__ = ("factor", "piece")

    def __init__(self, factor: float, piece: Piece) -> None:
        self.factor, self.piece, self.length = factor, piece, piece.length

    def at(self, t: float, e: float) -> float:
        return self.factor * self.piece.at(t, e)

    def segments(self, offset: float, factor: float) -> list[Segment]:
        if factor == 1:  # else k1 * (k2 * v) would become (k1 * k2) * v, which rounds differently
            return self.piece.segments(offset, self.factor)
        return super().segments(offset, factor)

    def bound(self) -> float:
        return abs(self.factor) * self.piece.bound()

    def array(self, times: Times) -> Any:
        return self.factor * self.piece.array(times)


class ProductPiece(Piece):
    """Two pieces multiplied point by point; the shorter one holds its last value."""

    __slots__ = ("left", "right")

    def __init__(self, left: Piece, right: Piece, length: float) -> None:
        self.left, self.right, self.length = left, right, length

    def at(self, t: float, e: float) -> float:
        return self.left.at(t, e) * self.right.at(t, e)

    def bound(self) -> float:
        return self.left.bound() * self.right.bound()

    def array(self, times: Times) -> Any:
        return self.left.array(times) * self.right.array(times)


class ClipPiece(Piece):
    """A piece limited to a range."""

    __slots__ = ("high", "low", "piece")

    def __init__(self, piece: Piece, low: float | None, high: float | None) -> None:
        self.piece, self.low, self.high, self.length = piece, low, high, piece.length

    def at(self, t: float, e: float) -> float:
        value = self.piece.at(t, e)
        if self.low is not None and value < self.low:
            return self.low
        if self.high is not None and value > self.high:
            return self.high
        return value

    def bound(self) -> float:
        bound = self.piece.bound()
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return (
            max(abs(min(max(b, low), high)) for b in (-bound, bound)) if bound < math.inf else bound
        )

    def array(self, times: Times) -> Any:
        return times.xp.clip(self.piece.array(times), self.low, self.high)


class RescalePiece(Piece):
    """low (1 - a) + high a for a piece a."""

    __slots__ = ("high", "low", "piece")

    def __init__(self, piece: Piece, low: float, high: float) -> None:
        self.piece, self.low, self.high, self.length = piece, low, high, piece.length

    def at(self, t: float, e: float) -> float:
        share = self.piece.at(t, e)
        return self.low * (1 - share) + self.high * share

    def bound(self) -> float:
        return (abs(self.low) + abs(self.high)) * (1 + self.piece.bound())

    def array(self, times: Times) -> Any:
        share = self.piece.array(times)
        return self.low * (1 - share) + self.high * share


class ReversedPiece(Piece):
    """A piece run backwards: at t, the left limit at length - t."""

    __slots__ = ("piece",)

    def __init__(self, piece: Piece) -> None:
        self.piece, self.length = piece, piece.length

    def at(self, t: float, e: float) -> float:
        # length - t has the rounding error of the length, however small t is.
        e = math.copysign(max(abs(e), slack(self.length)), -e)
        return self.piece.at(self.length - t, e)

    def bound(self) -> float:
        return self.piece.bound()

    def array(self, times: Times) -> Any:
        return self.piece.array(times.flipped(self.length))


def geometric_sum(growth: float, n: Any, expm1: Callable[[Any], Any]) -> Any:
    """Return 1 + growth + ... + growth^(n-1) for a number or an array n.

    The usual closed form loses all digits where growth is near 1; expm1 keeps them there.
    """
    if growth == 1:
        return n
    if abs(growth - 1) > 1e-3:
        return (growth**n - 1) / (growth - 1)
    return expm1(n * math.log(growth)) / (growth - 1)


class RepeatPiece(Piece):
    """Cycles: cycle i is the first one stretched by grow^i and multiplied by decay^i."""

    __slots__ = ("cycle", "decay", "grow", "last", "piece", "top")
    top: float
    last: float
    grow: float
    decay: float
    cycle: float

    def __init__(self, piece: Piece, n: int | None, grow: float, decay: float) -> None:
        self.piece, self.cycle, self.grow, self.decay = piece, piece.length, grow, decay
        self.last = math.inf if n is None else float(n - 1)
        self.length = math.inf if n is None else piece.length * geometric_sum(grow, n, math.expm1)
        # The last cycle whose length, relative to the first, is far from a float's limits.
        self.top = self.last
        if grow != 1:
            self.top = min(self.last, float(math.floor(600 / abs(math.log(grow)))))

    def at(self, t: float, e: float) -> float:
        cycle, grow = self.cycle, self.grow
        if self.length <= SLACK:  # rule 4: a piece of no length owns no time
            return self._height(self.last) * self.piece.at(cycle, -abs(e))
        owned = min(max(t + e, 0.0), self.length)
        if grow == 1:
            i = min(math.floor(owned / cycle), self.last)
            return self._height(i) * self.piece.at(t - i * cycle, e)
        i = self._index(owned / cycle)
        stretch = grow**i
        start = cycle * geometric_sum(grow, i, math.expm1)
        return self._height(i) * self.piece.at((t - start) / stretch, e / stretch)

    def _height(self, i: float) -> float:
        height: float = self.decay**i
        return height

    def _index(self, cycles: float) -> float:
        """Return the index of the cycle that owns a time, given in lengths of the first cycle."""
        growth = cycles * (self.grow - 1)
        if growth <= -1:
            return self.top
        # log1p, since 1 + growth has no correct digits where grow is next to 1.
        i = float(math.floor(math.log1p(growth) / math.log(self.grow)))
        i = min(max(i, 0.0), self.top)
        # The logarithm may be off by a rounding; the sum decides. It takes one correction each
        # way, as for arrays, and not a loop, which never ends from 2^53 on, where i + 1 == i.
        if i < self.top and geometric_sum(self.grow, i + 1, math.expm1) <= cycles:
            i += 1
        if i > 0 and geometric_sum(self.grow, i, math.expm1) > cycles:
            i -= 1
        return i

    def bound(self) -> float:
        return max(1.0, self._height(self.last)) * self.piece.bound()

    def array(self, times: Times) -> Any:
        xp, t, cycle, grow = times.xp, times.t, self.cycle, self.grow
        if self.length <= SLACK:
            return times.full(self.at(0.0, SLACK))
        owned = xp.clip(t + times.e, 0.0, self.length)
        last = self.top
        if grow == 1:
            i = xp.clip(xp.floor(owned / cycle), 0.0, last)
            local, e = t - i * cycle, times.e
        else:
            cycles = owned / cycle
            growth = xp.clip(cycles * (grow - 1), math.ulp(1.0) - 1, None)
            i = xp.clip(xp.floor(xp.log1p(growth) / math.log(grow)), 0.0, last)
            late = geometric_sum(grow, i + 1, xp.expm1) <= cycles
            i = xp.clip(xp.where(late, i + 1, i), 0.0, last)
            early = geometric_sum(grow, i, xp.expm1) > cycles
            i = xp.clip(xp.where(early, i - 1, i), 0.0, last)
            stretch = grow**i
            local = (t - cycle * geometric_sum(grow, i, xp.expm1)) / stretch
            e = times.e / stretch
        return self.decay**i * self.piece.array(Times(local, e, xp, False))
