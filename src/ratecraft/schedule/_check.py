"""check: likely mistakes in a schedule, for a given run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from ratecraft._keywords import explain_arguments
from ratecraft.errors import ScheduleError

from ._curve import Curve
from ._duration import Duration, Horizon, number_text
from ._leaves import Leaf, Ramp
from ._nodes import Over, Product, Repeat, Reversed, Scale, Schedule, Sequence, Wrapped
from ._pieces import slack

Level = Literal["error", "warning", "note"]

MIN_JUMP_OF_PEAK: Final = 0.01  # a smaller change at a join is not reported
MAX_CHECKED_STEPS: Final = 1000  # of a longer run that many steps, spread over it, are checked


@dataclass(frozen=True, slots=True)
class Finding:
    """A likely mistake in a schedule or a training setup.

    Attributes:
        level: "error" (the run will not follow the schedule as written), "warning" (probably a
            mistake) or "note".
        message: what will happen, with numbers.
        fix: what to write instead.
        text: the text of the schedule; empty if the finding is not about a schedule.
        start: index in ``text`` where the part in question begins.
        end: index in ``text`` where it ends.
    """

    level: Level
    message: str
    fix: str
    text: str = ""
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        if not self.text:
            return f"{self.level}: {self.message}\n  {self.fix}"
        marks = " " * self.start + "^" * (self.end - self.start)
        return f"{self.level}: {self.message}\n  {self.text}\n  {marks}\n  {self.fix}"


@dataclass(frozen=True, slots=True)
class _Part:
    """One node of a schedule, with its position in time and in the text.

    Only the first cycle of a repeat is included. ``previous`` and ``following`` are the
    neighbours in a sequence, in time order; ``first`` is true if the run begins with this node.
    """

    schedule: Schedule
    start: float
    length: float
    span: tuple[int, int]
    first: bool
    in_sequence: bool = False
    previous: Schedule | None = None
    following: Schedule | None = None

    @property
    def end(self) -> float:
        return self.start + self.length

    def is_rise(self) -> bool:
        """Return whether this is a rising ramp, such as a warm-up."""
        return isinstance(self.schedule, Ramp) and self.schedule.start < self.schedule.end


@explain_arguments(
    "check() takes a schedule and the length of the run: write check(schedule, 1000), and unit "
    "sizes by name, as steps_per_epoch="
)
def check(
    schedule: Schedule,
    total_steps: int | Duration | None = None,
    *,
    steps_per_epoch: float | None = None,
    samples_per_step: float | None = None,
    tokens_per_step: float | None = None,
) -> list[Finding]:
    """Return the likely mistakes in a schedule for a run, worst first.

    It reports a part that is never reached or shorter than a step, a warm-up longer than the
    run, a schedule longer or shorter than the run, jumps between parts, steps with learning rate
    0, negative learning rates, and growth after decay. Repeated cycles are checked once.

    Args:
        schedule: the schedule.
        total_steps: length of the run, as for `Schedule.resolve`.
        steps_per_epoch: steps per epoch; needed if a length is in epochs.
        samples_per_step: samples per step; needed if a length is in samples.
        tokens_per_step: tokens per step; needed if a length is in tokens.

    >>> from ratecraft import check, cosine, warmup
    >>> for finding in check(warmup(500).then(cosine(1, 0, over=1000)), total_steps=2000):
    ...     print(finding.level, finding.message)
    error the schedule ends at step 1500 at lr 0: the last 500 steps train nothing
    note step 0 has lr 0 and trains nothing
    """
    text = repr(schedule)
    whole = (0, len(text))
    try:
        curve = schedule.resolve(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            samples_per_step=samples_per_step,
            tokens_per_step=tokens_per_step,
        )
    except ScheduleError as error:
        return [Finding("error", str(error), "it does not resolve over this run", text, *whole)]
    span = curve.length, curve.length
    parts = list(_parts(_Part(schedule, 0.0, 0.0, whole, True), curve.horizon, *span))
    try:
        problems = [
            *_check_reach(curve, parts),
            *_check_length(curve, parts, whole),
            *_check_jumps(curve, parts),
            *_check_values(curve, parts, whole),
            *_check_growth(curve, parts),
        ]
    except ScheduleError as error:  # a Python function may fail at a single step
        return [Finding("error", str(error), "let the function return numbers", text, *whole)]
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
    findings = [Finding(level, message, fix, text, *span) for level, message, fix, span in problems]
    return sorted(findings, key=lambda finding: order[finding.level])


Problems = Iterator[tuple[Level, str, str, tuple[int, int]]]


def _parts(part: _Part, horizon: Horizon, scope: float, room: float) -> Iterator[_Part]:
    """Yield a part with its length, and then all parts inside it."""
    node, start = part.schedule, part.start
    length = node._build(horizon, scope, room).length
    yield replace(part, length=length)
    text, at = repr(node), 0

    def inner(child: Schedule, **fields: Any) -> _Part:
        nonlocal at
        at = text.index(repr(child), at)
        span = part.span[0] + at, part.span[0] + at + len(repr(child))
        at += len(repr(child))
        plain = _Part(child, start, 0.0, span, part.first)
        return replace(plain, **fields)

    match node:
        case Sequence(children):
            neighbours = (None, *children, None)
            for i, piece in enumerate(node.layout(horizon, scope, room)):
                child = inner(
                    children[i],
                    start=start,
                    first=part.first and i == 0,
                    in_sequence=True,
                    previous=neighbours[i],
                    following=neighbours[i + 2],
                )
                # An open part has the room that the layout gives it; the others need none.
                yield from _parts(child, horizon, scope, piece.length)
                start += piece.length
        case Product(left, right):
            yield from _parts(inner(left), horizon, scope, room)
            yield from _parts(inner(right), horizon, scope, room)
        case Over(child):
            yield from _parts(inner(child), horizon, length, length)
        case Repeat(child):
            cycle = node.first_cycle(horizon, room).length
            yield from _parts(inner(child), horizon, cycle, cycle)
        case Reversed(child):
            for forward in _parts(inner(child), horizon, scope, room):
                flipped = replace(forward, start=2 * start + length - forward.end, first=False)
                yield replace(flipped, previous=forward.following, following=forward.previous)
        case Wrapped():
            yield from _parts(inner(node.schedule), horizon, scope, room)


def _check_reach(curve: Curve, parts: list[_Part]) -> Problems:
    """Report parts that the run does not reach or that are shorter than a step."""
    for part in parts:
        if part.in_sequence and part.start + slack(part.start) >= curve.length:
            yield (
                "error",
                f"{part.schedule!r} would begin at step {_n(part.start)}, and the run ends at "
                f"{_n(curve.length)}: it is never reached",
                "shorten the parts before it, or train longer",
                part.span,
            )
        elif part.length < 1 and (part.in_sequence or len(parts) == 1):
            yield (
                "warning",
                f"{part.schedule!r} is {_n(part.length)} steps long: no step may fall into it",
                "make it longer, or leave it out",
                part.span,
            )


def _check_length(curve: Curve, parts: list[_Part], whole: tuple[int, int]) -> Problems:
    """Report a run that is shorter or longer than the schedule."""
    total_steps, natural = curve.length, curve.natural_length
    if math.isinf(total_steps):
        return
    for part in parts:
        cut = part.start < total_steps < part.end - slack(part.end)
        if cut and part.first and part.is_rise():
            yield (
                "error",
                f"the warm-up takes {_n(part.length)} steps, and the run has {_n(total_steps)}: it "
                "is cut short",
                f"shorten it, for example to percent(5), which is {_n(total_steps * 0.05)} steps",
                part.span,
            )
            return
    if math.isfinite(natural) and natural > total_steps + slack(total_steps):
        yield (
            "warning",
            f"the schedule is {_n(natural)} steps long, and the run ends at {_n(total_steps)}, at "
            f"lr {_n(curve(total_steps))}",
            "leave over= out of one part, so that it fills the run, or train longer",
            whole,
        )
    missed = total_steps - natural
    if missed > 1 and curve(total_steps) == 0:
        yield (
            "error",
            f"the schedule ends at step {_n(natural)} at lr 0: the last {_n(missed)} steps "
            "train nothing",
            "leave over= out of one part, so that it fills the run",
            whole,
        )
    elif missed > 1:
        yield (
            "note",
            f"the schedule ends at step {_n(natural)}, and lr {_n(curve(total_steps))} holds for "
            f"the last {_n(missed)} steps",
            "leave over= out of one part if it should fill the run",
            whole,
        )


def _check_jumps(curve: Curve, parts: list[_Part]) -> Problems:
    """Report jumps between two parts."""
    peak = _peak(curve)
    for part in parts:
        join = part.start
        if part.previous is None or not 0 < join < curve.length:
            continue
        left, right = curve.left(join), curve(join)
        if abs(right - left) <= MIN_JUMP_OF_PEAK * peak:
            continue
        yield (
            # Leaving a constant level always takes a jump.
            "note" if _is_level(part.previous) else "warning",
            f"the lr jumps from {_n(left)} to {_n(right)} at step {_n(join)}",
            "begin this part at the value where the part before it ends",
            part.span,
        )


def _is_level(schedule: Schedule) -> bool:
    while isinstance(schedule, Scale | Over):
        schedule = schedule.schedule
    return isinstance(schedule, Ramp) and schedule.start == schedule.end


def _check_values(curve: Curve, parts: list[_Part], whole: tuple[int, int]) -> Problems:
    """Report steps with a learning rate of 0 or below."""
    times = _checked_steps(curve)
    values = [curve(t) for t in times]
    lowest = min(values)
    if lowest < 0:
        at = times[values.index(lowest)]
        yield (
            "error",
            f"the lr is negative: {_n(lowest)} at step {_n(at)}",
            "limit it with .clip(low=0)",
            whole,
        )
    if values[0] == 0:
        yield (
            "note",
            "step 0 has lr 0 and trains nothing",
            "begin above 0, for example with start=0.01",
            next(
                (part.span for part in parts if part.first and isinstance(part.schedule, Leaf)),
                whole,
            ),
        )
    natural = min(curve.natural_length, curve.length)
    inside = [t for t, v in zip(times, values, strict=True) if v == 0 and 0 < t < natural - 1]
    if inside:
        yield (
            "warning",
            f"step {_n(inside[0])} has lr 0 and trains nothing",
            "end the part before it above 0: cosine(1, 0.01)",
            whole,
        )
    last = math.ceil(curve.length - slack(curve.length)) - 1 if curve.length < math.inf else None
    if last and curve(last) == 0 and natural >= last:
        yield (
            "note",
            f"the last step, {_n(last)}, has lr 0 and trains nothing",
            "reach the end value one step later, or end above 0",
            whole,
        )


def _check_growth(curve: Curve, parts: list[_Part]) -> Problems:
    """Report a rise after a fall, unless a rising ramp or a cycle causes it."""
    times, step = _checked_steps(curve), MIN_JUMP_OF_PEAK * _peak(curve)
    cycles = [part for part in parts if isinstance(part.schedule, Repeat)]
    lowest, fallen, highest = math.inf, False, -math.inf
    for t in times:
        if any(part.start <= t + slack(t) < part.end for part in cycles):
            lowest, fallen, highest = math.inf, False, -math.inf  # cycles rise on purpose
            continue
        value = curve(t)
        highest = max(highest, value)
        if value < highest - step:
            fallen = True
        if fallen:
            lowest = min(lowest, value)
        if not fallen or value <= lowest + step:
            continue
        owner = ([p for p in parts if p.start <= t + slack(t) < p.end] or parts)[-1]
        ramp = owner.schedule
        if owner.is_rise():
            return  # the rise is on purpose
        if not isinstance(ramp, Ramp) or ramp.shape == "cosine":
            yield (
                "warning",
                f"the lr grows again around step {_n(t)}, after a fall to {_n(lowest)}",
                "leave half_cycles= out, or write the rise as a separate part",
                owner.span,
            )
        return


def _checked_steps(curve: Curve) -> list[float]:
    """Return the steps to check: of an endless run those of its natural length, or the first."""
    span = curve.length if math.isfinite(curve.length) else curve.natural_length
    count = max(math.ceil(span - slack(span)), 1) if math.isfinite(span) else MAX_CHECKED_STEPS
    stride = max(count // MAX_CHECKED_STEPS, 1)
    # Unevenly spaced, since even steps would see a cycle as long as the stride at one phase only.
    steps = [i * stride + i * 617 % stride for i in range(count // stride)]
    return [float(k) for k in dict.fromkeys((*steps, count - 1))]


def _peak(curve: Curve) -> float:
    return max(abs(curve(t)) for t in _checked_steps(curve))


def _n(value: float) -> str:
    return number_text(float(f"{value:.6g}"))
