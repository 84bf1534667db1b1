"""A resolved schedule: a pure function of the step number."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ratecraft.errors import ScheduleError

from ._duration import CLOCK_NAMES, LONGEST, Horizon, number_text
from ._pieces import Piece, Times, slack

if TYPE_CHECKING:
    from ._nodes import Schedule


CHUNK: Final = 2**16  # steps at a time, so that a long run needs no long array


class Difference(NamedTuple):
    """StepOptions two curves differ.

    Attributes:
        first: the first step at which they differ; ``None`` if they never do.
        largest: the largest gap between them.
        at: the step that it is at; ``None`` if there is no gap.
    """

    first: int | None
    largest: float
    at: int | None


class Curve:
    """The values of a schedule over a run whose units are known; made by `Schedule.resolve`.

    Step k reads the value at t = k; before 0 the value at 0 holds, past the end the last value
    (the left limit at ``total_steps``) does. No evaluation depends on an earlier one, and step 10^9
    costs what step 0 costs.

    Attributes:
        schedule: the schedule this came from.
        length: where the run ends, in steps (infinite when no length was given).
        horizon: what an epoch, a sample and a token weigh in steps.

    >>> from ratecraft import cosine, warmup
    >>> c = (2 * warmup(4).then(cosine(1, 0))).resolve(total_steps=8)
    >>> c(2), c(4), c(100)
    (1.0, 2.0, 0.0)
    >>> len(c), [round(v, 3) for v in c]
    (8, [0.0, 0.5, 1.0, 1.5, 2.0, 1.707, 1.0, 0.293])
    """

    __slots__ = (
        "__dict__",  # which torch's LambdaLR saves of a function that is an object
        "_end",
        "_final",
        "_joins",
        "_piece",
        "_readers",
        "horizon",
        "length",
        "schedule",
    )

    def __init__(self, schedule: Schedule, piece: Piece, length: float, horizon: Horizon) -> None:
        self.schedule, self.length, self.horizon = schedule, length, horizon
        self._piece = piece
        end = min(length, LONGEST)
        self._end, self._final = end - slack(end), piece.at(end, -slack(end))
        segments = piece.segments(0.0, 1.0)
        self._joins = tuple(start - slack(start) for start, _ in segments[1:])
        self._readers = tuple(reader for _, reader in segments)

    def __call__(self, t: float) -> float:
        """Return the value at time ``t``: a step number, or any real time between two."""
        t = t + 0.0  # an int would be converted at each comparison below
        if not t < self._end:  # nan is caught here, where it costs the other times nothing
            if math.isnan(t):
                raise ScheduleError("a curve has no value at nan; give a step number")
            return self._final
        if t < 0.0:  # noqa: PLR1730 - max() would cost a quarter of this whole reading
            t = 0.0
        return self._readers[bisect_right(self._joins, t)](t)

    def cursor(self) -> Callable[[float], float]:
        """Return a function that reads this curve, fastest where it read last.

        It gives the same values, bit for bit, for floats of 0 or more, in any order.
        """
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
        """Return the left limit at ``t``: what the curve comes from where a part begins.

        >>> from ratecraft import levels
        >>> c = levels([(10, 1), (10, 0.1)]).resolve()
        >>> c.left(10), c(10)
        (1.0, 0.1)
        """
        return self._piece.at(t, -slack(t)) if 0 < t < self._end else self(t)

    @property
    def natural_length(self) -> float:
        """StepOptions long the schedule itself is, in steps, whether the run cuts it or not."""
        return self._piece.length

    @property
    def bound(self) -> float:
        """A number that no value exceeds in size; of Python functions nothing is known: 0."""
        return self._piece.bound()

    def __len__(self) -> int:
        """Return the number of steps of the run."""
        self._needs_steps("len()")
        return math.ceil(self.length - slack(self.length))

    def __iter__(self) -> Iterator[float]:
        return map(self, range(len(self)))

    def __repr__(self) -> str:
        length = "endless" if math.isinf(self.length) else number_text(self.length)
        return f"<Curve of {self.schedule!r}, {length} {CLOCK_NAMES[self.horizon.clock]}s>"

    def _repr_svg_(self) -> str:
        """Return what a notebook shows."""
        from ratecraft.report import curve_svg

        return curve_svg(self)

    def values(self, steps: Any = None) -> Any:
        """Return the values at many times as an array: the same formulas, at array speed.

        Args:
            steps: an int64 or float64 array of step numbers (numpy, torch, or any array with
                the same namespace functions; the result stays on its device), or a sequence of
                numbers. Default: every step of the run.

        Raises:
            TypeError: an array of float32 or smaller, which cannot hold 2**24 + 1.
            ScheduleError: no ``steps`` and no ``total_steps=`` either.

        >>> from ratecraft import linear
        >>> linear(1, 0).resolve(total_steps=4).values()
        array([1.  , 0.75, 0.5 , 0.25])
        """
        if steps is None:
            self._needs_steps("values() without steps")
            xp: Any = _numpy()
            times = xp.arange(len(self), dtype=xp.float64)
        else:
            xp, times = _as_times(steps)
        packed = Times.of(times, xp)
        if math.isinf(self.length):
            return self._piece.array(packed)
        final, total_steps = self._final, self.length
        return packed.select(
            [total_steps], [self._piece.array, lambda late: late.full(final)], [0.0, 0.0]
        )

    def first_below(self, value: float) -> int | None:
        """Return the first step whose lr is below ``value``; None if there is none.

        >>> from ratecraft import linear
        >>> linear(1, 0).resolve(total_steps=4).first_below(0.6)
        2
        """
        for start in range(0, len(self), CHUNK):
            below = self._chunk(start, len(self)) < value
            if below.any():
                return start + int(below.argmax())
        return None

    def sum(self) -> float:
        """Return the sum of all values: the area under the curve, in lr times steps.

        >>> from ratecraft import linear
        >>> linear(1, 0).resolve(total_steps=4).sum()
        2.5
        """
        steps = len(self)
        return math.fsum(float(self._chunk(k, steps).sum()) for k in range(0, steps, CHUNK))

    def diff(self, other: Curve) -> Difference:
        """Return where this curve and another first differ, and where they differ most.

        Args:
            other: the other curve; after the end of the shorter one its last value holds.

        Raises:
            ScheduleError: a curve is endless, or counts tokens or samples.

        >>> from ratecraft import constant, linear
        >>> linear(1, 0).resolve(total_steps=4).diff(constant(1).resolve(total_steps=4))
        Difference(first=1, largest=0.75, at=3)
        """
        steps = max(len(self), len(other))
        first, largest, at = None, 0.0, None
        for start in range(0, steps, CHUNK):
            gap = abs(self._chunk(start, steps) - other._chunk(start, steps))
            if first is None and gap.any():
                first = start + int((gap > 0).argmax())
            if gap.max() > largest:
                largest, at = float(gap.max()), start + int(gap.argmax())
        return Difference(first, largest, at)

    def _chunk(self, start: int, steps: int) -> Any:
        """Return the values of up to CHUNK steps from ``start`` on, of a run of ``steps``."""
        return self.values(_numpy().arange(start, min(start + CHUNK, steps)))

    def _needs_steps(self, what: str) -> None:
        if math.isinf(self.length):
            raise ScheduleError(f"{what} needs total_steps=: this curve is endless")
        if self.horizon.clock != "steps":
            unit = CLOCK_NAMES[self.horizon.clock]
            raise ScheduleError(
                f"{what} is not defined on the {unit} clock, where the number of steps depends "
                f"on the batches; write values(positions), positions in {unit}s"
            )


def _numpy() -> Any:
    import numpy

    return numpy


def _as_times(steps: Any) -> tuple[Any, Any]:
    """Return the namespace of an array of step numbers, and the array as float64."""
    if hasattr(steps, "__array_namespace__"):
        xp = steps.__array_namespace__()
    elif hasattr(steps, "dtype") and not isinstance(steps, int | float):
        xp = sys.modules[type(steps).__module__.partition(".")[0]]
    else:
        xp = _numpy()
        steps = xp.asarray(steps)
        if steps.dtype.kind not in "iuf":
            raise TypeError(f"step numbers must be numbers, not {steps.dtype}")
    if "float" in str(steps.dtype) and steps.dtype != xp.float64:
        raise TypeError(
            f"step numbers of {steps.dtype} cannot hold 2**24 + 1; give int64 or float64"
        )
    if "bool" in str(steps.dtype) or "complex" in str(steps.dtype):
        raise TypeError(f"step numbers must be int64 or float64, not {steps.dtype}")
    return xp, xp.asarray(steps, dtype=xp.float64)
