"""One formula per shape, written once over a namespace: ``math``, numpy, torch or any other.

Each function takes a namespace and constants and returns a function of t, which works on a number
and elementwise on an array of that namespace. A *ramp* is a function of x = t / length from
``start`` to ``end``; a *clocked* shape is a function of t itself, the time since its start.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final

Function = Callable[[Any], Any]  # t -> value, elementwise

HALF_PI: Final = math.pi / 2


def linear(xp: Any, length: float, start: float, end: float) -> Function:
    """Return t -> start (1 - x) + end x; symmetric, so it is accurate near an end at zero."""
    return lambda t: start * ((length - t) / length) + end * (t / length)


def cosine(xp: Any, length: float, start: float, end: float, half_cycles: float = 1) -> Function:
    """Return t -> end + (start - end) (1 + cos(pi n x)) / 2 with n half cycles.

    With n = 1 it is computed as a squared sine measured from the smaller end, where the textbook
    form loses 16384 ulp.
    """
    sin, cos, span = xp.sin, xp.cos, start - end

    def falling(t: Any) -> Any:
        sine = sin(HALF_PI * ((length - t) / length))
        return end + span * (sine * sine)

    def rising(t: Any) -> Any:
        sine = sin(HALF_PI * (t / length))
        return start - span * (sine * sine)

    def wave(t: Any) -> Any:
        cosine = cos(HALF_PI * half_cycles * (t / length))
        return end + span * (cosine * cosine)

    if half_cycles != 1:
        return wave
    return falling if abs(start) >= abs(end) else rising


def exponential(xp: Any, length: float, start: float, end: float) -> Function:
    """Return t -> start (end / start)^x: equal ratios over equal times."""
    ratio = end / start
    return lambda t: start * ratio ** (t / length)


def polynomial(xp: Any, length: float, start: float, end: float, power: float) -> Function:
    """Return t -> end + (start - end) (1 - x)^power."""
    span = start - end
    return lambda t: end + span * ((length - t) / length) ** power


def one_minus_power(xp: Any, length: float, start: float, end: float, power: float) -> Function:
    """Return t -> end + (start - end) (1 - x^power)."""
    span = start - end
    return lambda t: end + span * (1 - (t / length) ** power)


def tanh(xp: Any, length: float, start: float, end: float, low: float, high: float) -> Function:
    """Return t -> end + (start - end) (1 - tanh(z)) / 2 with z = low (1 - x) + high x."""
    tanh_, span = xp.tanh, start - end

    def value(t: Any) -> Any:
        return end + span * ((1 - tanh_(low * ((length - t) / length) + high * (t / length))) / 2)

    return value


def rex(xp: Any, length: float, start: float, end: float) -> Function:
    """Return t -> end + (start - end) (1 - x) / (1 - x / 2)."""
    span = start - end
    return lambda t: end + span * ((length - t) / (length - t / 2))


def decay(xp: Any, gamma: float, every: float) -> Function:
    """Return t -> gamma^(t / every)."""
    return lambda t: gamma ** (t / every)


def power_law(xp: Any, exponent: float, timescale: float, shift: float) -> Function:
    """Return t -> ((t + shift) / timescale)^exponent, limited to 1."""
    fall_start = timescale - shift
    if xp is math:
        return lambda t: 1.0 if t <= fall_start else ((t + shift) / timescale) ** exponent
    return lambda t: (xp.clip(t + shift, timescale, None) / timescale) ** exponent


RAMPS: Final[dict[str, Callable[..., Function]]] = {
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "polynomial": polynomial,
    "one_minus_sqrt": partial(one_minus_power, power=0.5),
    "square": partial(one_minus_power, power=2.0),
    "tanh": tanh,
    "rex": rex,
}
CLOCKED: Final[dict[str, Callable[..., Function]]] = {"decay": decay, "power_law": power_law}
