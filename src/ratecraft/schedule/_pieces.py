"""What a schedule becomes when it is resolved: pieces that read a value at a time.

Every piece starts at t = 0, has a ``length`` (may be endless), holds its value at 0 before its
start and its left limit after its end. Two readers, one rule:

* ``at(t, e)`` for a number,
* ``array(times)`` for many, on numpy, torch or any array with the same namespace.

``e`` is the *signed slack*. Who owns time t is decided at t + e: with e > 0 (1e-9 steps or
more) a join belongs to the later part even when rounding put t a hair before it; with e < 0 the
same reading gives the left limit. So one method serves reading, holding and reversal.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from ratecraft.errors import ScheduleError

from ._duration import LONGEST, as_number
from ._formulas import Function

SLACK: Final = 1e-9
RELATIVE_SLACK: Final = 2.0**-50  # 4 ulp of a number at the top of its binade
SLACK_LIMIT: Final = SLACK / RELATIVE_SLACK


def slack(t: float) -> float:
    """Return how far before a join time ``t`` may lie and still belong to the later part."""
    return SLACK if t < SLACK_LIMIT else t * RELATIVE_SLACK


class Times:
    """Many times to read at: the array, its namespace, its slack, and whether it is sorted.

    A sorted numpy array is cut into slices, one per part; any other array is read whole by
    every part and the parts are chosen elementwise, so nothing leaves its device.
    """

    __slots__ = ("e", "ordered", "t", "xp")

    def __init__(self, t: Any, e: Any, xp: Any, ordered: bool) -> None:
        self.t, self.e, self.xp, self.ordered = t, e, xp, ordered

    @classmethod
    def of(cls, t: Any, xp: Any) -> Times:
        """Wrap a float64 array, with the slack that each of its times has; before 0 it is 0."""
        on_host = xp.__name__ == "numpy"  # elsewhere a question about values may stop a device
        if on_host and xp.isnan(t).any():
            raise ScheduleError("a curve has no value at nan; give step numbers")
        if on_host and t.ndim == 1 and t.size and bool((t[1:] >= t[:-1]).all()):
            if t[0] < 0 or t[-1] > LONGEST:
                t = xp.clip(t, 0.0, LONGEST)
            e = SLACK if t[-1] < SLACK_LIMIT else xp.maximum(t * RELATIVE_SLACK, SLACK)
            return cls(t, e, xp, True)
        t = xp.clip(t, 0.0, LONGEST)
        return cls(t, xp.clip(t * RELATIVE_SLACK, SLACK, None), xp, False)

    def _slice(self, low: int, high: int, start: float) -> Times:
        e = self.e if isinstance(self.e, float) else self.e[low:high]
        t = self.t[low:high]
        return Times(t - start if start else t, e, self.xp, True)

    def full(self, value: float) -> Any:
        """Return the same number for every time."""
        return self.xp.full_like(self.t, value)

    def table(self, values: Sequence[float]) -> Any:
        """Return the numbers as an array beside the times."""
        return self.xp.asarray(values, dtype=self.xp.float64, device=self.t.device)

    def select(
        self, joins: Sequence[float], readers: Sequence[Reader], starts: Sequence[float]
    ) -> Any:
        """Read each time by its owner: reader i owns joins[i-1] <= t + e < joins[i].

        Reader i is given times relative to starts[i].
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
        """Return the times as seen from the other end, so that left limits become readings."""
        e = self.t * 0 + self.e
        wide = self.xp.sign(e) * self.xp.clip(self.xp.abs(e), slack(length), None)
        return Times(length - self.t, -wide, self.xp, False)


Reader = Callable[[Times], Any]
Segment = tuple[float, Callable[[float], float]]


class Piece:
    """A resolved schedule: a length, and a value at each time."""

    __slots__ = ("length",)
    length: float

    def at(self, t: float, e: float) -> float:
        """Return the value at time ``t``, owned as ``t + e`` says."""
        raise NotImplementedError

    def array(self, times: Times) -> Any:
        """Return the values at many times."""
        raise NotImplementedError

    def segments(self, offset: float, factor: float) -> list[Segment]:
        """Return this piece as (start, function of t) pairs, for the fast reading of a number.

        ``offset`` is where the piece starts; its values are multiplied by ``factor``.
        """
        at = self.at
        return [(offset, lambda t: factor * at(t - offset, slack(t)))]

    def bound(self) -> float:
        """Return a number that no value exceeds in size; infinite where one would overflow."""
        raise NotImplementedError


class Constant(Piece):
    """The same value, always."""

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


class Ramp(Piece):
    """A function of x = t / length between two ends, which are exact."""

    __slots__ = ("arguments", "first", "formula", "function", "last")

    def __init__(
        self, formula: Callable[..., Function], length: float, ends: tuple[float, ...], exact: bool
    ) -> None:
        self.formula, self.length, self.arguments = formula, length, (length, *ends)
        self.function = formula(math, *self.arguments)
        # Some shapes end beside their ends: a cosine of two half cycles, a tanh.
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


class Clocked(Piece):
    """A function of t itself. Endless; a `Span` cuts it."""

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
        try:  # every clocked shape is monotone, so one of its two ends is its largest value
            return max(abs(self.at(0.0, SLACK)), abs(self.at(self.until, SLACK)))
        except OverflowError:
            return math.inf

    def array(self, times: Times) -> Any:
        return self.formula(times.xp, *self.arguments)(times.xp.clip(times.t, 0.0, None))


