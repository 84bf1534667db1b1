"""check: likely mistakes in a schedule, for a given run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from ratecraft._keywords import explain_arguments
from ratecraft.errors import ScheduleError

from ._base import Node
from ._curve import Curve
from ._duration import SIZE_ARGUMENTS, Duration, Horizon, number_text
from ._leaves import Leaf, Ramp
from ._nodes import Over, Repeat, Reversed, Scale, Schedule, Then
from ._pieces import slack

Level = Literal["error", "warning", "note"]

MIN_JUMP_OF_PEAK: Final = 0.01  # a smaller change at a join is not reported
MAX_CHECKED_STEPS: Final = 1000  # of a longer run that many steps, spread over it, are checked


@dataclass(frozen=True, slots=True)
class Finding:
    """A likely mistake in a schedule or a training setup.

    Attributes:
        level: "error" (the run will not follow the schedule as written), "warning" or "note".
        message: what will happen, with numbers.
        fix: what to write instead.
        text: the text of the schedule, if the finding is about one.
        start, end: where in ``text`` the part in question begins and ends.
    """

    level: Level
    message: str
    fix: str
    text: str = ""
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        marks = " " * self.start + "^" * (self.end - self.start)
        marked = f"\n  {self.text}\n  {marks}" if self.text else ""
        return f"{self.level}: {self.message}{marked}\n  {self.fix}"


@dataclass(frozen=True, slots=True)
class _Part:
    """One node of a schedule, with its position in time; of a repeat there is the first cycle."""

    schedule: Node
    span: tuple[int, int]  # its position in the text
    start: float = 0.0
    length: float = 0.0
    first: bool = True  # whether the run begins with it
    neighbours: tuple[Node | None, ...] = ()  # in a sequence: the part before and the part after

    @property
    def end(self) -> float:
        return self.start + self.length

    def owns(self, t: float) -> bool:
        return self.start <= t + slack(t) < self.end

    def is_rise(self) -> bool:
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

    It reports a part that is never reached or shorter than a step, a warmup longer than the
    run, a schedule longer or shorter than the run, jumps between parts, steps with learning rate
    0, negative learning rates, and growth after decay. Repeated cycles are checked once.

    Args:
        schedule: the schedule.
        total_steps: length of the run, as for `Schedule.resolve`; default an endless run.
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
    whole = _Part(schedule, (0, len(text)))
    fix = ""
    try:
        curve = schedule.resolve(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            samples_per_step=samples_per_step,
            tokens_per_step=tokens_per_step,
        )
        parts = list(_parts(whole, curve.horizon, curve.length, curve.length))
        fix = "let the function return numbers"  # a Python function may fail at a single step
        values = {t: curve(t) for t in _checked_steps(curve)}
        min_jump = MIN_JUMP_OF_PEAK * max(map(abs, values.values()))
        problems = [
            *_check_reach(curve, parts),
            *_check_length(curve, parts),
            *_check_jumps(curve, parts, min_jump),
            *_check_values(curve, parts, values),
            *_check_growth(parts, values, min_jump),
        ]
    except ScheduleError as error:
        fix = fix or _fix_of_lengths(str(error), total_steps)
        return [Finding("error", str(error), fix, text, *whole.span)]
    problems.sort(key=lambda problem: get_args(Level).index(problem[0]))  # worst first
    return [
        Finding(level, message, fix, text, *part.span) for level, message, fix, part in problems
    ]


def _fix_of_lengths(message: str, total_steps: int | Duration | None) -> str:
    """Return what to write if a schedule does not resolve over a run."""
    for argument in SIZE_ARGUMENTS.values():
        if f"needs {argument}=" in message:
            return f"pass {argument}=, or write the length in steps"
    if total_steps is None:
        return "pass total_steps=, or write over= in the schedule"
    return "pass another total_steps=, or change the lengths in the schedule"


Problems = Iterator[tuple[Level, str, str, _Part]]
Values = dict[float, float]  # at the checked steps


def _parts(part: _Part, horizon: Horizon, scope: float, room: float) -> Iterator[_Part]:
    """Yield a part with its length, and then all parts inside it."""
    node, start = part.schedule, part.start
    length = node._build(horizon, scope, room).length
    yield replace(part, length=length)
    inner = list(_inner_parts(part))
    match node:
        case Then():
            around = (None, *node.parts, None)
            for i, piece in enumerate(node.layout(horizon, scope, room)):
                first, neighbours = part.first and i == 0, (around[i], around[i + 2])
                child = replace(inner[i], start=start, first=first, neighbours=neighbours)
                # An open part has the room that the layout gives it; the others need none.
                yield from _parts(child, horizon, scope, piece.length)
                start += piece.length
            return
        case Reversed():
            for forward in _parts(inner[0], horizon, scope, room):
                mirrored = replace(forward, start=2 * start + length - forward.end, first=False)
                yield replace(mirrored, neighbours=forward.neighbours[::-1])
            return
        case Over():
            scope = room = length
        case Repeat():
            scope = room = node.first_cycle(horizon, room).length
    for child in inner:
        yield from _parts(child, horizon, scope, room)


def _inner_parts(part: _Part) -> Iterator[_Part]:
    """Yield the children of a part, each with its position in the text."""
    offset, end, text = part.span[0], 0, repr(part.schedule)
    for child in part.schedule._children():
        at = text.index(repr(child), end)
        end = at + len(repr(child))
        yield replace(part, schedule=child, span=(offset + at, offset + end), neighbours=())


def _check_reach(curve: Curve, parts: list[_Part]) -> Problems:
    for part in parts:
        if part.neighbours and part.start + slack(part.start) >= curve.length:
            start, end = _n(part.start), _n(curve.length)
            message = f"{part.schedule!r} would begin at step {start}, and the run ends at {end}"
            fix = "shorten the parts before it, or train longer"
            yield "error", f"{message}: it is never reached", fix, part
        elif part.length < 1 and (part.neighbours or len(parts) == 1):
            message = f"{part.schedule!r} is {_n(part.length)} steps long: no step may fall into it"
            yield "warning", message, "make it longer, or leave it out", part


def _check_length(curve: Curve, parts: list[_Part]) -> Problems:
    total_steps, natural = curve.length, curve.natural_length
    if math.isinf(total_steps):
        return
    for part in parts:
        cut = part.start < total_steps < part.end - slack(part.end)
        if cut and part.first and part.is_rise():
            run = f"the run has {_n(total_steps)}: it is cut short"
            message = f"the warmup takes {_n(part.length)} steps, and {run}"
            fix = f"shorten it, for example to percent(5), which is {_n(total_steps * 0.05)} steps"
            yield "error", message, fix, part
            return
    last, missed = curve(total_steps), total_steps - natural
    fix = "leave over= out of one part, so that it fills the run"
    if math.isfinite(natural) and natural > total_steps + slack(total_steps):
        message = f"the schedule is {_n(natural)} steps long, and the run ends at {_n(total_steps)}"
        yield "warning", f"{message}, at lr {_n(last)}", f"{fix}, or train longer", parts[0]
    elif missed > 1 and last == 0:
        message = f"at lr 0: the last {_n(missed)} steps train nothing"
        yield "error", f"the schedule ends at step {_n(natural)} {message}", fix, parts[0]
    elif missed > 1:
        message = f"lr {_n(last)} holds for the last {_n(missed)} steps"
        fix = "leave over= out of one part if it should fill the run"
        yield "note", f"the schedule ends at step {_n(natural)}, and {message}", fix, parts[0]


def _check_jumps(curve: Curve, parts: list[_Part], min_jump: float) -> Problems:
    for part in parts:
        join, previous = part.start, part.neighbours[0] if part.neighbours else None
        if previous is None or not 0 < join < curve.length:
            continue
        left, right = curve.left(join), curve(join)
        if abs(right - left) <= min_jump:
            continue
        # Leaving a constant level always takes a jump.
        level: Level = "note" if _is_level(previous) else "warning"
        message = f"the lr jumps from {_n(left)} to {_n(right)} at step {_n(join)}"
        yield level, message, "begin this part at the value where the part before it ends", part


def _is_level(schedule: Node) -> bool:
    while isinstance(schedule, Scale | Over):
        schedule = schedule.schedule
    return isinstance(schedule, Ramp) and schedule.start == schedule.end


def _check_values(curve: Curve, parts: list[_Part], values: Values) -> Problems:
    at = min(values, key=values.__getitem__)
    if values[at] < 0:
        message = f"the lr is negative: {_n(values[at])} at step {_n(at)}"
        yield "error", message, "limit it with .clip(low=0)", parts[0]
    if values[0] == 0:
        first = [part for part in parts if part.first and isinstance(part.schedule, Leaf)]
        fix = "begin above 0, for example with start=0.01"
        yield "note", "step 0 has lr 0 and trains nothing", fix, (first or parts)[0]
    natural = min(curve.natural_length, curve.length)
    inside = [t for t, value in values.items() if value == 0 and 0 < t < natural - 1]
    if inside:
        message = f"step {_n(inside[0])} has lr 0 and trains nothing"
        yield "warning", message, "end the part before it above 0: cosine(1, 0.01)", parts[0]
    last = math.ceil(curve.length - slack(curve.length)) - 1 if curve.length < math.inf else None
    if last and curve(last) == 0 and natural >= last:
        message = f"the last step, {_n(last)}, has lr 0 and trains nothing"
        yield "note", message, "reach the end value one step later, or end above 0", parts[0]


def _check_growth(parts: list[_Part], values: Values, min_jump: float) -> Problems:
    """Report a rise after a fall, unless a rising ramp or a cycle causes it."""
    cycles = [part for part in parts if isinstance(part.schedule, Repeat)]
    highest, lowest = -math.inf, math.inf  # lowest: since a fall; infinite before that
    for t, value in values.items():
        if any(part.owns(t) for part in cycles):
            highest, lowest = -math.inf, math.inf  # cycles rise on purpose
            continue
        highest = max(highest, value)
        if lowest < math.inf or value < highest - min_jump:
            lowest = min(lowest, value)
        if value <= lowest + min_jump:
            continue
        owner = ([part for part in parts if part.owns(t)] or parts)[-1]
        ramp = owner.schedule
        if owner.is_rise():
            return  # the rise is on purpose
        if not isinstance(ramp, Ramp) or ramp.shape == "cosine":
            message = f"the lr grows again around step {_n(t)}, after a fall to {_n(lowest)}"
            fix = "leave half_cycles= out, or write the rise as a separate part"
            yield "warning", message, fix, owner
        return


def _checked_steps(curve: Curve) -> list[float]:
    """Return the steps to check: of an endless run those of its natural length, or the first."""
    span = curve.length if math.isfinite(curve.length) else curve.natural_length
    count = max(math.ceil(span - slack(span)), 1) if math.isfinite(span) else MAX_CHECKED_STEPS
    stride = max(count // MAX_CHECKED_STEPS, 1)
    # Unevenly spaced, since even steps would see a cycle as long as the stride at one phase only.
    steps = [i * stride + i * 617 % stride for i in range(count // stride)]
    return [float(k) for k in dict.fromkeys((*steps, count - 1))]


def _n(value: float) -> str:
    return number_text(float(f"{value:.6g}"))
