"""The words of the language: thin verbs over the nodes, each a line.

Both ends are explicit, with a default only where the word itself fixes one. Every ramp takes
``over=`` last; without it the ramp takes what is left of the span.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ratecraft.errors import ScheduleError

from ._duration import Duration, Length, as_duration, as_number, number_text
from ._leaves import Clocked, Custom, Multiplicative, Ramp, Staircase
from ._nodes import Schedule


def _length(value: Length | None, what: str = "over=") -> Duration | None:
    return None if value is None else as_duration(value, what)


def _ends(word: str, start: object, end: object) -> tuple[float, float]:
    """Check both ends under the name that the user wrote, where the shape has another."""
    return as_number(start, f"{word}: start"), as_number(end, f"{word}: end")


def _listed(values: Iterable[Any], what: str) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{what} must be a list, not {values!r}")
    return list(values)


def constant(value: float = 1, over: Length | None = None) -> Schedule:
    """Return the same value throughout: f(t) = value.

    Args:
        value: the value.
        over: length; default what is left.

    >>> constant(0.5).resolve()(1_000)
    0.5
    """
    value = as_number(value, "constant: value")
    return Ramp("linear", value, value, _length(over))


def linear(start: float, end: float, over: Length | None = None) -> Schedule:
    """Return a straight line: f(t) = start (1 - x) + end x, x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default what is left.

    >>> linear(1, 0).resolve(total_steps=4).values()
    array([1.  , 0.75, 0.5 , 0.25])
    """
    return Ramp("linear", start, end, _length(over))


def cosine(
    start: float = 1, end: float = 0, half_cycles: float = 1, over: Length | None = None
) -> Schedule:
    """Return a cosine wave: f(t) = end + (start - end) (1 + cos(pi n x)) / 2, x = t / length.

    Args:
        start: value at t = 0.
        end: the other extreme of the wave, and with one half cycle its last value.
        half_cycles: n above; 2 falls and climbs back, 7 is transformers' ``num_cycles=3.5``.
        over: length; default what is left.

    Source: Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5.

    >>> cosine(1, 0.1).resolve(total_steps=4).values().round(3)
    array([1.   , 0.868, 0.55 , 0.232])
    """
    return Ramp("cosine", start, end, _length(over), (half_cycles,))


def exponential(start: float, end: float, over: Length | None = None) -> Schedule:
    """Return equal ratios in equal times: f(t) = start (end / start)^x, x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default what is left.

    Raises:
        ScheduleError: an end is 0, or the ends are on two sides of 0.

    >>> round(exponential(1, 0.01).resolve(total_steps=10)(5), 12)
    0.1
    """
    return Ramp("exponential", start, end, _length(over))


def polynomial(start: float, end: float, power: float = 1, over: Length | None = None) -> Schedule:
    """Return a power of what is left: f(t) = end + (start - end) (1 - x)^power, x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        power: the power, > 0; 1 is a line.
        over: length; default what is left.

    Source: Chen et al. 2016 (DeepLab, "poly"), arXiv 1606.00915.

    >>> polynomial(1, 0, 2).resolve(total_steps=4).values()
    array([1.    , 0.5625, 0.25  , 0.0625])
    """
    return Ramp("polynomial", start, end, _length(over), (power,))


def one_minus_sqrt(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return 1 - sqrt between two ends: f(t) = end + (start - end) (1 - sqrt(x)), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default what is left.

    Source: Hägele et al. 2024, arXiv 2405.18392 (the "1-sqrt" cooldown).

    >>> one_minus_sqrt(1, 0).resolve(total_steps=4).values([0, 1, 4])
    array([1. , 0.5, 0. ])
    """
    return Ramp("one_minus_power", *_ends("one_minus_sqrt", start, end), _length(over), (0.5,))


