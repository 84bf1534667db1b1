"""What a notebook shows of a schedule or a curve: one small SVG."""

from __future__ import annotations

import math
from typing import Final

from ratecraft._render._svg import svg_chart
from ratecraft.errors import ScheduleError
from ratecraft.schedule import Curve, Schedule

from ._series import sampled, unit

SPANS: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
EPOCH: Final = 100.0
POINTS: Final = 1000


def nominal_curve(schedule: Schedule) -> Curve:
    """Return a schedule over a run to look at: its own length, or the first round one that fits.

    If it says epochs, samples or tokens, these have nominal sizes: 100 steps an epoch, 1 sample
    and 1 token a step.

    Raises:
        ScheduleError: no run up to 10^8 steps fits.
    """
    sizes: tuple[dict[str, float], ...] = (
        {},
        {"steps_per_epoch": EPOCH, "samples_per_step": 1, "tokens_per_step": 1},
    )
    for units in sizes:
        try:
            natural = schedule.resolve(**units).natural_length
            if 0 < natural < math.inf:
                return schedule.resolve(total_steps=math.ceil(natural), **units)
        except ScheduleError:
            pass  # it needs to know the run; the loop below offers it some
        for span in SPANS:
            try:
                return schedule.resolve(total_steps=span, **units)
            except ScheduleError as error:
                refusal = error
    raise refusal


def schedule_svg(schedule: Schedule) -> str:
    """Return a picture of a schedule over a run of nominal length, as SVG.

    Args:
        schedule: the schedule.

    Raises:
        ScheduleError: no run up to 10^8 steps fits.

    >>> from ratecraft import cosine
    >>> "<title>cosine(1, 0)</title>" in schedule_svg(cosine(1, 0))
    True
    """
    return curve_svg(nominal_curve(schedule))


def curve_svg(curve: Curve) -> str:
    """Return a picture of a resolved schedule, as SVG.

    Args:
        curve: the resolved schedule; an endless one is drawn over a run of nominal length.

    Raises:
        ScheduleError: an endless curve, and no run up to 10^8 steps fits.

    >>> from ratecraft import cosine
    >>> "<title>cosine(1, 0)</title>" in curve_svg(cosine(1, 0).resolve(total_steps=100))
    True
    """
    shown = curve
    if math.isinf(curve.length):
        shown = nominal_curve(curve.schedule)
    return svg_chart(
        {"": sampled(shown, POINTS)},
        title=repr(curve.schedule),
        x_label=unit(shown),
        y_label="value",
        width=480,
        height=260,
    )
