"""Small SVG pictures of schedules and curves, for notebooks."""

from __future__ import annotations

import math
from typing import Final

from ratecraft._render._svg import svg_chart
from ratecraft.errors import ScheduleError
from ratecraft.schedule import Curve, Schedule

from ._series import sample_curve, time_unit

NOMINAL_TOTAL_STEPS: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
NOMINAL_STEPS_PER_EPOCH: Final = 100.0
MAX_PICTURE_POINTS: Final = 1000


def nominal_curve(schedule: Schedule) -> Curve:
    """Resolve a schedule over a run of nominal length, to draw it.

    The length is the schedule's own, or the first of `NOMINAL_TOTAL_STEPS` that it resolves for.
    A schedule written in epochs, samples or tokens gets 100 steps per epoch, 1 sample per step
    and 1 token per step.

    Raises:
        ScheduleError: the schedule does not resolve for any length up to 10^8 steps.
    """
    sizes: tuple[dict[str, float], ...] = (
        {},
        {"steps_per_epoch": NOMINAL_STEPS_PER_EPOCH, "samples_per_step": 1, "tokens_per_step": 1},
    )
    for units in sizes:
        try:
            natural = schedule.resolve(**units).natural_length
            if 0 < natural < math.inf:
                return schedule.resolve(total_steps=math.ceil(natural), **units)
        except ScheduleError:
            pass  # the schedule needs a total length
        for total_steps in NOMINAL_TOTAL_STEPS:
            try:
                return schedule.resolve(total_steps=total_steps, **units)
            except ScheduleError as error:
                refusal = error
    raise refusal


def schedule_svg(schedule: Schedule) -> str:
    """Draw a schedule over a run of nominal length, as SVG.

    Args:
        schedule: the schedule.

    Raises:
        ScheduleError: the schedule does not resolve for any length up to 10^8 steps.

    >>> from ratecraft import cosine
    >>> from ratecraft.report import schedule_svg
    >>> "<title>cosine(1, 0)</title>" in schedule_svg(cosine(1, 0))
    True
    """
    return curve_svg(nominal_curve(schedule))


def curve_svg(curve: Curve) -> str:
    """Draw a resolved schedule, as SVG.

    Args:
        curve: the resolved schedule; an endless one is drawn over a run of nominal length.

    Raises:
        ScheduleError: the curve is endless and its schedule does not resolve for any length up
            to 10^8 steps.

    >>> from ratecraft import cosine
    >>> from ratecraft.report import curve_svg
    >>> "<title>cosine(1, 0)</title>" in curve_svg(cosine(1, 0).resolve(total_steps=100))
    True
    """
    finite_curve = curve
    if math.isinf(curve.length):
        finite_curve = nominal_curve(curve.schedule)
    return svg_chart(
        {"": sample_curve(finite_curve, MAX_PICTURE_POINTS)},
        title=repr(curve.schedule),
        x_label=time_unit(finite_curve),
        y_label="value",
        width=480,
        height=260,
    )
