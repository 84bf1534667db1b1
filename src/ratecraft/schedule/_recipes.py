"""The words for whole schedules: each returns a few shapes, joined; they print as their parts."""

from __future__ import annotations

from numbers import Integral

from ratecraft.errors import ScheduleError

from ._duration import Duration, Length, as_duration, as_number, percent
from ._nodes import Schedule
from ._shapes import (
    constant,
    cooldown,
    cosine,
    decay,
    exponential,
    inverse_sqrt,
    linear,
    power_law,
    warmup,
)

DEFAULT_COOLDOWN = percent(20)
DEFAULT_RISE = percent(30)


def wsd(
    warmup: Length,
    cooldown: Length = DEFAULT_COOLDOWN,
    shape: str = "1-sqrt",
    end: float = 0,
) -> Schedule:
    """Return warm-up, stable, decay: a line up to 1, 1, and a cooldown to ``end``.

    Args:
        warmup: length of the warm-up.
        cooldown: length of the cooldown, at the end of the run.
        shape: "linear", "cosine", "exponential" (end > 0), "1-sqrt" or "square".
        end: last value.

    Source: Hu et al. 2024 (MiniCPM), arXiv 2404.06395; shapes in Hägele et al., arXiv 2405.18392.

    >>> wsd(500, percent(10), shape="linear")
    warmup(500).then(constant(1)).then(cooldown(percent(10)))
    """
    return _warmup(warmup).then(constant(1)).then(_cooldown(cooldown, end, shape=shape))


def trapezoid(warmup: Length, cooldown: Length, end: float = 0) -> Schedule:
    """Return a line up to 1, 1, and a line down to ``end``; `wsd` with straight sides.

    Args:
        warmup: length of the warm-up.
        cooldown: length of the cooldown, at the end of the run.
        end: last value.

    Source: Zhai et al. 2021, arXiv 2106.04560.

    >>> trapezoid(percent(10), percent(30))
    warmup(percent(10)).then(constant(1)).then(cooldown(percent(30)))
    """
    return wsd(warmup, cooldown, "linear", end)


def knee(explore: Length, warmup: Length = 0) -> Schedule:
    """Return the knee schedule: 1 while the run explores, then a line to 0 over all the rest.

    Args:
        explore: how long to stay at 1.
        warmup: length of a warm-up before.

    Source: Iyer et al. 2020, arXiv 2003.03977.

    >>> knee(percent(50))
    constant(1, over=percent(50)).then(linear(1, 0))
    """
    return _after(warmup, constant(1, explore).then(linear(1, 0)))


def linear_to_zero(warmup: Length = 0) -> Schedule:
    """Return a line to 0 over the whole run, after an optional warm-up.

    Args:
        warmup: length of the warm-up.

    Source: Bergsma et al. 2025, arXiv 2502.15938 ("straight to zero").

    >>> linear_to_zero(percent(10))
    warmup(percent(10)).then(linear(1, 0))
    """
    return _after(warmup, linear(1, 0))


