"""The public functions for single shapes; without ``over=`` a shape fills the rest of the run."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from ratecraft.errors import ScheduleError

from ._duration import Duration, Length, as_duration, as_number, number_text, steps
from ._leaves import Clocked, Custom, Ramp, Staircase
from ._nodes import Schedule


def _length(over: Length | None) -> Duration | None:
    return None if over is None else as_duration(over, "over=")


def _as_list(values: object, name: str) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, not {values!r}")
    return list(values)


def constant(value: float = 1, over: Length | None = None) -> Schedule:
    """Return a constant: f(t) = value.

    Args:
        value: value at every t.
        over: length; default the rest of the run.

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
        over: length; default the rest of the run.

    >>> linear(1, 0).resolve(total_steps=4).values()
    array([1.  , 0.75, 0.5 , 0.25])
    """
    return Ramp("linear", start, end, _length(over))


def cosine(
    start: float = 1, end: float = 0, half_cycles: float = 1, over: Length | None = None
) -> Schedule:
    """Return a cosine: f(t) = end + (start - end) (1 + cos(pi n x)) / 2, x = t / length.

    Args:
        start: value at t = 0.
        end: the other extreme of the cosine; with one half cycle, its last value.
        half_cycles: n, > 0, at most 1e18; 2 falls and rises, 7 is transformers' ``num_cycles=3.5``.
        over: length; default the rest of the run.

    Source: Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5.

    >>> cosine(1, 0.1).resolve(total_steps=4).values().round(3)
    array([1.   , 0.868, 0.55 , 0.232])
    """
    return Ramp("cosine", start, end, _length(over), (half_cycles,))


def exponential(start: float, end: float, over: Length | None = None) -> Schedule:
    """Return an exponential between two ends: f(t) = start (end / start)^x, x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end; not 0, and of the sign of ``start`` (else a ScheduleError).
        over: length; default the rest of the run.

    >>> round(exponential(1, 0.01).resolve(total_steps=10)(5), 12)
    0.1
    """
    return Ramp("exponential", start, end, _length(over))


def polynomial(start: float, end: float, power: float = 1, over: Length | None = None) -> Schedule:
    """Return a polynomial decay: f(t) = end + (start - end) (1 - x)^power, x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        power: the exponent, > 0; 1 is a line.
        over: length; default the rest of the run.

    Source: Chen et al. 2016 (DeepLab, "poly"), arXiv 1606.00915.

    >>> polynomial(1, 0, 2).resolve(total_steps=4).values()
    array([1.    , 0.5625, 0.25  , 0.0625])
    """
    return Ramp("polynomial", start, end, _length(over), (power,))


def one_minus_sqrt(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return a 1 - sqrt decay: f(t) = end + (start - end) (1 - sqrt(x)), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default the rest of the run.

    Source: Hägele et al. 2024, arXiv 2405.18392 (the "1-sqrt" cooldown).

    >>> one_minus_sqrt(1, 0).resolve(total_steps=4).values([0, 1, 4])
    array([1. , 0.5, 0. ])
    """
    return Ramp("one_minus_sqrt", start, end, _length(over))


