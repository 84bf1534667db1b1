"""The public functions for whole schedules, such as `wsd`; ``str`` of a result is the call."""

from collections.abc import Callable
from functools import wraps
from numbers import Integral
from typing import ParamSpec

from ratecraft.errors import ScheduleError

from . import _shapes as shapes
from ._base import call_text
from ._duration import Duration, Length, as_duration, as_number, percent
from ._nodes import Schedule

P = ParamSpec("P")

DEFAULT_COOLDOWN = percent(20)
DEFAULT_RISE = percent(30)


def recipe(function: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """Let ``str`` of the schedules that a function returns be the call."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        schedule = function(*args, **kwargs)
        return schedule._with_text(call_text(function.__name__, *args, **kwargs))

    return call


@recipe
def wsd(
    warmup: Length, cooldown: Length = DEFAULT_COOLDOWN, shape: str = "1-sqrt", end: float = 0
) -> Schedule:
    """Return warmup-stable-decay: a linear rise to 1, a plateau, and a cooldown to ``end``.

    Args:
        warmup: length of the warmup.
        cooldown: length of the cooldown, at the end of the run; default 20 percent of the run.
        shape: "linear", "cosine", "exponential" (end > 0), "1-sqrt" or "square"; else a
            ScheduleError.
        end: last value.

    Source: Hu et al. 2024 (MiniCPM), arXiv 2404.06395; shapes in Hägele et al., arXiv 2405.18392.

    >>> wsd(500, percent(10), shape="linear")
    warmup(500).then(constant(1)).then(cooldown(percent(10)))
    """
    fall = shapes.cooldown(cooldown, end, shape=shape)
    return shapes.warmup(warmup).then(shapes.constant(1), fall)


@recipe
def trapezoid(warmup: Length, cooldown: Length, end: float = 0) -> Schedule:
    """Return a trapezoid: a linear rise to 1, a plateau, and a linear fall to ``end``.

    Args:
        warmup: length of the warmup.
        cooldown: length of the cooldown, at the end of the run.
        end: last value.

    Source: Zhai et al. 2021, arXiv 2106.04560.

    >>> trapezoid(percent(10), percent(30))
    warmup(percent(10)).then(constant(1)).then(cooldown(percent(30)))
    """
    return wsd(warmup, cooldown, "linear", end)


@recipe
def knee(explore: Length, warmup: Length = 0) -> Schedule:
    """Return the knee schedule: 1 for the explore phase, then a linear fall to 0.

    Args:
        explore: length of the phase at 1.
        warmup: length of a warmup before it; default none.

    Source: Iyer et al. 2020, arXiv 2003.03977.

    >>> knee(percent(50))
    constant(1, over=percent(50)).then(linear(1, 0))
    """
    return _with_warmup(warmup, shapes.constant(1, explore).then(shapes.linear(1, 0)))


@recipe
def linear_to_zero(warmup: Length = 0) -> Schedule:
    """Return a linear fall to 0 over the run, after an optional warmup.

    Args:
        warmup: length of the warmup; default none.

    Source: Bergsma et al. 2025, arXiv 2502.15938 ("straight to zero").

    >>> linear_to_zero(percent(10))
    warmup(percent(10)).then(linear(1, 0))
    """
    return _with_warmup(warmup, shapes.linear(1, 0))


@recipe
def noam(warmup: int, model_width: int) -> Schedule:
    """Return the learning rate of the Transformer: width^-0.5 min(t^-0.5, t warmup^-1.5).

    Args:
        warmup: length of the warmup in steps, an int >= 1 (else a ScheduleError).
        model_width: the model's width d_model, an int >= 1 (else a ScheduleError).

    Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 3.

    >>> noam(4000, 512).resolve()(4000) == 512**-0.5 * 4000**-0.5
    True
    """
    scale = 1.0
    for name, value in (("model_width", model_width), ("warmup", warmup)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ScheduleError(f"noam: {name}={value!r} must be an int >= 1")
        scale *= as_number(value, f"noam: {name}") ** -0.5
    return scale * shapes.warmup(warmup).then(shapes.inverse_sqrt(warmup))


@recipe
def power_scheduler(
    warmup: Length,
    timescale: Length,
    exponent: float = -0.51,
    cooldown: Length = DEFAULT_COOLDOWN,
    end: float = 0.01,
) -> Schedule:
    """Return the power scheduler: a warmup, a power law of t and an exponential cooldown.

    Args:
        warmup: length of the warmup.
        timescale: the time until which the value is 1; then it is (t / timescale)^exponent.
        exponent: the exponent of the power law, < 0.
        cooldown: length of the cooldown, at the end of the run; default 20 percent of the run.
        end: factor of the power law at the end of the cooldown, > 0.

    Source: Shen et al. 2024, arXiv 2408.13359.

    >>> curve = power_scheduler(10, 100, cooldown=percent(10)).resolve(total_steps=1000)
    >>> curve(100), round(curve(800), 4)
    (1.0, 0.3463)
    """
    law = _with_warmup(warmup, shapes.power_law(exponent, timescale, shift=warmup))
    fall = shapes.exponential(1, end, as_duration(cooldown, "cooldown="))
    return law * shapes.constant(1).then(fall)


@recipe
def one_cycle(
    warmup: Length = DEFAULT_RISE,
    start: float = 0.04,
    end: float = 4e-6,
    shape: str = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """Return the 1cycle schedule: a rise from ``start`` to 1, then a fall to ``end``.

    Args:
        warmup: length of the rise; default 30 percent of the run.
        start: first value; 1 / div_factor of torch's OneCycleLR.
        end: last value; 1 / (div_factor final_div_factor) of torch's OneCycleLR.
        shape: "cosine" or "linear"; else a ScheduleError.
        three_phase: fall to ``start`` as fast as the rise, and then to ``end``.

    Source: Smith & Topin 2017, arXiv 1708.07120.

    >>> one_cycle(percent(30), start=0.1, end=0)
    cosine(0.1, 1, over=percent(30)).then(cosine(1, 0))
    """
    length = as_duration(warmup, "one_cycle: warmup=")
    ramp = shapes.ramp_function(shape, ("cosine", "linear"), "one_cycle")
    rise = ramp(start, 1, over=length)
    if three_phase:
        return rise.then(ramp(1, start, over=length)).then(ramp(start, end))
    return rise.then(ramp(1, end))


@recipe
def triangular(up: Length, down: Length | None = None, low: float = 0.1) -> Schedule:
    """Return endless triangular cycles from ``low`` to 1 and back.

    Args:
        up: length of the rise.
        down: length of the fall; default the same.
        low: first and lowest value; CyclicLR's base_lr / max_lr.

    Source: Smith 2015, arXiv 1506.01186.

    >>> triangular(2, low=0.5).resolve().values([0, 1, 2, 3, 4])
    array([0.5 , 0.75, 1.  , 0.75, 0.5 ])
    """
    return _triangle(up, down).repeat().rescale(low, 1)


@recipe
def triangular2(up: Length, down: Length | None = None, low: float = 0.1) -> Schedule:
    """Return `triangular` cycles that halve in height.

    Args:
        up: length of the rise.
        down: length of the fall; default the same.
        low: first and lowest value; CyclicLR's base_lr / max_lr.

    Source: Smith 2015, arXiv 1506.01186.

    >>> triangular2(2, low=0.5).resolve().values([2, 6])
    array([1.  , 0.75])
    """
    return _triangle(up, down).repeat(decay=0.5).rescale(low, 1)


@recipe
def exp_range(gamma: float, up: Length, down: Length | None = None, low: float = 0.1) -> Schedule:
    """Return `triangular` cycles whose height is multiplied by gamma at every step.

    Args:
        gamma: factor per step.
        up: length of the rise.
        down: length of the fall; default the same.
        low: first and lowest value; CyclicLR's base_lr / max_lr.

    Source: Smith 2015, arXiv 1506.01186.

    >>> exp_range(0.5, 2, low=0).resolve().values([1, 2])
    array([0.25, 0.25])
    """
    return (_triangle(up, down).repeat() * shapes.decay(gamma)).rescale(low, 1)


@recipe
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
        n: number of cycles; without it the cycles repeat until the end of the run. One of the two
            is needed (else a ScheduleError).
        grow: ratio of the lengths of successive cycles.
        decay: ratio of the heights of successive cycles above ``end``.
        end: lowest value.

    Source: Loshchilov & Hutter 2017, arXiv 1608.03983.

    >>> restarts(10, grow=2).resolve(total_steps=70).values([0, 5, 10, 30]).round(6)
    array([1. , 0.5, 1. , 1. ])
    """
    if first is None and n is None:
        raise ScheduleError(
            "restarts: write first= (length of the first cycle) or n= (number of cycles)"
        )
    length = None if first is None else as_duration(first, "restarts: first=")
    cycles = shapes.cosine(over=length).repeat(n, grow=grow, decay=decay)
    return cycles.rescale(end, 1) if end else cycles


def _triangle(up: Length, down: Length | None) -> Schedule:
    fall = as_duration(up if down is None else down, "down=")
    return shapes.warmup(up).then(shapes.cooldown(fall))


def _with_warmup(length: Length, rest: Schedule) -> Schedule:
    """Prepend a warmup to a schedule, unless its length is 0."""
    before = as_duration(length, "warmup=")
    return rest if before == Duration() else shapes.warmup(before).then(rest)
