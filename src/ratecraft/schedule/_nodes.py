"""The `Schedule` class and the nodes that combine schedules; leaves are in ``_leaves.py``.

Resolving passes two lengths down the tree: the *scope* (100 percent) and the *room* (the length
that an open part fills). Only the root, a repeat and an over set a new scope. Rule numbers in
comments are those of docs/semantics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ratecraft._keywords import explain_arguments
from ratecraft.errors import ScheduleError

from . import _pieces as pieces
from ._base import Node, Text, call_text, join_text
from ._curve import Curve
from ._duration import MAX_DURATION, Duration, Horizon, Length, as_duration, as_number, number_text
from ._pieces import SLACK, Piece, slack


class Schedule(Node):
    """A number as a function of training time: a learning rate, or a factor of one.

    Functions such as ``warmup`` and ``cosine`` build schedules; their methods and ``*`` combine
    them. Equal schedules have the same ``repr``; ``str`` keeps calls such as ``wsd(500)``.
    `ratecraft.parse` reads both.

    >>> schedule = 0.1 * wsd(100, shape="linear")
    >>> print(schedule)
    0.1 * wsd(100, shape="linear")
    >>> schedule
    0.1 * warmup(100).then(constant(1)).then(cooldown(percent(20)))
    """

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
            total_steps: length of the run: steps, or a duration such as ``epochs(90)``; None is
                an endless run, allowed if no part needs the end. With ``tokens(3e9)`` or
                ``samples(n)`` t counts the tokens or samples consumed.
            steps_per_epoch: steps per epoch; needed if a length is in epochs.
            samples_per_step: samples per step; needed if a length is in samples.
            tokens_per_step: tokens per step; needed if a length is in tokens.

        Raises:
            ScheduleError: the parts do not fit into the run, or an argument is missing.

        >>> schedule = warmup(epochs(1)).then(cosine(1, 0))
        >>> schedule.resolve(total_steps=epochs(10), steps_per_epoch=100)(50)
        0.5
        """
        sizes = {"epochs": steps_per_epoch, "samples": samples_per_step, "tokens": tokens_per_step}
        horizon, end = Horizon.of_run(total_steps, sizes)
        if end <= SLACK:  # rule 5: step 0 would be past the end
            raise ScheduleError(f"total_steps={total_steps}: a run needs at least one step")
        piece = self._build(horizon, end, end)
        if not math.isfinite(piece.bound):
            raise ScheduleError(f"{self!r} overflows: its values are not finite numbers")
        return Curve(self, piece, end, horizon)

    def then(self, *schedules: Schedule) -> Schedule:
        """Return this schedule followed by others; a join belongs to the later part.

        At most one part may have no length (else a ScheduleError); it fills the rest of the run.

        >>> warmup(500).then(constant(1)).then(cooldown(percent(20)))
        warmup(500).then(constant(1)).then(cooldown(percent(20)))
        """
        if not schedules:
            return self
        operands, parts = (self, *schedules), list[Schedule]()
        for part in operands:
            if not isinstance(part, Schedule):
                raise TypeError(f".then() takes schedules, not {part!r} ({type(part).__name__})")
            parts.extend(part.parts if isinstance(part, Then) else [part])
        endless = [part for part in parts if part._is_open()]
        if len(endless) > 1:
            raise ScheduleError(
                "at most one part of a sequence may have no length; here these have none: "
                f"{', '.join(map(repr, endless))}; give all but one a length, for example "
                "over=percent(30)"
            )
        joined = Then(tuple(parts))
        lost = any(isinstance(part, Then) and part._written for part in operands)
        return joined._with_text(join_text(operands, str)) if lost else joined

    def repeat(self, n: int | None = None, *, grow: float = 1, decay: float = 1) -> Schedule:
        """Return ``n`` cycles of this schedule, or as many as the run takes.

        Args:
            n: number of cycles; ``None`` repeats a cycle that has a length until the run ends.
            grow: > 0; cycle i is the first one stretched by grow^i (SGDR's T_mult).
            decay: >= 0; cycle i is the first one multiplied by decay^i.

        >>> cosine(1, 0, over=10).repeat(grow=2).resolve(total_steps=70)(10)
        1.0
        """
        if n is not None and (isinstance(n, bool) or not hasattr(n, "__index__")):
            raise TypeError(f".repeat(n): n must be an int, not {n!r}")
        n = None if n is None else n.__index__()
        return Repeat(self, n, as_number(grow, "grow="), as_number(decay, "decay="))

    def clip(self, low: float | None = None, high: float | None = None) -> Schedule:
        """Return this schedule limited to ``low`` .. ``high``, if given; binds tighter than ``*``.

        >>> (3 * warmup(4)).clip(high=2)
        (3 * warmup(4)).clip(high=2)
        """
        if low is None and high is None:
            raise ScheduleError(".clip() needs low=, high= or both")
        low = None if low is None else as_number(low, ".clip(low=)")
        high = None if high is None else as_number(high, ".clip(high=)")
        if low is not None and high is not None and low > high:
            limits = call_text(".clip", low=low, high=high)
            raise ScheduleError(f"{limits}: low must not be above high")
        return Clip(self, low, high)

    def rescale(self, low: float, high: float) -> Schedule:
        """Return ``low`` (1 - a) + ``high`` a for this schedule a: 0 maps to low, 1 to high.

        >>> warmup(4).rescale(0.5, 1).resolve()(2)
        0.75
        """
        return Rescale(self, as_number(low, ".rescale(low)"), as_number(high, ".rescale(high)"))

    def over(self, length: Length) -> Schedule:
        """Return this schedule resolved over its own length; it is cut or held, never stretched.

        ``percent`` inside it is of ``length``. A shape without a length takes it as its ``over=``.

        >>> constant(1).then(cooldown(percent(20))).over(50)
        constant(1).then(cooldown(percent(20))).over(50)
        """
        return Over(self, as_duration(length, ".over()"))

    def reversed(self) -> Schedule:
        """Return this schedule run backwards over its length.

        >>> warmup(4).reversed().resolve()(1)
        0.75
        """
        return Reversed(self)

    def __mul__(self, other: object) -> Schedule:
        return Product(self, other) if isinstance(other, Schedule) else self.__rmul__(other)

    def __rmul__(self, other: object) -> Schedule:
        return Scale(self, as_number(other, "the factor of a schedule"))

    def plot(self, total_steps: object = None, **settings: Any) -> Any:
        """Plot this schedule with matplotlib and return the axes.

        Args:
            total_steps: length of the run; by default the schedule's own, or an assumed one.
            settings: those of `ratecraft.report.plot_schedule`, such as ``ax=`` and ``log=``.

        >>> axes = cosine(1, 0).plot(total_steps=100)
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('step', 'learning rate')
        """
        from ._picture import plot

        return plot({str(self): self}, total_steps, **settings)

    def _repr_svg_(self) -> str | None:
        """Return the SVG chart for notebooks; None if the schedule fits no nominal run."""
        from ._picture import schedule_svg

        try:
            return schedule_svg(self)
        except ScheduleError:
            return None


