"""The words of the language: thin verbs over the nodes, each a line.

Both ends are explicit, with a default only where the word itself fixes one. Every ramp takes
``over=`` last; without it the ramp takes what is left of the span.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ratecraft.schedule.duration import Duration, as_duration
from ratecraft.schedule.nodes import Custom, Ramp, Schedule, Staircase

__all__ = ["constant", "cooldown", "cosine", "custom", "exponential", "linear", "polynomial"]
__all__ += ["staircase", "warmup"]

Length = int | Duration


def _length(value: Length | None, what: str = "over=") -> Duration | None:
    return None if value is None else as_duration(value, what)


def _listed(values: Iterable[Any], what: str) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"staircase: {what} must be a list, not {values!r}")
    return list(values)


def constant(value: float = 1, over: Length | None = None) -> Schedule:
    """Return the same value throughout: f(t) = value.

    >>> constant(0.5).resolve()(1_000)
    0.5
    """
    return Ramp("linear", value, value, _length(over))


def linear(start: float, end: float, over: Length | None = None) -> Schedule:
    """Return a straight line: f(t) = start (1 - x) + end x, x = t / length.

    >>> linear(1, 0).resolve(total=4).values()
    array([1.  , 0.75, 0.5 , 0.25])
    """
    return Ramp("linear", start, end, _length(over))


def cosine(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return half a cosine wave: f(t) = end + (start - end) (1 + cos(pi x)) / 2, x = t / length.

    Source: Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5.

    >>> cosine(1, 0.1).resolve(total=4).values().round(3)
    array([1.   , 0.868, 0.55 , 0.232])
    """
    return Ramp("cosine", start, end, _length(over))


def exponential(start: float, end: float, over: Length | None = None) -> Schedule:
    """Return equal ratios in equal times: f(t) = start (end / start)^x, x = t / length.

    Raises:
        ScheduleError: an end is 0, or the ends are on two sides of 0.

    >>> round(exponential(1, 0.01).resolve(total=10)(5), 12)
    0.1
    """
    return Ramp("exponential", start, end, _length(over))


def polynomial(start: float, end: float, power: float = 1, over: Length | None = None) -> Schedule:
    """Return a power of what is left: f(t) = end + (start - end) (1 - x)^power, x = t / length.

    Source: Chen et al. 2016 (DeepLab, "poly"), arXiv 1606.00915.

    >>> polynomial(1, 0, 2).resolve(total=4).values()
    array([1.    , 0.5625, 0.25  , 0.0625])
    """
    return Ramp("polynomial", start, end, _length(over), (power,))


def warmup(over: Length, start: float = 0) -> Schedule:
    """Return a line from ``start`` to 1: f(t) = start (1 - x) + x, x = t / length.

    Source: Goyal et al. 2017, arXiv 1706.02677, section 2.2 ("gradual warmup").

    >>> warmup(4).resolve().values([0, 1, 2, 3, 4, 5])
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ])
    """
    return Ramp("linear", start, 1, as_duration(over, "warmup: over="))


def cooldown(over: Length, end: float = 0) -> Schedule:
    """Return a line from 1 to ``end``: f(t) = 1 - x + end x, x = t / length.

    Source: Hägele et al. 2024, arXiv 2405.18392, eq. 1.

    >>> constant(1).then(cooldown(4)).resolve(total=10)(8)
    0.5
    """
    return Ramp("linear", 1, end, as_duration(over, "cooldown: over="))


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
    joins = None if at is None else tuple(as_duration(x, "at=") for x in _listed(at, "at="))
    return Staircase(
        tuple(_listed(values, "values")), _length(every, "every="), joins, _length(over)
    )


def custom(function: Callable[[float], float], over: Length | None = None) -> Schedule:
    """Return a Python function of t, the updates since its start: f(t) = function(t).

    Two are equal if their functions are the same object. It has no notation that can be read
    back, so `parse` refuses what it prints.

    >>> custom(lambda t: 0.5 ** (t // 10)).resolve()(25)
    0.25
    """
    return Custom(function, _length(over))
