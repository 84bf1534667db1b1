"""check: what a schedule will do over a run that nobody may have meant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from ratecraft.errors import ScheduleError

from ._curve import Curve
from ._duration import Duration, Horizon, number_text
from ._leaves import Leaf, Ramp
from ._nodes import Over, Product, Repeat, Reversed, Scale, Schedule, Sequence, Wrapped
from ._pieces import slack

Level = Literal["error", "warning", "note"]

JUMP: Final = 0.01  # of the peak: a smaller step at a join is no jump
PROBES: Final = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is worth a look before the run is paid for.

    Attributes:
        level: "error" (the run will not do what it says), "warning" (probably a slip) or "note".
        message: what happens, with the numbers.
        fix: what to write instead.
        text: the schedule's whole text, if this is about a schedule.
        start: where in the text the part in question begins.
        end: where it ends.
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
    """One node of a schedule: where it is in time and in the text.

    Of cycles only the first is looked at. ``previous`` and ``following`` are its neighbours in a
    sequence, as they are met in time; ``first``: the run begins with it.
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
        """Return whether this is a ramp that goes up, as a warm-up does."""
        return isinstance(self.schedule, Ramp) and self.schedule.start < self.schedule.end


def check(
    schedule: Schedule,
    total_steps: int | Duration | None = None,
    *,
    steps_per_epoch: float | None = None,
    samples_per_step: float | None = None,
    tokens_per_step: float | None = None,
) -> list[Finding]:
    """Return what will happen over the run that may not be meant, worst first.

    Looked for: a part that is never reached or shorter than a step; a warm-up longer than the
    run; a run longer or shorter than the schedule; jumps where parts join; steps at lr 0 and
    negative lrs; growth after decay. Cycles are looked at once.

    Args:
        schedule: the schedule.
        total_steps: length of the run, as `Schedule.resolve` takes it; likewise the next three.
        steps_per_epoch: steps per epoch.
        samples_per_step: samples per step.
        tokens_per_step: tokens per step.

    >>> from ratecraft import cosine, warmup
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
        found = [
            *_reach(curve, parts),
            *_horizon(curve, parts, whole),
            *_jumps(curve, parts),
            *_lrs(curve, parts, whole),
            *_growth(curve, parts),
        ]
    except ScheduleError as error:  # a Python function may fail at any one step
        return [Finding("error", str(error), "let the function return numbers", text, *whole)]
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
    findings = [Finding(level, message, fix, text, *span) for level, message, fix, span in found]
    return sorted(findings, key=lambda finding: order[finding.level])


Found = Iterator[tuple[Level, str, str, tuple[int, int]]]


def _parts(part: _Part, horizon: Horizon, scope: float, room: float) -> Iterator[_Part]:
    """Yield a part with its length, and then all parts in it; outer ones come first."""
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
                # An open part has the room that the layout found for it; the others need none.
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
            for met in _parts(inner(child), horizon, scope, room):
                flipped = replace(met, start=2 * start + length - met.end, first=False)
                yield replace(flipped, previous=met.following, following=met.previous)
        case Wrapped():
            yield from _parts(inner(node.schedule), horizon, scope, room)


def _reach(curve: Curve, parts: list[_Part]) -> Found:
    """Parts that the run does not reach, or that are too short to be read."""
    for part in parts:
        if part.in_sequence and part.start + slack(part.start) >= curve.length:
            yield (
                "error",
                f"{part.schedule!r} would begin at step {_n(part.start)}, and the run ends at "
                f"{_n(curve.length)}: it is never reached",
                "shorten what comes before it, or train longer",
                part.span,
            )
        elif part.length < 1 and (part.in_sequence or len(parts) == 1):
            yield (
                "warning",
                f"{part.schedule!r} is {_n(part.length)} steps long: no step may read it",
                "make it longer, or leave it out",
                part.span,
            )


def _horizon(curve: Curve, parts: list[_Part], whole: tuple[int, int]) -> Found:
    """A run that is shorter or longer than the schedule."""
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
            "leave over= out of one part, so that it takes what is left, or train longer",
            whole,
        )
    missed = total_steps - natural
    if missed > 1 and curve(total_steps) == 0:
        yield (
            "error",
            f"the schedule ends at step {_n(natural)} at lr 0: the last {_n(missed)} steps "
            "train nothing",
            "leave over= out of one part, so that it takes what is left",
            whole,
        )
    elif missed > 1:
        yield (
            "note",
            f"the schedule ends at step {_n(natural)}, and lr {_n(curve(total_steps))} holds for the "
            f"last {_n(missed)} steps",
            "leave over= out of one part if it was meant to fill the run",
            whole,
        )


def _jumps(curve: Curve, parts: list[_Part]) -> Found:
    """Steps where one part hands over to the next."""
    peak = _peak(curve)
    for part in parts:
        join = part.start
        if part.previous is None or not 0 < join < curve.length:
            continue
        left, right = curve.left(join), curve(join)
        if abs(right - left) <= JUMP * peak:
            continue
        yield (
            # A level is left by a step or not at all.
            "note" if _is_level(part.previous) else "warning",
            f"the lr jumps from {_n(left)} to {_n(right)} at step {_n(join)}",
            "begin this part at the value where the part before it ends",
            part.span,
        )


def _is_level(schedule: Schedule) -> bool:
    while isinstance(schedule, Scale | Over):
        schedule = schedule.schedule
    return isinstance(schedule, Ramp) and schedule.start == schedule.end


def _lrs(curve: Curve, parts: list[_Part], whole: tuple[int, int]) -> Found:
    """Steps that train nothing, or uphill."""
    times = _probes(curve)
    values = [curve(t) for t in times]
    lowest = min(values)
    if lowest < 0:
        at = times[values.index(lowest)]
        yield (
            "error",
            f"the lr is negative: {_n(lowest)} at step {_n(at)}",
            "keep it at 0 or above with .clip(low=0)",
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
            "let the end value be reached one step later, or end above 0",
            whole,
        )


def _growth(curve: Curve, parts: list[_Part]) -> Found:
    """A rise after a fall that no ramp and no cycle asks for."""
    times, step = _probes(curve), JUMP * _peak(curve)
    cycles = [part for part in parts if isinstance(part.schedule, Repeat)]
    lowest, fallen, highest = math.inf, False, -math.inf
    for t in times:
        if any(part.start <= t + slack(t) < part.end for part in cycles):
            lowest, fallen, highest = math.inf, False, -math.inf  # cycles rise, and are asked for
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
            return  # it is written there
        if not isinstance(ramp, Ramp) or ramp.shape == "cosine":
            yield (
                "warning",
                f"the lr grows again around step {_n(t)}, after it had fallen to {_n(lowest)}",
                "leave half_cycles= out, or write the rise as a part of its own",
                owner.span,
            )
        return


def _probes(curve: Curve) -> list[float]:
    """Return some steps all over the run; of an endless one its own length, or the first ones."""
    span = curve.length if math.isfinite(curve.length) else curve.natural_length
    count = max(math.ceil(span - slack(span)), 1) if math.isfinite(span) else PROBES
    stride = max(count // PROBES, 1)
    # Not evenly, or a cycle as long as the stride would be seen at one point only.
    places = [i * stride + i * 617 % stride for i in range(count // stride)]
    return [float(k) for k in dict.fromkeys((*places, count - 1))]


def _peak(curve: Curve) -> float:
    return max(abs(curve(t)) for t in _probes(curve))


def _n(value: float) -> str:
    return number_text(float(f"{value:.6g}"))