class Then(Schedule):
    """Parts one after the other; flat, with at most one open part. Built by `Schedule.then`."""

    parts: tuple[Schedule, ...]

    def _children(self) -> tuple[Schedule, ...]:
        return self.parts

    def layout(self, horizon: Horizon, scope: float, room: float) -> list[Piece]:
        """Return the parts as pieces; the open one is as long as the others leave room for."""
        is_open = [part._is_open() for part in self.parts]
        closed = [p._build(horizon, scope, math.nan) for p in self.parts if not p._is_open()]
        if not any(is_open):
            return closed
        at, fixed = is_open.index(True), math.fsum(piece.length for piece in closed)
        part, left = self.parts[at], room - fixed
        if -slack(fixed) <= left < 0:
            left = 0.0  # rule 5: a rounding error is not a missing step
        if left < 0:
            reason = f"since the other parts take {number_text(fixed)} of {number_text(room)}"
            raise ScheduleError(f"no room: {number_text(left)} steps left for {part!r}, {reason}")
        piece = part._build(horizon, scope, left)
        if math.isinf(piece.length) and at < len(closed):
            fix = "give the latter over=, or resolve with total_steps="
            raise ScheduleError(f"{self.parts[at + 1]!r} follows {part!r}, which has no end: {fix}")
        return [*closed[:at], piece, *closed[at:]]

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        parts = self.layout(horizon, scope, room)
        nonempty = [piece for piece in parts if piece.length > 0]
        if len(nonempty) > 1:
            return pieces.sequence(nonempty)
        # A sequence of no length has the end value of its last part.
        return nonempty[0] if nonempty else parts[-1]

    def _format(self, text: Text) -> str:
        return join_text(self.parts, text)


class Product(Schedule):
    """Two schedules multiplied point by point; both start at 0."""

    left: Schedule
    right: Schedule
    _binds_tighter: ClassVar[bool] = False

    def _children(self) -> tuple[Schedule, ...]:
        return self.left, self.right

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        left, right = (factor._build(horizon, scope, room) for factor in self._children())
        longer = max(left.length, right.length)
        length = room if self._is_open() else longer
        product = pieces.product(left, right, length)
        # Rule 16: an open factor fills the room; a closed factor longer than that is cut.
        return pieces.span(product, room) if longer > length else product

    def _format(self, text: Text) -> str:
        # Python parses `2 * a * b` as (2 * a) * b, so only the right factor needs brackets.
        return f"{text(self.left)} * {self.right._operand(text)}"


class Wrapped(Schedule):
    """Base class of the nodes with one child; open if the child is."""

    schedule: Schedule

    def _children(self) -> tuple[Schedule, ...]:
        return (self.schedule,)

    def _format(self, text: Text) -> str:
        return f"{self.schedule._operand(text)}.{self._method()}"

    def _method(self) -> str:  # the text of the method call that builds this node
        raise NotImplementedError


