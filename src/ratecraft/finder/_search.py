"""Which lr to try next, and what to make of those that were tried: numbers, without torch.

LRs are written as decades from the one that the search began with; what each of them gained,
the loss before less the loss after, is -inf where training diverged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

STEP: Final = 0.5  # decades between the best place and those beside it, in the end
SLIGHT: Final = 0.01  # of the loss: where less is gained, the lr is far too low
FAR: Final = 1.5  # decades below the best place that are looked at before it is believed
LEAN: Final = 0.25  # of the way from the top to the lowest place that is as good
NEAR: Final = 0.1  # of the best gain: what misses no more is as good

Gains = Mapping[float, float]


class Top(NamedTuple):
    """Where most is gained, between the two places where nearly as much is."""

    low: float
    place: float
    high: float


def next_place(gains: Gains, before: float) -> float | None:
    """Return the place to try next, or None if the best has a neighbour on both sides.

    It goes up first, by a decade, or two where next to nothing was gained; then down; then
    between the best place and those beside it.

    >>> next_place({}, 2.3), next_place({0: 0.1}, 2.3), next_place({0: 0.1, 1: 0.5}, 2.3)
    (0.0, 1.0, 2.0)
    >>> next_place({0: 0.1, 1: 0.5, 2: 0.3}, 2.3)
    1.5
    """
    if not gains:
        return 0.0
    best = max(gains, key=gains.__getitem__)
    slight = SLIGHT * abs(before)
    harmless = [place for place in gains if gains[place] >= -slight]
    if not harmless:
        return min(gains) - (1.0 if len(gains) == 1 else 2.0)
    if gains[best] < slight and max(harmless) != best:
        # Which is best is luck. If there is more to gain, then at the highest lr that does no
        # harm, or above; only when that is enclosed, too, is the best one looked at.
        place = _between(gains, max(harmless), 2.0)
        if place is not None:
            return place
    place = _between(gains, best, 2.0 if gains[best] < slight else 1.0)
    if place is not None:
        return place
    if min(gains) == best:
        return best - 1.0
    place = _between(gains, best, 0.0, side=-1)
    if place is not None:
        return place
    # A network that has died at a high lr may have gained, too: the true top lies far below.
    return best - FAR if min(gains) > best - FAR else None


def _between(gains: Gains, place: float, further: float, side: int = 1) -> float | None:
    """Return a place between one and the next on that side; so much further on if there is none.

    None if they are no more than a step apart.
    """
    others = [other for other in gains if (other - place) * side > 0]
    if not others:
        return place + side * further
    gap = min(abs(other - place) for other in others)
    return place + side * max(STEP, STEP * (gap // (2 * STEP))) if gap > STEP else None


def around_best(gains: Gains) -> list[float]:
    """Return the best place and those beside it, as far as they were tried.

    >>> around_best({-1: 0.2, -0.5: 0.9, 0: 1.0, 0.5: -math.inf})
    [-0.5, 0, 0.5]
    """
    best = max(gains, key=gains.__getitem__)
    return sorted(place for place in gains if abs(place - best) <= STEP)


def top(gains: Gains, best: float | None = None) -> Top | None:
    """Return where most is gained: the parabola's top through the best place and its neighbours.

    The place is then moved a quarter of the way to the lowest where all but 10 % as much is
    gained, since an lr that is too low costs less than one that is too high. None if nothing is
    gained. ``best`` says which place is the best, where that is known better.

    >>> low, place, high = top({-1: 0.2, -0.5: 0.9, 0: 1.0, 0.5: 0.9, 1: -math.inf})
    >>> round(low, 6), round(place, 6), round(high, 6)
    (-0.5, -0.125, 0.5)
    """
    best = max(gains, key=gains.__getitem__) if best is None else best
    if not gains[best] > 0:
        return None
    peak = best + _vertex(gains, best)
    low, high = _edge(gains, best, -1), _edge(gains, best, 1)
    return Top(min(low, peak), peak - LEAN * max(peak - low, 0), max(high, peak))


def _vertex(gains: Gains, best: float) -> float:
    """Return how far the top of the parabola lies from the best place, at most half a step."""
    left, right = gains.get(best - STEP, -math.inf), gains.get(best + STEP, -math.inf)
    if math.isinf(left):
        return 0.0
    if math.isinf(right):  # the top lies before the cliff
        return -STEP / 5
    bend = 2 * gains[best] - left - right
    return 0.0 if bend <= 0 else max(-1.0, min(1.0, (right - left) / bend)) * STEP / 2


def _edge(gains: Gains, best: float, side: int) -> float:
    """Return how far to one side nearly as much is gained, linearly between two places."""
    enough = (1 - NEAR) * gains[best]
    inside = best
    for place in sorted((p for p in gains if (p - best) * side > 0), key=lambda p: p * side):
        if gains[place] >= enough:
            inside = place
        elif math.isinf(gains[place]):
            break
        else:
            share = (gains[inside] - enough) / (gains[inside] - gains[place])
            return inside + (place - inside) * share
    return inside