def square(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return 1 - square between two ends: f(t) = end + (start - end) (1 - x^2), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default what is left.

    Source: Hägele et al. 2024, arXiv 2405.18392 (the "square" cooldown).

    >>> square(1, 0).resolve(total_steps=4).values([0, 2, 4])
    array([1.  , 0.75, 0.  ])
    """
    return Ramp("one_minus_power", *_ends("square", start, end), _length(over), (2,))


def sqrt(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return the root of what is left: f(t) = end + (start - end) sqrt(1 - x), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default what is left.

    >>> sqrt(1, 0).resolve(total_steps=4).values([0, 3, 4])
    array([1. , 0.5, 0. ])
    """
    return polynomial(*_ends("sqrt", start, end), 0.5, over)


def tanh(
    start: float = 1, end: float = 0, low: float = -7, high: float = 3, over: Length | None = None
) -> Schedule:
    """Return a tanh between two ends: f(t) = end + (start - end) (1 - tanh(z)) / 2.

    z goes from ``low`` to ``high`` in a line, so that the ends are reached up to tanh(low) and
    tanh(high): with the defaults to 8e-7 and 2.5e-3 of the way.

    Args:
        start: value that it begins near.
        end: value that it ends near.
        low: z at t = 0.
        high: z at the end.
        over: length; default what is left.

    Source: Hsueh et al. 2018, arXiv 1806.01593.

    >>> tanh(1, 0).resolve(total_steps=100).values([0, 70, 100]).round(4)
    array([1.    , 0.5   , 0.0025])
    """
    return Ramp("tanh", start, end, _length(over), (low, high))


def rex(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return REX: f(t) = end + (start - end) (1 - x) / (1 - x / 2), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default what is left.

    Source: Chen et al. 2021, arXiv 2107.04197.

    >>> rex(1, 0).resolve(total_steps=4).values([0, 2, 4]).round(4)
    array([1.    , 0.6667, 0.    ])
    """
    return Ramp("rex", start, end, _length(over))


def decay(gamma: float, every: Length = 1, over: Length | None = None) -> Schedule:
    """Return a factor per unit of time: f(t) = gamma^(t / every), between the units, too.

    For one step per unit, as ExponentialLR on an epoch clock, write
    ``constant(1, over=epochs(1)).repeat(decay=gamma)``.

    Args:
        gamma: factor per ``every``.
        every: length of the unit.
        over: length; default what is left.

    >>> decay(0.5, every=10).resolve()(20)
    0.25
    """
    return Clocked("decay", gamma, (as_duration(every, "every="),), _length(over))


def exp_decay(k: float, every: Length = 1, over: Length | None = None) -> Schedule:
    """Return e^(-k t / every), which is ``decay(exp(-k), every)``.

    Args:
        k: exponent per ``every``; > 0 falls.
        every: length of the unit.
        over: length; default what is left.

    >>> round(exp_decay(0.1).resolve()(10), 6)
    0.367879
    """
    k = as_number(k, "exp_decay: k")
    try:
        gamma = math.exp(-k)
    except OverflowError:
        raise ScheduleError(f"exp_decay: k={number_text(k)} is too small: e^-k overflows") from None
    return decay(gamma, every, over)


def inverse_sqrt(timescale: Length, over: Length | None = None) -> Schedule:
    """Return f(t) = sqrt(timescale / (t + timescale)): 1 at first, then as 1 / sqrt(t).

    After a warm-up as long as the timescale this is the Transformer's and fairseq's schedule.

    Args:
        timescale: length in which it falls to 1 / sqrt(2).
        over: length; default what is left.

    Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 3.

    >>> warmup(100).then(inverse_sqrt(100)).resolve().values([100, 400])
    array([1. , 0.5])
    """
    scale = as_duration(timescale, "timescale=")
    return Clocked("power_law", -0.5, (scale, scale), _length(over))


def power_law(
    exponent: float, timescale: Length, shift: Length = 0, over: Length | None = None
) -> Schedule:
    """Return f(t) = min(1, ((t + shift) / timescale)^exponent), with a negative exponent.

    Args:
        exponent: the power, < 0.
        timescale: where t + shift reaches the value 1.
        shift: time already gone when this part begins, such as a warm-up before it.
        over: length; default what is left.

    Source: Shen et al. 2024, arXiv 2408.13359 (the power scheduler).

    >>> power_law(-0.5, 100).resolve().values([0, 100, 400])
    array([1. , 1. , 0.5])
    """
    lengths = as_duration(timescale, "timescale="), as_duration(shift, "shift=")
    return Clocked("power_law", exponent, lengths, _length(over))


def warmup(
    over: Length, start: float = 0, *, shape: str = "linear", hold: Length | None = None
) -> Schedule:
    """Return a rise from ``start`` to 1; linear: f(t) = start (1 - x) + x, x = t / length.

    Args:
        over: length of the whole warm-up; ``untuned_warmup(0.999)`` follows from Adam's beta2.
        start: first value.
        shape: "linear", "cosine", "exponential" (start > 0), or "constant", which holds
            ``start`` and then jumps.
        hold: how long to hold ``start`` before the rise begins.

    Source: Goyal et al. 2017, arXiv 1706.02677, section 2.2.

    >>> warmup(4).resolve().values([0, 1, 2, 3, 4, 5])
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ])
    >>> warmup(5, start=0.1, hold=2)
    constant(0.1, over=2).then(warmup(3, start=0.1))
    """
    length = as_duration(over, "warmup: over=")
    if hold is not None:
        held = as_duration(hold, "warmup: hold=")
        return constant(start, held).then(warmup(length - held, start, shape=shape))
    rises = {
        "linear": lambda: Ramp("linear", start, 1, length),
        "cosine": lambda: cosine(start, 1, over=length),
        "exponential": lambda: exponential(start, 1, length),
        "constant": lambda: constant(start, length),
    }
    return _chosen(rises, shape, "warmup")


def untuned_warmup(beta2: float = 0.999) -> Duration:
    """Return the warm-up length that follows from Adam's beta2: 2 / (1 - beta2) steps.

    Args:
        beta2: Adam's second beta, >= 0 and < 1.

    Source: Ma & Yarats 2019, arXiv 1910.04209.

    >>> warmup(untuned_warmup(0.999))
    warmup(2000)
    """
    beta2 = as_number(beta2, "beta2")
    if not 0 <= beta2 < 1:
        raise ScheduleError(f"untuned_warmup: beta2={beta2} must be >= 0 and < 1")
    return as_duration(round(2 / (1 - beta2)), "untuned_warmup()")


def cooldown(over: Length, end: float = 0, *, shape: str = "linear") -> Schedule:
    """Return a fall from 1 to ``end``; linear: f(t) = 1 - x + end x, x = t / length.

    Args:
        over: length.
        end: last value.
        shape: "linear", "cosine", "exponential" (end > 0), "1-sqrt" or "square".

    Source: Hägele et al. 2024, arXiv 2405.18392.

    >>> constant(1).then(cooldown(4)).resolve(total_steps=10)(8)
    0.5
    """
    length = as_duration(over, "cooldown: over=")
    falls = {
        "linear": lambda: Ramp("linear", 1, end, length),
        "cosine": lambda: cosine(1, end, over=length),
        "exponential": lambda: exponential(1, end, length),
        "1-sqrt": lambda: one_minus_sqrt(1, end, length),
        "square": lambda: square(1, end, length),
    }
    return _chosen(falls, shape, "cooldown")


def _chosen(shapes: dict[str, Callable[[], Schedule]], shape: str, word: str) -> Schedule:
    if shape not in shapes:
        known = ", ".join(map(repr, shapes))
        raise ScheduleError(f"{word}: shape={shape!r} is none of {known}")
    return shapes[shape]()


def staircase(
    values: Iterable[float],
    *,
    every: Length | None = None,
    at: Iterable[Length] | None = None,
    over: Length | None = None,
) -> Schedule:
    """Return levels: level i + 1 begins at ``at[i]``, or after i + 1 times ``every``.

    Args:
        values: the levels, first to last; the last one holds.
        every: length of each level.
        at: where each level after the first begins, counted from the staircase's own start.
        over: length of the whole; without it the last level takes what is left.

    >>> staircase([1, 0.1, 0.01], at=[30, 60]).resolve().values([29, 30, 60])
    array([1.  , 0.1 , 0.01])
    """
    joins = (
        None if at is None else tuple(as_duration(x, "at=") for x in _listed(at, "staircase: at="))
    )
    return Staircase(
        tuple(_listed(values, "staircase: values")), _length(every, "every="), joins, _length(over)
    )


def custom(function: Callable[[float], float], over: Length | None = None) -> Schedule:
    """Return a Python function of t, the steps since its start: f(t) = function(t).

    Two are equal if their functions are the same object. It has no notation that can be read
    back, so `parse` refuses what it prints.

    Args:
        function: takes t as a number >= 0 and returns the value.
        over: length; default what is left.

    >>> custom(lambda t: 0.5 ** (t // 10)).resolve()(25)
    0.25
    """
    return Custom(function, _length(over))


def levels(pairs: Iterable[tuple[Length, float]]) -> Schedule:
    """Return a written list: each value for its own length, one after the other.

    Args:
        pairs: (length, value) of each level, first to last.

    >>> from ratecraft import epochs
    >>> levels([(epochs(1), 0.1), (epochs(2), 0.01)])
    constant(0.1, over=epochs(1)).then(constant(0.01, over=epochs(2)))
    """
    parts = []
    for pair in _listed(pairs, "levels: the list"):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"levels: each entry is (length, value), not {pair!r}")
        length, value = pair
        parts.append(constant(value, as_duration(length, "levels: a length")))
    if not parts:
        raise ScheduleError("levels([]): needs at least one (length, value)")
    return parts[0].then(*parts[1:])


def multiplicative(function: Callable[[int], float], over: Length | None = None) -> Schedule:
    """Return running products: f(0) = 1, f(k) = f(k - 1) function(k), as MultiplicativeLR.

    Tabulated when it is resolved, which takes as many calls as there are steps, and needs
    ``total_steps=`` or ``over=``. Like `custom` it has no notation that can be read back.

    Args:
        function: takes k, an int >= 1, and returns the factor from step k - 1 to k.
        over: length; default what is left.

    >>> multiplicative(lambda k: 0.5).resolve(total_steps=4).values()
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    return Multiplicative(function, _length(over))