def noam(warmup: int, model_width: int) -> Schedule:
    """Return the Transformer's own lr: width^-0.5 min(t^-0.5, t warmup^-1.5).

    Args:
        warmup: length of the warm-up in steps.
        model_width: the model's width, d_model.

    Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 3.

    >>> noam(4000, 512).resolve()(4000) == 512**-0.5 * 4000**-0.5
    True
    """
    sizes: list[float] = []
    for name, value in (("warmup", warmup), ("model_width", model_width)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ScheduleError(f"noam: {name}={value!r} must be an int >= 1")
        sizes.append(as_number(value, f"noam: {name}"))
    scale: float = sizes[1] ** -0.5 * sizes[0] ** -0.5
    return scale * _warmup(warmup).then(inverse_sqrt(warmup))


def power_scheduler(
    warmup: Length,
    timescale: Length,
    exponent: float = -0.51,
    cooldown: Length = DEFAULT_COOLDOWN,
    end: float = 0.01,
) -> Schedule:
    """Return warm-up, a power law of the time since the start, and an exponential cooldown.

    Args:
        warmup: length of the warm-up.
        timescale: until when the lr stays at 1; then it falls as (t / timescale)^exponent.
        exponent: the power, < 0.
        cooldown: length of the cooldown, at the end of the run.
        end: what the cooldown multiplies the power law by at the end, > 0.

    Source: Shen et al. 2024, arXiv 2408.13359.

    >>> curve = power_scheduler(10, 100, cooldown=percent(10)).resolve(total_steps=1000)
    >>> curve(100), round(curve(800), 4)
    (1.0, 0.3463)
    """
    law = _after(warmup, power_law(exponent, timescale, shift=warmup))
    return law * constant(1).then(exponential(1, end, as_duration(cooldown, "cooldown=")))


def one_cycle(
    warmup: Length = DEFAULT_RISE,
    start: float = 0.04,
    end: float = 4e-6,
    shape: str = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """Return one cycle: from ``start`` up to 1 and down to ``end``.

    Args:
        warmup: length of the rise.
        start: first value; torch's 1 / div_factor.
        end: last value; torch's 1 / (div_factor final_div_factor).
        shape: "cosine" or "linear".
        three_phase: come down to ``start`` as fast as it rose, and then to ``end``.

    Source: Smith & Topin 2017, arXiv 1708.07120.

    >>> one_cycle(percent(30), start=0.1, end=0)
    cosine(0.1, 1, over=percent(30)).then(cosine(1, 0))
    """
    length = as_duration(warmup, "one_cycle: warmup=")
    if shape not in ("cosine", "linear"):
        raise ScheduleError(f"one_cycle: shape={shape!r} is none of 'cosine', 'linear'")

    def ramp(first: float, last: float, over: Duration | None = None) -> Schedule:
        if shape == "cosine":
            return cosine(first, last, over=over)
        return linear(first, last, over)

    rise = ramp(start, 1, length)
    if three_phase:
        return rise.then(ramp(1, start, length)).then(ramp(start, end))
    return rise.then(ramp(1, end))


def triangular(up: Length, down: Length | None = None, low: float = 0.1) -> Schedule:
    """Return cycles from ``low`` to 1 and back, for ever.

    Args:
        up: length of the rise.
        down: length of the fall; default the same.
        low: first and lowest value; CyclicLR's base_lr / max_lr.

    Source: Smith 2015, arXiv 1506.01186.

    >>> triangular(2, low=0.5).resolve().values([0, 1, 2, 3, 4])
    array([0.5 , 0.75, 1.  , 0.75, 0.5 ])
    """
    return _triangle(up, down).repeat().rescale(low, 1)


def triangular2(up: Length, down: Length | None = None, low: float = 0.1) -> Schedule:
    """Return `triangular` whose cycles halve in height.

    Args:
        up: length of the rise.
        down: length of the fall; default the same.
        low: first and lowest value; CyclicLR's base_lr / max_lr.

    Source: Smith 2015, arXiv 1506.01186.

    >>> triangular2(2, low=0.5).resolve().values([2, 6])
    array([1.  , 0.75])
    """
    return _triangle(up, down).repeat(decay=0.5).rescale(low, 1)


def exp_range(gamma: float, up: Length, down: Length | None = None, low: float = 0.1) -> Schedule:
    """Return `triangular` whose height is multiplied by gamma at every step.

    Args:
        gamma: factor per step.
        up: length of the rise.
        down: length of the fall; default the same.
        low: first and lowest value; CyclicLR's base_lr / max_lr.

    Source: Smith 2015, arXiv 1506.01186.

    >>> exp_range(0.5, 2, low=0).resolve().values([1, 2])
    array([0.25, 0.25])
    """
    return (_triangle(up, down).repeat() * decay(gamma)).rescale(low, 1)


def restarts(
    first: Length | None = None,
    n: int | None = None,
    grow: float = 1,
    decay: float = 1,
    end: float = 0,
) -> Schedule:
    """Return cosine annealing with warm restarts (SGDR): cycles from 1 down to ``end``.

    Args:
        first: length of the first cycle; without it the run is divided into ``n`` cycles.
        n: number of cycles; without it they go on to the end of the run.
        grow: factor from each cycle's length to the next.
        decay: factor from each cycle's height above ``end`` to the next.
        end: lowest value.

    Source: Loshchilov & Hutter 2017, arXiv 1608.03983.

    >>> restarts(10, grow=2).resolve(total_steps=70).values([0, 5, 10, 30]).round(6)
    array([1. , 0.5, 1. , 1. ])
    """
    if first is None and n is None:
        raise ScheduleError("restarts: say first= (the first cycle's length) or n= (how many)")
    wave = cosine(1, 0, over=None if first is None else as_duration(first, "restarts: first="))
    cycles = wave.repeat(n, grow=grow, decay=decay)
    return cycles.rescale(end, 1) if end else cycles


def _triangle(up: Length, down: Length | None) -> Schedule:
    fall = as_duration(up if down is None else down, "down=")
    return _warmup(up).then(_cooldown(fall))


def _after(length: Length, rest: Schedule) -> Schedule:
    """Put a warm-up before a schedule, unless its length is zero."""
    before = as_duration(length, "warmup=")
    return rest if before == Duration() else _warmup(before).then(rest)


# Some words have a parameter of the same name as another word.
_warmup, _cooldown = warmup, cooldown
