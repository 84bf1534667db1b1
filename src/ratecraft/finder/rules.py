"""From a range test's curve to a suggestion, or to the reason why there is none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

__all__ = ["minimum_over_ten"]

SKIP: Final = 10  # 1/SKIP of the curve at its start is never searched
PLATEAU: Final = 3  # 1/PLATEAU of the curve at its start is where nothing trains yet
DROP: Final = 0.01
NOISE: Final = 3


def minimum_over_ten(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]
) -> tuple[float | None, str]:
    """Return one decade left of the smoothed loss's minimum, and how it was chosen.

    The minimum is searched only after the descent has begun: never in the first tenth of the
    curve, where it would be the luck of the first batches, and only if the smoothed loss falls
    clearly below the plateau it starts from, the mean loss of the first third: by 1 %, and by
    three standard errors of that mean. (Where it stood after the first tenth counts if that is
    lower: a curve that only rises has no descent.)

    Args:
        rates: the rate of each update, ascending.
        losses: the loss of each update.
        smoothed: the smoothed loss of each update.

    Source: Gugger 2018, "How do you find a good learning rate", with the guard added.

    >>> losses = [2, 2.01, 1.99, 2, 2, 1.8, 1, 0.5, 1, 4]
    >>> minimum_over_ten([10.0**i for i in range(-8, 2)], losses, losses)
    (0.01, 'one decade left of the minimum of the smoothed loss, 0.5 at 0.1')
    """
    first = math.ceil(len(smoothed) / SKIP)
    if len(smoothed) - first < 2:
        return None, f"no suggestion: only {len(smoothed)} updates were seen"
    lowest = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    early = losses[: max(2, len(losses) // PLATEAU)]
    plateau, noise = statistics.fmean(early), statistics.stdev(early) / math.sqrt(len(early))
    start = min(plateau, smoothed[first - 1])
    if start - smoothed[lowest] < max(DROP * abs(plateau), NOISE * noise):
        return None, (
            f"no suggestion: the smoothed loss never fell clearly (from {start:.4g} ± {noise:.2g} "
            f"to {smoothed[lowest]:.4g}); test with more updates, or an untrained model"
        )
    place = f"{smoothed[lowest]:.4g} at {rates[lowest]:.3g}"
    return rates[lowest] / 10, f"one decade left of the minimum of the smoothed loss, {place}"