class Scale(Wrapped):
    """A schedule times a number."""

    factor: float
    _binds_tighter: ClassVar[bool] = False

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        return pieces.scale(self.factor, self.schedule._build(horizon, scope, room))

    def _format(self, text: Text) -> str:
        return f"{number_text(self.factor)} * {self.schedule._operand(text)}"


class Repeat(Wrapped):
    """Cycles of a schedule, each stretched and scaled relative to the previous one."""

    n: int | None
    grow: float
    decay: float

    def __post_init__(self) -> None:
        grow, decay = self.grow, self.decay
        if self.n is not None and self.n < 1:
            raise ScheduleError(f".repeat({self.n}): needs at least one cycle")
        if not 1 / MAX_DURATION <= grow <= MAX_DURATION or decay < 0:
            rule = f"grow={number_text(grow)} must be > 0 (1e-18 to 1e18)"
            raise ScheduleError(f".repeat(): {rule} and decay={number_text(decay)} must be >= 0")
        if self.n is None and self.schedule._is_open():
            raise ScheduleError(
                f"{self.schedule!r} has no length, so it cannot be repeated endlessly; "
                "write the number of cycles, .repeat(4), or give it over="
            )
        if self.n is None and (grow < 1 or decay > 1):
            rule = ".repeat() without n needs grow >= 1 and decay <= 1, since it never ends"
            raise ScheduleError(
                f"{rule}; here grow={number_text(grow)}, decay={number_text(decay)}"
            )
        if not self.schedule._is_open() and self.schedule._names_percent():
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
            reason = "the last cycle is too long or too high for a float"
            raise ScheduleError(f"{self!r}: {reason}") from None

    def first_cycle(self, horizon: Horizon, room: float) -> Piece:
        """Return the first cycle as a piece."""
        if not self.schedule._is_open():
            # A closed body has no percent, so it needs neither scope nor room.
            return self.schedule._build(horizon, math.nan, math.nan)
        if math.isinf(room):
            needs = "total_steps=, or over= for the cycle"
            raise ScheduleError(f"{self!r} divides the run into cycles and needs {needs}")
        cycle = room / self._cycles()
        return self.schedule._build(horizon, cycle, cycle)

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        cycles, body = self._cycles(), self.first_cycle(horizon, room)
        if self.n is None and body.length <= SLACK:
            raise ScheduleError(f"{self!r}: a cycle of length 0 cannot be repeated endlessly")
        length = room if self._is_open() else body.length * cycles
        if math.isfinite(body.length) and self.n is not None and length > MAX_DURATION:
            raise ScheduleError(f"{self!r}: its cycles take more than 1e18 steps together")
        cycles_piece = pieces.repeat(body, self.n, self.grow, self.decay)
        return pieces.span(cycles_piece, length)

    def _method(self) -> str:
        changed = {k: v for k, v in (("grow", self.grow), ("decay", self.decay)) if v != 1}
        return call_text("repeat", *([] if self.n is None else [self.n]), **changed)


class Clip(Wrapped):
    """A schedule limited to a range."""

    low: float | None
    high: float | None

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return pieces.clip(self.schedule._build(horizon, scope, room), low, high)

    def _method(self) -> str:
        return call_text("clip", low=self.low, high=self.high)


class Rescale(Wrapped):
    """low (1 - a) + high a for a schedule a."""

    low: float
    high: float

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        return pieces.rescale(self.schedule._build(horizon, scope, room), self.low, self.high)

    def _method(self) -> str:
        return call_text("rescale", self.low, self.high)


class Over(Wrapped):
    """A schedule resolved over its own length; see `Schedule.over`."""

    length: Duration

    def _is_open(self) -> bool:
        return False

    def _names_percent(self) -> bool:
        return self.length.percent != 0

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        length = horizon.measure(self.length, scope, ".over()")
        return pieces.span(self.schedule._build(horizon, length, length), length)

    def _method(self) -> str:
        return call_text("over", self.length)


class Reversed(Wrapped):
    """A schedule run backwards over its length."""

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        piece = self.schedule._build(horizon, scope, room)
        if math.isinf(piece.length):
            needs = "total_steps= or over="
            raise ScheduleError(f"{self!r} has no end to start from; it needs {needs}")
        return pieces.span(pieces.backwards(piece), piece.length)  # holds its left limit

    def _method(self) -> str:
        return call_text("reversed")


def schedules_by_name(schedules: Any, types: tuple[type, ...] = (Schedule,)) -> dict[str, Any]:
    """Return a dict, a list or a single schedule as a dict; a name in a list is the text."""
    if isinstance(schedules, Mapping):
        by_name = dict(schedules)
    else:
        items = [schedules] if isinstance(schedules, (str, *types)) else list(schedules)
        by_name = {str(schedule): schedule for schedule in items}
        if len(by_name) < len(items):
            raise ScheduleError("the same schedule is given twice")
    for name, schedule in by_name.items():
        if not isinstance(schedule, types):
            hint = "; ratecraft.parse reads a text" if isinstance(schedule, str) else ""
            raise TypeError(f"{name}: expected a Schedule, not {schedule!r}{hint}")
    return by_name
