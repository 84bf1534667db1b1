"""One formula per shape, written once over a namespace: ``math``, numpy, torch or any other.

A *ramp* goes from ``start`` to ``end`` while t goes from 0 to ``length``; callers ask it for
0 < t < length only and answer the two ends themselves, so the ends are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

__all__ = ["RAMPS", "Formula"]

Formula = Callable[..., Any]
"""``formula(xp, t, length, start, end, *parameters)`` -> value, elementwise over t."""

HALF_PI: Final = math.pi / 2


def linear(xp: Any, t: Any, length: float, start: float, end: float) -> Any:
    """Start (1 - x) + end x, with x = t / length.

    Written symmetrically, so that values near a zero end keep their relative accuracy.
    """
    return start * ((length - t) / length) + end * (t / length)


def cosine(xp: Any, t: Any, length: float, start: float, end: float) -> Any:
    """End + (start - end) (1 + cos(pi x)) / 2 (Loshchilov & Hutter, arXiv 1608.03983, eq. 5).

    Computed as a squared sine measured from the smaller end: the textbook form loses 16384 ulp
    there.
    """
    if abs(start) >= abs(end):
        sine = xp.sin(HALF_PI * ((length - t) / length))
        return end + (start - end) * (sine * sine)
    sine = xp.sin(HALF_PI * (t / length))
    return start + (end - start) * (sine * sine)


def exponential(xp: Any, t: Any, length: float, start: float, end: float) -> Any:
    """Start (end / start)^x: equal ratios in equal times."""
    return start * (end / start) ** (t / length)


def polynomial(xp: Any, t: Any, length: float, start: float, end: float, power: float) -> Any:
    """End + (start - end) (1 - x)^power (Chen et al., DeepLab, arXiv 1606.00915)."""
    return end + (start - end) * ((length - t) / length) ** power


RAMPS: Final[dict[str, Formula]] = {
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "polynomial": polynomial,
}