def square(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return a 1 - square decay: f(t) = end + (start - end) (1 - x^2), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default the rest of the run.

    Source: Hägele et al. 2024, arXiv 2405.18392 (the "square" cooldown).

    >>> square(1, 0).resolve(total_steps=4).values([0, 2, 4])
    array([1.  , 0.75, 0.  ])
    """
    return Ramp("square", start, end, _length(over))


def sqrt(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return a square-root decay: f(t) = end + (start - end) sqrt(1 - x), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default the rest of the run.

    >>> sqrt(1, 0).resolve(total_steps=4).values([0, 3, 4])
    array([1. , 0.5, 0. ])
    """
    return polynomial(as_number(start, "sqrt: start"), as_number(end, "sqrt: end"), 0.5, over)


def tanh(
    start: float = 1, end: float = 0, low: float = -7, high: float = 3, over: Length | None = None
) -> Schedule:
    """Return a tanh decay: f(t) = end + (start - end) (1 - tanh(z)) / 2.

    z rises linearly. The ends are approached, not reached: with the defaults the relative gap is
    8e-7 at the start and 2.5e-3 at the end.

    Args:
        start: value near t = 0.
        end: value near the end.
        low: z at t = 0.
        high: z at the end.
        over: length; default the rest of the run.

    Source: Hsueh et al. 2018, arXiv 1806.01593.

    >>> tanh(1, 0).resolve(total_steps=100).values([0, 70, 100]).round(4)
    array([1.    , 0.5   , 0.0025])
    """
    return Ramp("tanh", start, end, _length(over), (low, high))


def rex(start: float = 1, end: float = 0, over: Length | None = None) -> Schedule:
    """Return a REX decay: f(t) = end + (start - end) (1 - x) / (1 - x / 2), x = t / length.

    Args:
        start: value at t = 0.
        end: value at the end.
        over: length; default the rest of the run.

    Source: Chen et al. 2021, arXiv 2107.04197.

    >>> rex(1, 0).resolve(total_steps=4).values([0, 2, 4]).round(4)
    array([1.    , 0.6667, 0.    ])
    """
    return Ramp("rex", start, end, _length(over))


def decay(gamma: float, every: Length = 1, over: Length | None = None) -> Schedule:
    """Return a continuous exponential decay: f(t) = gamma^(t / every).

    For a decay once per epoch, as ExponentialLR stepped per epoch, write
    ``constant(1, over=epochs(1)).repeat(decay=gamma)``.

    Args:
        gamma: factor per ``every``, > 0.
        every: the length in which the value is multiplied by gamma.
        over: length; default the rest of the run.

    >>> decay(0.5, every=10).resolve()(20)
    0.25
    """
    gamma, lengths = as_number(gamma, "decay"), (as_duration(every, "every="),)
    if gamma <= 0:
        raise ScheduleError(f"decay: gamma={number_text(gamma)} must be > 0")
    return Clocked("decay", gamma, lengths, _length(over))


def exp_decay(k: float, every: Length = 1, over: Length | None = None) -> Schedule:
    """Return an exponential decay: f(t) = e^(-k t / every), which is ``decay(exp(-k), every)``.

    Args:
        k: exponent per ``every``; the value falls if k > 0.
        every: the length in which the value is multiplied by e^-k.
        over: length; default the rest of the run.

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
    """Return an inverse square root: f(t) = sqrt(timescale / (t + timescale)).

    After a warmup of length ``timescale`` this is the schedule of the Transformer and of fairseq.

    Args:
        timescale: the length in which the value falls to 1 / sqrt(2).
        over: length; default the rest of the run.

    Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 3.

    >>> warmup(100).then(inverse_sqrt(100)).resolve().values([100, 400])
    array([1. , 0.5])
    """
    scale = as_duration(timescale, "timescale=")
    return Clocked("power_law", -0.5, (scale, scale), _length(over))


def power_law(
    exponent: float, timescale: Length, shift: Length = 0, over: Length | None = None
) -> Schedule:
    """Return a power law: f(t) = min(1, ((t + shift) / timescale)^exponent).

    Args:
        exponent: the exponent, < 0.
        timescale: the time t + shift until which the value is 1.
        shift: the time before this part begins, such as the length of a warmup.
        over: length; default the rest of the run.

    Source: Shen et al. 2024, arXiv 2408.13359 (the power scheduler).

    >>> power_law(-0.5, 100).resolve().values([0, 100, 400])
    array([1. , 1. , 0.5])
    """
    exponent = as_number(exponent, "power_law")
    if exponent >= 0:
        fix = "for a rise write polynomial(start, end, power)"
        raise ScheduleError(f"power_law: exponent={number_text(exponent)} must be < 0; {fix}")
    lengths = as_duration(timescale, "timescale="), as_duration(shift, "shift=")
    return Clocked("power_law", exponent, lengths, _length(over))


def warmup(
    over: Length, start: float = 0, *, shape: str = "linear", hold: Length | None = None
) -> Schedule:
    """Return a rise from ``start`` to 1; linear: f(t) = start (1 - x) + x, x = t / length.

    Args:
        over: length of the whole warmup; `untuned_warmup` computes one from Adam's beta2.
        start: first value.
        shape: "linear", "cosine", "exponential" (start > 0), or "constant", which holds
            ``start`` until the next part begins; else a ScheduleError.
        hold: the length for which ``start`` is held before the rise; part of ``over``.

    Source: Goyal et al. 2017, arXiv 1706.02677, section 2.2.

    >>> warmup(5, start=0.1, hold=2)
    constant(0.1, over=2).then(warmup(3, start=0.1))
    """
    length = as_duration(over, "warmup: over=")
    if hold is not None:
        flat = as_duration(hold, "warmup: hold=")
        return constant(start, flat).then(warmup(length - flat, start, shape=shape))
    ramp = ramp_function(shape, ("linear", "cosine", "exponential", "constant"), "warmup")
    return ramp(start, 1, over=length)


def untuned_warmup(beta2: float = 0.999) -> Duration:
    """Return the length of an untuned linear warmup for Adam: 2 / (1 - beta2) steps.

    Args:
        beta2: Adam's second beta, >= 0 and < 1 (else a ScheduleError).

    Source: Ma & Yarats 2019, arXiv 1910.04209.

    >>> warmup(untuned_warmup(0.999))
    warmup(2000)
    """
    beta2 = as_number(beta2, "beta2")
    if not 0 <= beta2 < 1:
        raise ScheduleError(f"untuned_warmup: beta2={beta2} must be >= 0 and < 1")
    return steps(round(2 / (1 - beta2)))


def cooldown(over: Length, end: float = 0, *, shape: str = "linear") -> Schedule:
    """Return a fall from 1 to ``end``; linear: f(t) = 1 - x + end x, x = t / length.

    Args:
        over: length.
        end: last value.
        shape: "linear", "cosine", "exponential" (end > 0), "1-sqrt" or "square"; else a
            ScheduleError.

    Source: Hägele et al. 2024, arXiv 2405.18392.

    >>> constant(1).then(cooldown(4)).resolve(total_steps=10)(8)
    0.5
    """
    length = as_duration(over, "cooldown: over=")
    ramp = ramp_function(shape, ("linear", "cosine", "exponential", "1-sqrt", "square"), "cooldown")
    return ramp(1, end, over=length)


RAMP_FUNCTIONS: Final[dict[str, Callable[..., Schedule]]] = {
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "1-sqrt": one_minus_sqrt,
    "square": square,
    "constant": lambda start, end, over: constant(start, over),
}


def ramp_function(shape: str, shapes: Iterable[str], word: str) -> Callable[..., Schedule]:
    """Return the function for a ``shape=`` that must be one of ``shapes``."""
    if shape not in shapes:
        known = ", ".join(map(repr, shapes))
        raise ScheduleError(f"{word}: shape= must be one of {known}, not {shape!r}")
    return RAMP_FUNCTIONS[shape]


def staircase(
    values: Iterable[float],
    *,
    every: Length | None = None,
    at: Iterable[Length] | None = None,
    lengths: Iterable[Length] | None = None,
    over: Length | None = None,
) -> Schedule:
    """Return a piecewise constant schedule; write one of ``every=``, ``at=`` and ``lengths=``.

    Args:
        values: the value of each level.
        every: the length of each level.
        at: the time at which each level after the first begins, from the start of the staircase.
        lengths: the length of each level. The result is the levels joined with ``.then()``.
        over: total length, with ``every=`` or ``at=``; default the rest of the run.

    Raises:
        ScheduleError: not exactly one of ``every=``, ``at=`` and ``lengths=`` is given, or the
            number of values does not fit.

    >>> staircase([1, 0.1, 0.01], at=[30, 60]).resolve().values([29, 30, 60])
    array([1.  , 0.1 , 0.01])
    """
    levels = [as_number(v, "staircase: a level") for v in _as_list(values, "staircase: values")]
    if not levels:
        raise ScheduleError("staircase([]): needs at least one level")
    if sum(argument is not None for argument in (every, at, lengths)) != 1:
        raise ScheduleError(
            "staircase needs exactly one of every=, at= and lengths=; write "
            "staircase([1, 0.1], every=epochs(30)), staircase([1, 0.1], at=[30]) or "
            "staircase([1, 0.1], lengths=[30, 60])"
        )
    n = len(levels)
    if every is not None:
        return Staircase(tuple(levels), every=as_duration(every, "every="), over_=_length(over))
    if at is not None:
        joins = tuple(as_duration(x, "at=") for x in _as_list(at, "staircase: at="))
        if len(joins) != n - 1:
            need = f"{n} levels need {n - 1} times in at=, not {len(joins)}"
            raise ScheduleError(f"staircase: {need}; the first level begins at 0")
        return Staircase(tuple(levels), at=joins, over_=_length(over))
    items = _as_list(lengths, "staircase: lengths=")
    durations = [as_duration(item, "staircase: a length") for item in items]
    if len(durations) != n:
        need = f"{n} levels need {n} lengths in lengths=, not {len(durations)}"
        raise ScheduleError(f"staircase: {need}")
    if over is not None:
        raise ScheduleError("staircase: lengths= already sets the total length; leave over= out")
    first, *rest = map(constant, levels, durations)
    return first.then(*rest)


def custom(function: Callable[[float], float], over: Length | None = None) -> Schedule:
    """Return a Python function of t, the steps since its start: f(t) = function(t).

    Two of them are equal if their functions are the same object. `parse` cannot read the text.

    Args:
        function: takes t, a number >= 0, and returns the value.
        over: length; default the rest of the run.

    >>> custom(lambda t: 0.5 ** (t // 10)).resolve()(25)
    0.25
    """
    if not callable(function):
        raise TypeError(f"custom() takes a function of t, not {function!r}")
    return Custom("custom", function, _length(over))


def multiplicative(function: Callable[[int], float], over: Length | None = None) -> Schedule:
    """Return running products, as MultiplicativeLR: f(0) = 1, f(k) = f(k - 1) function(k).

    Resolving calls the function once per step, so it needs ``total_steps=`` or ``over=``. `parse`
    cannot read the text.

    Args:
        function: takes k, an int >= 1, and returns the factor from step k - 1 to step k.
        over: length; default the rest of the run.

    >>> multiplicative(lambda k: 0.5).resolve(total_steps=4).values()
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    if not callable(function):
        raise TypeError(f"multiplicative() takes a function of k, not {function!r}")
    return Custom("multiplicative", function, _length(over))
