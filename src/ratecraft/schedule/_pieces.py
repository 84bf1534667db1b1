"""Pieces: resolved schedules, which map a time or an array of times to values.

A piece starts at t = 0 and has a ``length``, which may be infinite. Before its start it holds its
value at 0, after its end its left limit. It is evaluated by ``at(t, e)`` for one time and by
``array(times)`` for many, on numpy, torch or any array with the same namespace.

``e`` is the *signed slack*: t + e decides which part owns time t. With e > 0 (1e-9 steps or more)
a join belongs to the later part even where rounding put t just before it; with e < 0 the result
is the left limit. So the same function evaluates a piece forwards, past its end and backwards.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final

from ratecraft.errors import ScheduleError

from ._duration import MAX_DURATION, as_number
from ._formulas import Function
from ._value import Value

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
        device = {"device": self.t.device} if hasattr(self.t, "device") else {}  # not numpy 1.26
        return self.xp.asarray(values, dtype=self.xp.float64, **device)

    def select(
        self, joins: Sequence[float], readers: Sequence[Reader], starts: Sequence[float]
    ) -> Any:
        """Evaluate each time with the part that owns it: part i, joins[i-1] <= t + e < joins[i].

        A reader is a function of the times since the part's start.
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
                low, high = edges[i], edges[i + 1]
                out[low:high] = readers[i](self._slice(low, high, starts[i]))
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


class Piece(Value):
    """A resolved schedule: a length, and a value at each time."""

    length: float
    bound: float  # of all absolute values; infinite if a value would overflow
    at: Callable[[float, float], float]
    array: Callable[[Times], Any]
    fast_segments: Callable[[float, float], list[Segment]] | None = None

    def segments(self, offset: float, factor: float) -> list[Segment]:
        """Return (start, fast function of t) pairs of this piece at an offset, times a factor."""
        if self.fast_segments is not None:
            return self.fast_segments(offset, factor)
        at = self.at
        return [(offset, lambda t: factor * at(t - offset, slack(t)))]


def constant(value: float, length: float) -> Piece:
    """Return the same value at all times."""

    def segments(offset: float, factor: float) -> list[Segment]:
        scaled = factor * value
        return [(offset, lambda t: scaled)]

    return Piece(length, abs(value), lambda t, e: value, lambda times: times.full(value), segments)


def ramp(
    formula: Callable[..., Function], length: float, ends: tuple[float, ...], exact: bool
) -> Piece:
    """Return a function of x = t / length with exact values at both ends."""
    function = formula(math, length, *ends)
    # A cosine of two half cycles and a tanh do not reach their nominal end values.
    first, last = ends[:2] if exact else (function(0.0), function(length))

    def at(t: float, e: float) -> Any:
        if t >= length:
            return last
        return function(t) if t > 0 else first

    def segments(offset: float, factor: float) -> list[Segment]:
        scaled_first, scaled_last = factor * first, factor * last

        def scaled(t: float) -> Any:
            t -= offset
            return factor * function(t) if t > 0 else scaled_first

        def plain(t: float) -> Any:
            return function(t) if t > 0 else first

        inside = plain if offset == 0 and factor == 1 else scaled
        return [(offset, inside), (offset + length, lambda t: scaled_last)]

    def array(times: Times) -> Any:
        xp, t = times.xp, times.t
        values = formula(xp, length, *ends)
        if times.ordered:
            low, high = xp.searchsorted(t, 0.0, "right"), xp.searchsorted(t, length)
            if low == 0 and high == t.size:
                return values(t)
            out = xp.empty_like(t)
            out[:low], out[high:] = first, last
            out[low:high] = values(t[low:high])
            return out
        inside = values(xp.clip(t, 0.0, length))
        return xp.where(t >= length, last, xp.where(t <= 0, first, inside))

    return Piece(length, abs(ends[0]) + abs(ends[1]), at, array, segments)


def clocked(formula: Callable[..., Function], arguments: tuple[float, ...], until: float) -> Piece:
    """Return a function of t itself. Endless; `span` cuts it."""
    function = formula(math, *arguments)
    try:  # every clocked shape is monotone, so its largest value is at one of its ends
        bound = max(abs(function(0.0)), abs(function(until)))
    except OverflowError:
        bound = math.inf

    def array(times: Times) -> Any:
        return formula(times.xp, *arguments)(times.xp.clip(times.t, 0.0, None))

    return Piece(math.inf, bound, lambda t, e: function(max(t, 0.0)), array)


