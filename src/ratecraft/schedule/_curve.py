"""A resolved schedule: a pure function of the step number."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from ratecraft.errors import ScheduleError

from ._duration import CLOCK_NAMES, MAX_DURATION, Horizon, number_text
from ._pieces import Piece, Times, slack, span

CHUNK_STEPS: Final = 2**16  # evaluated at a time, so that a long run needs no long array


class Difference(NamedTuple):
    """The difference of two curves.

    Attributes:
        first: the first step at which they differ; ``None`` if they are equal.
        largest: the largest absolute difference.
        at: the step with the largest difference; ``None`` if the curves are equal.
    """

    first: int | None
    largest: float
    at: int | None


class Curve:
    """The values of a schedule over a run; created by `Schedule.resolve`.

    Step k has the value at t = k. Before 0 the curve holds its value at 0, past the end its left
    limit at the end. No evaluation depends on an earlier one, and step 10^9 costs as much as
    step 0.

    Attributes:
        schedule: the schedule that was resolved.
        length: length of the run, in steps; infinite for an endless run.
        natural_length: length of the schedule in steps, even where the run is shorter.
        horizon: the size of an epoch, a sample and a token, in steps.
        bound: an upper bound of the absolute values; a Python function counts as 0.

    >>> c = (2 * warmup(4).then(cosine(1, 0))).resolve(total_steps=8)
    >>> c(2), c(4), c(100)
    (1.0, 2.0, 0.0)
    >>> len(c), [round(v, 3) for v in c]
    (8, [0.0, 0.5, 1.0, 1.5, 2.0, 1.707, 1.0, 0.293])
    """

    # torch's LambdaLR saves the __dict__ of a callable object, which is empty here.
    __slots__ = (
        *("__dict__", "_end", "_final", "_joins", "_piece", "_readers"),
        *("bound", "horizon", "length", "natural_length", "schedule"),
    )

    def __init__(self, schedule: Any, piece: Piece, length: float, horizon: Horizon) -> None:
        # A Schedule; `_nodes.py`, where that class is, imports this module.
        self.schedule, self.length, self.horizon = schedule, length, horizon
        self._piece, self.natural_length, self.bound = piece, piece.length, piece.bound
        end = min(length, MAX_DURATION)
        self._end, self._final = end - slack(end), piece.at(end, -slack(end))
        segments = piece.segments(0.0, 1.0)
        self._joins = tuple(start - slack(start) for start, _ in segments[1:])
        self._readers = tuple(reader for _, reader in segments)

    def __call__(self, t: float) -> float:
        """Return the value at time ``t``, a step number or any real number."""
        t = t + 0.0  # an int would be converted in each comparison below
        if not t < self._end:  # also true for nan, so that the common path has no nan check
            if math.isnan(t):
                raise ScheduleError("a curve has no value at nan; give a step number")
            return self._final
        if t < 0.0:  # noqa: PLR1730 - max() would add a quarter to the time of this call
            t = 0.0
        return self._readers[bisect_right(self._joins, t)](t)

    def cursor(self) -> Callable[[float], float]:
        """Return a function of t with the same values, faster for floats >= 0 that are near."""
        joins, readers, end = self._joins, self._readers, self._end
        since, until, reader = 0.0, -1.0, readers[0]

        def read(t: float) -> float:
            nonlocal since, until, reader
            if since <= t < until:
                return reader(t)
            if not 0 <= t < end:
                return self(t)
            i = bisect_right(joins, t)
            since = joins[i - 1] if i else 0.0
            until = min(joins[i], end) if i < len(joins) else end
            reader = readers[i]
            return reader(t)

        return read

    def left(self, t: float) -> float:
        """Return the left limit at ``t``; it differs from the value only where a part begins.

        >>> c = staircase([1, 0.1], at=[10]).resolve()
        >>> c.left(10), c(10)
        (1.0, 0.1)
        """
        return self._piece.at(t, -slack(t)) if 0 < t < self._end else self(t)

    def __len__(self) -> int:
        self._needs_steps("len()")
        return math.ceil(self.length - slack(self.length))

    def __iter__(self) -> Iterator[float]:
        return map(self, range(len(self)))

    def __repr__(self) -> str:
        length = "endless" if math.isinf(self.length) else number_text(self.length)
        return f"<Curve of {self.schedule}, {length} {CLOCK_NAMES[self.horizon.clock]}s>"

    def _repr_svg_(self) -> str:
        from ._picture import schedule_svg

        return schedule_svg(self.schedule, self)

    def values(self, steps: Any = None) -> Any:
        """Return the values at many times as a float64 array.

        Args:
            steps: numbers, or an int64 or float64 array of numpy, torch or a similar library, on
                whose device the result stays. Default: every step of the run.

        Raises:
            TypeError: the array is float32 or smaller, which cannot represent 2**24 + 1.
            ScheduleError: the curve is endless and ``steps`` is not given.

        >>> linear(1, 0).resolve(total_steps=4).values()
        array([1.  , 0.75, 0.5 , 0.25])
        """
        if steps is None:
            import numpy

            self._needs_steps("values() without steps")
            steps = numpy.arange(len(self), dtype=float)
        xp, times = _as_times(steps)
        return span(self._piece, self.length).array(Times.of(times, xp))

    def first_below(self, value: float) -> int | None:
        """Return the first step with a value below ``value``, or None.

        >>> linear(1, 0).resolve(total_steps=4).first_below(0.6)
        2
        """
        for start, values in self._chunks(len(self)):
            below = values < value
            if below.any():
                return start + int(below.argmax())
        return None

    def sum(self) -> float:
        """Return the sum of the values at all steps: the area under the curve.

        >>> linear(1, 0).resolve(total_steps=4).sum()
        2.5
        """
        return math.fsum(float(values.sum()) for _, values in self._chunks(len(self)))

    def diff(self, other: Curve) -> Difference:
        """Return the first and the largest difference; the shorter curve holds its last value.

        Raises:
            ScheduleError: a curve is endless, or on the token or sample clock.

        >>> linear(1, 0).resolve(total_steps=4).diff(constant(1).resolve(total_steps=4))
        Difference(first=1, largest=0.75, at=3)
        """
        steps = max(len(self), len(other))
        first, largest, at = None, 0.0, None
        pairs = zip(self._chunks(steps), other._chunks(steps), strict=True)
        for (start, values), (_, others) in pairs:
            gap = abs(values - others)
            if first is None and gap.any():
                first = start + int((gap > 0).argmax())
            if gap.max() > largest:
                largest, at = float(gap.max()), start + int(gap.argmax())
        return Difference(first, largest, at)

    def _chunks(self, steps: int) -> Iterator[tuple[int, Any]]:
        """Yield the values of the first ``steps`` steps as arrays, each with its first step."""
        import numpy

        for start in range(0, steps, CHUNK_STEPS):
            yield start, self.values(numpy.arange(start, min(start + CHUNK_STEPS, steps)))

    def _needs_steps(self, call: str) -> None:
        if math.isinf(self.length):
            raise ScheduleError(f"{call} needs total_steps=: this curve is endless")
        if self.horizon.clock != "steps":
            unit = CLOCK_NAMES[self.horizon.clock]
            raise ScheduleError(
                f"{call} is not defined on the {unit} clock, where the number of steps depends "
                f"on the batches; write values(positions) with positions in {unit}s"
            )


def _as_times(steps: Any) -> tuple[Any, Any]:
    """Return the namespace of an array of step numbers, and the array as float64."""
    if hasattr(steps, "__array_namespace__"):
        xp = steps.__array_namespace__()
    elif hasattr(steps, "dtype") and not isinstance(steps, int | float):
        xp = sys.modules[type(steps).__module__.partition(".")[0]]
    else:
        import numpy as xp

        steps = xp.asarray(steps)
    dtype = str(steps.dtype)
    if "int" not in dtype and "float" not in dtype:
        raise TypeError(f"step numbers must be int64 or float64, not {dtype}")
    if "float" in dtype and steps.dtype != xp.float64:
        fix = "give int64 or float64"
        raise TypeError(f"step numbers of {dtype} cannot hold 2**24 + 1; {fix}")
    return xp, xp.asarray(steps, dtype=xp.float64)