class Staircase(Piece):
    """Levels: number i + 1 begins at the i-th join. Endless; a `Span` cuts it."""

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


class Custom(Piece):
    """A Python function of t, called once per time. Endless; a `Span` cuts it."""

    __slots__ = ("function", "name")

    def __init__(self, function: Callable[[float], float], name: str) -> None:
        self.function, self.name, self.length = function, name, math.inf

    def at(self, t: float, e: float) -> float:
        t = max(t, 0.0)
        whole = round(t)
        # Rule 5: where rounding put t a hair beside a step, the function is asked for the
        # step itself, so that `t // 30` changes where it was meant to.
        near: float = whole if abs(t - whole) <= abs(e) else t
        asked = near if e > 0 or near == 0 else math.nextafter(near, 0.0)
        return as_number(self.function(asked), f"the value of {self.name} at {asked}")

    def bound(self) -> float:
        return 0.0  # not known beforehand: each value is checked as it is read

    def array(self, times: Times) -> Any:
        t, e = times.t.ravel().tolist(), (times.t * 0 + times.e).ravel().tolist()
        values = [self.at(*pair) for pair in zip(t, e, strict=True)]
        return times.table(values).reshape(times.t.shape)


class Span(Piece):
    """A piece cut, or held, at a length of its own."""

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
        readers = (self.piece.array, lambda late: late.full(final))
        return times.select([self.length], readers, [0.0, 0.0])


class Sequential(Piece):
    """Parts one after the other; each owns its start up to the next one's start."""

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
            while flat and flat[-1][0] >= offset + start:  # what the part before holds after it
                flat.pop()
            flat += part.segments(offset + start, factor)
        return flat

    def bound(self) -> float:
        return max(part.bound() for part in self.parts)

    def array(self, times: Times) -> Any:
        return times.select(self.joins, [part.array for part in self.parts], self.starts)


class Scale(Piece):
    """A piece times a number."""

    __slots__ = ("factor", "piece")

    def __init__(self, factor: float, piece: Piece) -> None:
        self.factor, self.piece, self.length = factor, piece, piece.length

    def at(self, t: float, e: float) -> float:
        return self.factor * self.piece.at(t, e)

    def segments(self, offset: float, factor: float) -> list[Segment]:
        if factor == 1:  # else k1 * (k2 * v) would become (k1 * k2) * v, a rounding apart
            return self.piece.segments(offset, self.factor)
        return super().segments(offset, factor)

    def bound(self) -> float:
        return abs(self.factor) * self.piece.bound()

    def array(self, times: Times) -> Any:
        return self.factor * self.piece.array(times)


class Product(Piece):
    """Two pieces multiplied point by point; the shorter one holds."""

    __slots__ = ("left", "right")

    def __init__(self, left: Piece, right: Piece, length: float) -> None:
        self.left, self.right, self.length = left, right, length

    def at(self, t: float, e: float) -> float:
        return self.left.at(t, e) * self.right.at(t, e)

    def bound(self) -> float:
        return self.left.bound() * self.right.bound()

    def array(self, times: Times) -> Any:
        return self.left.array(times) * self.right.array(times)


class Clip(Piece):
    """A piece kept within limits."""

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


class Mix(Piece):
    """low (1 - a) + high a: a piece read as the share of the way from low to high."""

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


class Reversed(Piece):
    """A piece read backwards: the left limit at length - t."""

    __slots__ = ("piece",)

    def __init__(self, piece: Piece) -> None:
        self.piece, self.length = piece, piece.length

    def at(self, t: float, e: float) -> float:
        # length - t is as coarse as the length is, however near 0 t may be.
        e = math.copysign(max(abs(e), slack(self.length)), -e)
        return self.piece.at(self.length - t, e)

    def bound(self) -> float:
        return self.piece.bound()

    def array(self, times: Times) -> Any:
        return self.piece.array(times.flipped(self.length))


def geometric_sum(growth: float, n: Any, expm1: Callable[[Any], Any]) -> Any:
    """Return 1 + growth + ... + growth^(n-1) for a number or an array n.

    The closed form loses its digits where growth is near 1; there expm1 keeps them.
    """
    if growth == 1:
        return n
    if abs(growth - 1) > 1e-3:
        return (growth**n - 1) / (growth - 1)
    return expm1(n * math.log(growth)) / (growth - 1)


class Repeat(Piece):
    """Cycle i: the first cycle stretched by grow^i and multiplied by decay^i."""

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
        # The last cycle that time can tell from its neighbours: beyond it grow^i is no float.
        self.top = self.last
        if grow != 1:
            self.top = min(self.last, float(math.floor(600 / abs(math.log(grow)))))

    def at(self, t: float, e: float) -> float:
        cycle, grow = self.cycle, self.grow
        if self.length <= SLACK:  # rule 4: nobody owns a time in here
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
        """Return which cycle owns a time given in lengths of the first cycle."""
        growth = cycles * (self.grow - 1)
        if growth <= -1:
            return self.top
        # log1p, since 1 + growth has lost all its digits where grow is next to 1.
        i = float(math.floor(math.log1p(growth) / math.log(self.grow)))
        i = min(max(i, 0.0), self.top)
        # The logarithm is right to a rounding; the sum itself decides. One correction each way, as
        # for arrays: from 2^53 on i + 1 is i, and a loop would not end.
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