def staircase(levels: tuple[float, ...], joins: Sequence[float]) -> Piece:
    """Return constant levels: level i + 1 begins at joins[i]. Endless; `span` cuts it."""

    def at(t: float, e: float) -> float:
        return levels[bisect_right(joins, t + e)]

    def array(times: Times) -> Any:
        i = times.xp.searchsorted(times.table(joins), times.t + times.e, side="right")
        return times.table(levels)[i]

    return Piece(math.inf, max(map(abs, levels)), at, array)


def custom(function: Callable[[float], float], name: str) -> Piece:
    """Return a Python function of t, called once per time. Endless; `span` cuts it."""

    def at(t: float, e: float) -> float:
        t = max(t, 0.0)
        whole = round(t)
        # Rule 5: within the slack of a whole step the function is called with the step itself,
        # so that `t // 30` changes at the intended step.
        snapped: float = whole if abs(t - whole) <= abs(e) else t
        argument = snapped if e > 0 or snapped == 0 else math.nextafter(snapped, 0.0)
        return as_number(function(argument), f"the value of {name} at {argument}")

    def array(times: Times) -> Any:
        t, e = times.t.ravel().tolist(), (times.t * 0 + times.e).ravel().tolist()
        return times.table(list(map(at, t, e))).reshape(times.t.shape)

    bound = 0.0  # unknown: each value is checked when the function is called
    return Piece(math.inf, bound, at, array)


def span(piece: Piece, length: float) -> Piece:
    """Return a piece that is cut, or holds its last value, at a given length."""
    before_end = -slack(length)

    def at(t: float, e: float) -> float:
        return piece.at(length, before_end) if t + e >= length else piece.at(t, e)

    def array(times: Times) -> Any:
        if math.isinf(length):
            return piece.array(times)
        final = piece.at(length, before_end)
        return times.select([length], (piece.array, lambda later: later.full(final)), [0.0, 0.0])

    return Piece(length, piece.bound, at, array)


def sequence(parts: Sequence[Piece]) -> Piece:
    """Return parts one after the other; each owns the times from its start to the next start."""
    from fractions import Fraction

    exact = accumulate((Fraction(part.length) for part in parts[:-1]), initial=Fraction(0))
    starts = [float(start) for start in exact]
    joins = starts[1:]

    def at(t: float, e: float) -> float:
        i = bisect_right(joins, t + e)
        return parts[i].at(t - starts[i], e)

    def segments(offset: float, factor: float) -> list[Segment]:
        flat: list[Segment] = []
        for start, part in zip(starts, parts, strict=True):
            # The previous part's last segment holds its end value; this part replaces it.
            while flat and flat[-1][0] >= offset + start:
                flat.pop()
            flat += part.segments(offset + start, factor)
        return flat

    def array(times: Times) -> Any:
        return times.select(joins, [part.array for part in parts], starts)

    bound = max(part.bound for part in parts)
    return Piece(starts[-1] + parts[-1].length, bound, at, array, segments)


def scale(factor: float, piece: Piece) -> Piece:
    """Return a piece times a number."""
    at = piece.at

    def segments(offset: float, outer: float) -> list[Segment]:
        if outer == 1:  # else outer * (factor * v) would become (outer * factor) * v
            return piece.segments(offset, factor)
        return [(offset, lambda t: outer * (factor * at(t - offset, slack(t))))]

    return Piece(
        piece.length,
        abs(factor) * piece.bound,
        lambda t, e: factor * at(t, e),
        lambda times: factor * piece.array(times),
        segments,
    )


def product(left: Piece, right: Piece, length: float) -> Piece:
    """Return two pieces multiplied point by point; the shorter one holds its last value."""
    left_at, right_at = left.at, right.at
    return Piece(
        length,
        left.bound * right.bound,
        lambda t, e: left_at(t, e) * right_at(t, e),
        lambda times: left.array(times) * right.array(times),
    )


def clip(piece: Piece, low: float, high: float) -> Piece:
    """Return a piece limited to a range."""
    bound = piece.bound  # an infinite one stays: clipping does not undo an overflow
    if bound < math.inf:
        bound = max(abs(min(max(b, low), high)) for b in (-bound, bound))
    value_at = piece.at

    def at(t: float, e: float) -> float:
        value = value_at(t, e)
        if value < low:
            return low
        return high if value > high else value

    def array(times: Times) -> Any:
        return times.xp.clip(piece.array(times), low, high)

    return Piece(piece.length, bound, at, array)


