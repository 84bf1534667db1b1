"""The `Schedule` class and the nodes that combine schedules; leaves are in ``_leaves.py``.

A `Schedule` is immutable, hashable and equal by structure. Resolving passes two lengths down the
tree: the *scope* (100 percent) and the *room* (the length that an open part fills). Only the
root, a repeat and an over set a new scope. Rule numbers in comments are those of
docs/semantics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any, ClassVar, NoReturn

from ratecraft._keywords import explain_arguments
from ratecraft.errors import ScheduleError

from . import _pieces as pieces
from ._curve import Curve
from ._duration import MAX_DURATION, Duration, Horizon, Length, as_duration, as_number, number_text
from ._pieces import Piece


class Schedule:
    """A number as a function of training time: a learning rate, or a factor of one.

    Build schedules with the functions of `ratecraft` (``warmup``, ``cosine``, ...) and combine
    them with ``.then``, ``k *``, ``*``, ``.repeat``, ``.clip``, ``.rescale``, ``.over`` and
    ``.reversed``. ``repr`` is Python code that builds an equal schedule, and `ratecraft.parse`
    reads it.

    >>> from ratecraft import cosine, warmup
    >>> schedule = 0.1 * warmup(100).then(cosine(1, 0))
    >>> schedule
    0.1 * warmup(100).then(cosine(1, 0))
    >>> schedule.resolve(total_steps=1000)(50)
    0.05
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that numpy.float64(3) * schedule calls __rmul__
    __hash__: Callable[[], int]

    def _is_open(self) -> bool:
        """Return whether a part has no length and fills the rest of its span."""
        raise NotImplementedError

    def _names_percent(self) -> bool:
        """Return whether this schedule has a ``percent`` of the enclosing scope."""
        raise NotImplementedError

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        raise NotImplementedError

    _binds_tighter: ClassVar[bool] = True  # than `*` and `.`: its text needs no brackets

    def _bracketed(self) -> str:
        return repr(self) if self._binds_tighter else f"({self!r})"

    @explain_arguments("resolve() takes the length by name: write resolve(total_steps=1000)")
    def resolve(
        self,
        *,
        total_steps: object = None,
        steps_per_epoch: float | None = None,
        samples_per_step: float | None = None,
        tokens_per_step: float | None = None,
    ) -> Curve:
        """Return the curve of this schedule over a run.

        Args:
            total_steps: length of the run: steps, or a duration such as ``epochs(90)``. ``None``
                is an endless run, allowed if no part needs the end. ``tokens(3e9)`` or
                ``samples(n)`` select that clock: t then counts the tokens (samples) consumed.
            steps_per_epoch: steps per epoch; needed if a length is in epochs.
            samples_per_step: samples per step; needed if a length is in samples.
            tokens_per_step: tokens per step; needed if a length is in tokens.

        Raises:
            ScheduleError: the size of a unit is missing, the parts do not fit into the run, or a
                part needs ``total_steps=``.

        >>> from ratecraft import cosine, epochs, warmup
        >>> schedule = warmup(epochs(1)).then(cosine(1, 0))
        >>> schedule.resolve(total_steps=epochs(10), steps_per_epoch=100)(50)
        0.5
        """
        clock, length = "steps", None
        if total_steps is not None:
            length = as_duration(total_steps, "total_steps=")
            if length.percent:
                raise ScheduleError(
                    f"total_steps={length}: the run itself cannot be a percent of the run"
                )
            if length in (Duration(tokens=length.tokens), Duration(samples=length.samples)):
                clock = "tokens" if length.tokens else "samples" if length.samples else "steps"
        horizon = Horizon.of(
            clock,
            steps_per_epoch=steps_per_epoch,
            samples_per_step=samples_per_step,
            tokens_per_step=tokens_per_step,
        )
        end = math.inf
        if length is not None:
            end = horizon.measure(length, math.inf, "total_steps=")
            if end <= pieces.SLACK:  # rule 5: step 0 would be past the end
                raise ScheduleError(f"total_steps={length}: a run needs at least one step")
        piece = self._build(horizon, end, end)
        if not math.isfinite(piece.bound()):
            raise ScheduleError(f"{self!r} overflows: its values are not finite numbers")
        return Curve(self, piece, end, horizon)

    def then(self, *schedules: Schedule) -> Schedule:
        """Return this schedule followed by others; a join belongs to the later part.

        Args:
            schedules: the schedules that follow, in order. At most one part of the sequence may
                have no length; it fills the rest of the run.

        Raises:
            ScheduleError: two or more parts have no length.

        >>> from ratecraft import constant, cooldown, percent, warmup
        >>> warmup(500).then(constant(1)).then(cooldown(percent(20)))
        warmup(500).then(constant(1)).then(cooldown(percent(20)))
        """
        parts: list[Schedule] = []
        for part in (self, *schedules):
            if not isinstance(part, Schedule):
                raise TypeError(f".then() takes schedules, not {part!r} ({type(part).__name__})")
            parts.extend(part.parts if isinstance(part, Sequence) else [part])
        endless = [part for part in parts if part._is_open()]
        if len(endless) > 1:
            raise ScheduleError(
                "at most one part of a sequence may have no length; here these have none: "
                f"{', '.join(map(repr, endless))}; give all but one a length, for example "
                "over=percent(30)"
            )
        return Sequence(tuple(parts)) if len(parts) > 1 else self

    def repeat(self, n: int | None = None, *, grow: float = 1, decay: float = 1) -> Schedule:
        """Return ``n`` cycles of this schedule, or as many as the run takes.

        Cycle i is the first cycle stretched by grow^i and multiplied by decay^i.

        Args:
            n: number of cycles; ``None`` repeats until the run ends, and needs a cycle with a
                length.
            grow: ratio of the lengths of successive cycles (SGDR's T_mult).
            decay: ratio of the heights of successive cycles.

        Raises:
            ScheduleError: ``n``, ``grow`` or ``decay`` is out of range, or the cycle has no length
                where it needs one.

        >>> from ratecraft import cosine, constant
        >>> cosine(1, 0, over=10).repeat(grow=2).resolve(total_steps=70)(10)
        1.0
        >>> constant(0.1, over=30).repeat(decay=0.1).resolve()(60)
        0.0010000000000000002
        """
        return Repeat(self, n, grow, decay)

    def clip(self, low: float | None = None, high: float | None = None) -> Schedule:
        """Return this schedule limited to ``low`` .. ``high``; binds tighter than ``*``.

        Args:
            low: lowest value; default no limit.
            high: highest value; default no limit.

        Raises:
            ScheduleError: both limits are missing, or ``low`` is above ``high``.

        >>> from ratecraft import warmup
        >>> (3 * warmup(4)).clip(high=2)
        (3 * warmup(4)).clip(high=2)
        """
        return Clip(self, low, high)

    def rescale(self, low: float, high: float) -> Schedule:
        """Return ``low`` (1 - a) + ``high`` a for this schedule a: 0 maps to low, 1 to high.

        Args:
            low: the value where this schedule is 0.
            high: the value where it is 1.

        >>> from ratecraft import warmup
        >>> warmup(4).rescale(0.5, 1).resolve()(2)
        0.75
        """
        return Rescale(self, low, high)

    def over(self, length: Length) -> Schedule:
        """Return this schedule resolved over its own length; it is cut or held, never stretched.

        ``percent`` inside it is of ``length``. A shape without a length takes ``length`` as its
        ``over=``.

        Args:
            length: steps or a duration; a ``percent`` is of the enclosing scope.

        >>> from ratecraft import constant, cooldown, percent
        >>> constant(1).then(cooldown(percent(20))).over(50)
        constant(1).then(cooldown(percent(20))).over(50)
        """
        return Over(self, as_duration(length, ".over()"))

    def reversed(self) -> Schedule:
        """Return this schedule run backwards over its length.

        >>> from ratecraft import warmup
        >>> warmup(4).reversed().resolve()(1)
        0.75
        """
        return Reversed(self)

    def plot(self, total_steps: object = None, **settings: Any) -> Any:
        """Plot this schedule with matplotlib and return the axes.

        Args:
            total_steps: length of the run; default a run of nominal length.
            settings: keyword arguments of `ratecraft.report.plot_schedule`, such as
                ``steps_per_epoch=``, ``ax=`` and ``log=``.

        >>> from ratecraft import cosine
        >>> axes = cosine(1, 0).plot(total_steps=100)
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('step', 'learning rate')
        """
        # The only import of a higher package: a schedule draws itself in a notebook.
        from ratecraft.report import plot_schedule

        return plot_schedule(self, total_steps, **settings)

    def _repr_svg_(self) -> str | None:
        """Return the SVG chart for notebooks; None if the schedule fits no nominal run."""
        from ratecraft.report import schedule_svg

        try:
            return schedule_svg(self)
        except ScheduleError:
            return None

    def __mul__(self, other: object) -> Schedule:
        return Product(self, other) if isinstance(other, Schedule) else self.__rmul__(other)

    def __rmul__(self, other: object) -> Schedule:
        return Scale(as_number(other, "the factor of a schedule"), self)

    def _no_operator(self, _: object) -> NoReturn:
        raise TypeError(
            "schedules have no operator but '*': to join them write a.then(b); to multiply use "
            "'*', to limit or shift values .clip() or .rescale()"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __truediv__ = __rshift__ = __rrshift__ = _no_operator
    __or__ = __ror__ = __and__ = __matmul__ = _no_operator


def set_fields(node: Schedule, **fields: object) -> None:
    """Set fields of a frozen node in its ``__post_init__``."""
    for name, value in fields.items():
        object.__setattr__(node, name, value)


def _arguments(*values: object) -> str:
    return ", ".join(str(v) for v in values if v is not None)


@dataclass(frozen=True, slots=True, repr=False)
class Sequence(Schedule):
    """Parts one after the other; flat, with at most one open part. Built by `Schedule.then`."""

    parts: tuple[Schedule, ...]

    def _is_open(self) -> bool:
        return any(part._is_open() for part in self.parts)

    def _names_percent(self) -> bool:
        return any(part._names_percent() for part in self.parts)

    def layout(self, horizon: Horizon, scope: float, room: float) -> list[Piece]:
        """Return the parts as pieces; the open one is as long as the others leave room for."""
        built = {
            i: part._build(horizon, scope, math.nan)
            for i, part in enumerate(self.parts)
            if not part._is_open()
        }
        fixed = math.fsum(piece.length for piece in built.values())
        for i, part in enumerate(self.parts):
            if i in built:
                continue
            left = room - fixed
            if -pieces.slack(fixed) <= left < 0:
                left = 0.0  # rule 5: a rounding error is not a missing step
            if left < 0:
                raise ScheduleError(
                    f"no room: {number_text(left)} steps left for {part!r}, since the other "
                    f"parts take {number_text(fixed)} of {number_text(room)}"
                )
            built[i] = part._build(horizon, scope, left)
            if math.isinf(built[i].length) and i < len(self.parts) - 1:
                raise ScheduleError(
                    f"{self.parts[i + 1]!r} follows {part!r}, which has no end: "
                    "give the latter over=, or resolve with total_steps="
                )
        return [built[i] for i in range(len(self.parts))]

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        parts = self.layout(horizon, scope, room)
        nonempty = [piece for piece in parts if piece.length > 0]
        if not nonempty:  # a sequence of no length has the end value of its last part
            return parts[-1]
        exact = accumulate((Fraction(p.length) for p in nonempty[:-1]), initial=Fraction(0))
        starts = [float(start) for start in exact]
        return nonempty[0] if len(nonempty) == 1 else pieces.SequencePiece(nonempty, starts)

    def __repr__(self) -> str:
        first, *rest = self.parts
        return first._bracketed() + "".join(f".then({part!r})" for part in rest)


class Wrapped(Schedule):
    """Base class of the nodes with one child; open if the child is."""

    __slots__ = ()
    schedule: Schedule

    def _is_open(self) -> bool:
        return self.schedule._is_open()

    def _names_percent(self) -> bool:
        return self.schedule._names_percent()


@dataclass(frozen=True, slots=True, repr=False)
class Scale(Wrapped):
    """A schedule times a number."""

    factor: float
    schedule: Schedule
    _binds_tighter: ClassVar[bool] = False

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        return pieces.ScalePiece(self.factor, self.schedule._build(horizon, scope, room))

    def __repr__(self) -> str:
        return f"{number_text(self.factor)} * {self.schedule._bracketed()}"


@dataclass(frozen=True, slots=True, repr=False)
class Product(Schedule):
    """Two schedules multiplied point by point; both start at 0."""

    left: Schedule
    right: Schedule
    _binds_tighter: ClassVar[bool] = False

    def _is_open(self) -> bool:
        return self.left._is_open() or self.right._is_open()

    def _names_percent(self) -> bool:
        return self.left._names_percent() or self.right._names_percent()

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        left = self.left._build(horizon, scope, room)
        right = self.right._build(horizon, scope, room)
        length = room if self._is_open() else max(left.length, right.length)
        product: Piece = pieces.ProductPiece(left, right, length)
        # Rule 16: an open factor fills the room; a closed factor longer than that is cut.
        cut = max(left.length, right.length) > length
        return pieces.SpanPiece(product, room) if cut else product

    def __repr__(self) -> str:
        # Python parses `2 * a * b` as (2 * a) * b, so only the right factor needs brackets.
        return f"{self.left!r} * {self.right._bracketed()}"


@dataclass(frozen=True, slots=True, repr=False)
class Repeat(Wrapped):
    """Cycles of a schedule, each stretched and scaled relative to the previous one."""

    schedule: Schedule
    n: int | None = None
    grow: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        grow, decay = as_number(self.grow, "grow="), as_number(self.decay, "decay=")
        set_fields(self, grow=grow, decay=decay)
        if self.n is not None:
            if isinstance(self.n, bool) or not hasattr(self.n, "__index__"):
                raise TypeError(f".repeat(n): n must be an int, not {self.n!r}")
            set_fields(self, n=self.n.__index__())
            if self.n < 1:
                raise ScheduleError(f".repeat({self.n}): needs at least one cycle")
        if not 1 / MAX_DURATION <= grow <= MAX_DURATION or decay < 0:
            raise ScheduleError(
                f".repeat(): grow={number_text(grow)} must be > 0 (1e-18 to 1e18) and "
                f"decay={number_text(decay)} must be >= 0"
            )
        body_open = self.schedule._is_open()
        if self.n is None:
            if body_open:
                raise ScheduleError(
                    f"{self.schedule!r} has no length, so it cannot be repeated endlessly; "
                    "write the number of cycles, .repeat(4), or give it over="
                )
            if grow < 1 or decay > 1:
                raise ScheduleError(
                    ".repeat() without n needs grow >= 1 and decay <= 1, since it never ends; "
                    f"here grow={number_text(grow)}, decay={number_text(decay)}"
                )
        if not body_open and self.schedule._names_percent():
            raise ScheduleError(
                f"{self.schedule!r} in a .repeat(): percent is of the cycle, so it cannot set "
                "the cycle's length; leave over= out, or put .over(percent()) after the .repeat()"
            )

    def _is_open(self) -> bool:
        return self.n is None or self.schedule._is_open()

    def _names_percent(self) -> bool:
        return False  # rule 14: percent inside is of the cycle

    def _cycles(self) -> float:
        """Return the length of all cycles, in lengths of the first."""
        if self.n is None:
            return math.inf
        try:
            _ = self.decay**self.n
            return float(pieces.geometric_sum(self.grow, self.n, math.expm1))
        except OverflowError:
            raise ScheduleError(
                f"{self!r}: the last cycle is too long or too high for a float"
            ) from None

    def first_cycle(self, horizon: Horizon, room: float) -> Piece:
        """Return the first cycle as a piece."""
        if not self.schedule._is_open():
            # A closed body has no percent, so it needs neither scope nor room.
            return self.schedule._build(horizon, math.nan, math.nan)
        if math.isinf(room):
            raise ScheduleError(
                f"{self!r} divides the run into cycles and needs total_steps=, or over= for the "
                "cycle"
            )
        cycle = room / self._cycles()
        return self.schedule._build(horizon, cycle, cycle)

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        cycles, body = self._cycles(), self.first_cycle(horizon, room)
        if self.n is None and body.length <= pieces.SLACK:
            raise ScheduleError(f"{self!r}: a cycle of length 0 cannot be repeated endlessly")
        length = room if self._is_open() else body.length * cycles
        if math.isfinite(body.length) and self.n is not None and length > MAX_DURATION:
            raise ScheduleError(f"{self!r}: its cycles take more than 1e18 steps together")
        cycles_piece = pieces.RepeatPiece(body, self.n, self.grow, self.decay)
        return pieces.SpanPiece(cycles_piece, length)

    def __repr__(self) -> str:
        grow = None if self.grow == 1 else f"grow={number_text(self.grow)}"
        decay = None if self.decay == 1 else f"decay={number_text(self.decay)}"
        return f"{self.schedule._bracketed()}.repeat({_arguments(self.n, grow, decay)})"


@dataclass(frozen=True, slots=True, repr=False)
class Clip(Wrapped):
    """A schedule limited to a range."""

    schedule: Schedule
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if (value := getattr(self, name)) is not None:
                set_fields(self, **{name: as_number(value, f".clip({name}=)")})
        if self.low is None and self.high is None:
            raise ScheduleError(".clip() needs low=, high= or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ScheduleError(
                f".clip(low={number_text(self.low)}, high={number_text(self.high)}): "
                "low must not be above high"
            )

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        return pieces.ClipPiece(self.schedule._build(horizon, scope, room), self.low, self.high)

    def __repr__(self) -> str:
        low = None if self.low is None else f"low={number_text(self.low)}"
        high = None if self.high is None else f"high={number_text(self.high)}"
        return f"{self.schedule._bracketed()}.clip({_arguments(low, high)})"


@dataclass(frozen=True, slots=True, repr=False)
class Rescale(Wrapped):
    """low (1 - a) + high a for a schedule a."""

    schedule: Schedule
    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = as_number(self.low, ".rescale(low)"), as_number(self.high, ".rescale(high)")
        set_fields(self, low=low, high=high)

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        return pieces.RescalePiece(self.schedule._build(horizon, scope, room), self.low, self.high)

    def __repr__(self) -> str:
        limits = _arguments(number_text(self.low), number_text(self.high))
        return f"{self.schedule._bracketed()}.rescale({limits})"


@dataclass(frozen=True, slots=True, repr=False)
class Over(Wrapped):
    """A schedule resolved over its own length; see `Schedule.over`."""

    schedule: Schedule
    length: Duration

    def _is_open(self) -> bool:
        return False

    def _names_percent(self) -> bool:
        return self.length.percent != 0

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        length = horizon.measure(self.length, scope, ".over()")
        return pieces.SpanPiece(self.schedule._build(horizon, length, length), length)

    def __repr__(self) -> str:
        return f"{self.schedule._bracketed()}.over({self.length})"


@dataclass(frozen=True, slots=True, repr=False)
class Reversed(Wrapped):
    """A schedule run backwards over its length."""

    schedule: Schedule

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        piece = self.schedule._build(horizon, scope, room)
        if math.isinf(piece.length):
            raise ScheduleError(
                f"{self!r} has no end to start from; it needs total_steps= or over="
            )
        return pieces.SpanPiece(pieces.ReversedPiece(piece), piece.length)  # holds its left limit

    def __repr__(self) -> str:
        return f"{self.schedule._bracketed()}.reversed()"