def rescale(piece: Piece, low: float, high: float) -> Piece:
    """Return low (1 - a) + high a for a piece a."""
    share_at = piece.at

    def at(t: float, e: float) -> float:
        share = share_at(t, e)
        return low * (1 - share) + high * share

    def array(times: Times) -> Any:
        share = piece.array(times)
        return low * (1 - share) + high * share

    return Piece(piece.length, (abs(low) + abs(high)) * (1 + piece.bound), at, array)


def backwards(piece: Piece) -> Piece:
    """Return a piece run backwards: at t, the left limit at length - t."""
    length, forward_at = piece.length, piece.at

    def at(t: float, e: float) -> float:
        # length - t has the rounding error of the length, however small t is.
        return forward_at(length - t, math.copysign(max(abs(e), slack(length)), -e))

    return Piece(length, piece.bound, at, lambda times: piece.array(times.flipped(length)))


def geometric_sum(growth: float, n: Any, expm1: Callable[[Any], Any]) -> Any:
    """Return 1 + growth + ... + growth^(n-1) for a number or an array n.

    The usual closed form loses all digits where growth is near 1; expm1 keeps them there.
    """
    if growth == 1:
        return n
    if abs(growth - 1) > 1e-3:
        return (growth**n - 1) / (growth - 1)
    return expm1(n * math.log(growth)) / (growth - 1)


def repeat(piece: Piece, n: int | None, grow: float, decay: float) -> Piece:
    """Return cycles: cycle i is the first one stretched by grow^i and multiplied by decay^i."""
    cycle = piece.length
    last = math.inf if n is None else float(n - 1)
    length = math.inf if n is None else cycle * geometric_sum(grow, n, math.expm1)
    # The last cycle whose length, relative to the first, is far from a float's limits.
    top = last if grow == 1 else min(last, float(math.floor(600 / abs(math.log(grow)))))

    def at(t: float, e: float) -> Any:
        if length <= SLACK:  # rule 4: a piece of no length owns no time
            return decay**last * piece.at(cycle, -abs(e))
        cycles = min(max(t + e, 0.0), length) / cycle
        if grow == 1:
            i = min(math.floor(cycles), last)
            return decay**i * piece.at(t - i * cycle, e)
        i = _cycle_index(cycles, grow, top)
        stretch = grow**i
        start = cycle * geometric_sum(grow, i, math.expm1)
        return decay**i * piece.at((t - start) / stretch, e / stretch)

    def array(times: Times) -> Any:
        xp, t, e = times.xp, times.t, times.e
        if length <= SLACK:
            return times.full(at(0.0, SLACK))
        cycles = xp.clip(t + e, 0.0, length) / cycle
        if grow == 1:
            i = xp.clip(xp.floor(cycles), 0.0, last)
            return decay**i * piece.array(Times(t - i * cycle, e, xp, False))
        growth = xp.clip(cycles * (grow - 1), math.ulp(1.0) - 1, None)
        i = xp.clip(xp.floor(xp.log1p(growth) / math.log(grow)), 0.0, top)
        late = geometric_sum(grow, i + 1, xp.expm1) <= cycles
        i = xp.clip(xp.where(late, i + 1, i), 0.0, top)
        early = geometric_sum(grow, i, xp.expm1) > cycles
        i = xp.clip(xp.where(early, i - 1, i), 0.0, top)
        stretch = grow**i
        start = cycle * geometric_sum(grow, i, xp.expm1)
        return decay**i * piece.array(Times((t - start) / stretch, e / stretch, xp, False))

    return Piece(length, max(1.0, decay**last) * piece.bound, at, array)


def _cycle_index(cycles: float, grow: float, top: float) -> float:
    """Return the index of the cycle that owns a time, given in lengths of the first cycle."""
    growth = cycles * (grow - 1)
    if growth <= -1:
        return top
    # log1p, since 1 + growth has no correct digits where grow is next to 1.
    i = min(max(float(math.floor(math.log1p(growth) / math.log(grow))), 0.0), top)
    # The logarithm may be off by a rounding; the sum decides. It takes one correction each
    # way, as for arrays, and not a loop, which never ends from 2^53 on, where i + 1 == i.
    if i < top and geometric_sum(grow, i + 1, math.expm1) <= cycles:
        i += 1
    if i > 0 and geometric_sum(grow, i, math.expm1) > cycles:
        i -= 1
    return i
