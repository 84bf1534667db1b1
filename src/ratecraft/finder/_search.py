"""Search over log10(lr): what to try next, and where the best value lies. Needs no torch.

A position is the distance in decades from the learning rate at which the search started. The
gain at a position is the loss before a short run minus the loss after it; -inf if it diverged.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

MIN_SPACING: Final = 0.5  # decades; final distance of the best position from its neighbours
MIN_GAIN_REL: Final = 0.01  # of the initial loss: below this gain the learning rate is far too low
CHECK_DECADES: Final = 1.5  # the search goes at least this far below the best position
SAFETY_SHARE: Final = 0.25  # share of the way from the peak to the low end of the band
BAND_REL_TOL: Final = 0.1  # gains within this share of the best gain belong to the band

Gains = Mapping[float, float]


class Peak(NamedTuple):
    """The chosen position, a little below the vertex, and the band of almost equal gain."""

    low: float
    position: float
    high: float
    vertex: float


def next_position(gains: Gains, initial_loss: float) -> float | None:
    """Return the position to try next, or None at the end of the search.

    The search goes down while every position increases the loss; then up by a decade (two if
    almost nothing was gained), halving the gap to half a decade; then downwards in the same way.
    It ends when the best has both neighbours and a position 1.5 decades below was tried.
    """
    if not gains:
        return 0.0
    best = max(gains, key=gains.__getitem__)
    min_gain = MIN_GAIN_REL * abs(initial_loss)
    harmless = [position for position in gains if gains[position] >= -min_gain]
    if not harmless:
        return min(gains) - (1.0 if len(gains) == 1 else 2.0)
    if gains[best] < min_gain and max(harmless) != best:
        # The best position is due to noise. Any larger gain is at or above the highest harmless
        # learning rate, so neighbours of that one are tried before those of the best.
        position = _between(gains, max(harmless), 2.0)
        if position is not None:
            return position
    position = _between(gains, best, 2.0 if gains[best] < min_gain else 1.0)
    if position is None:
        position = _between(gains, best, 1.0, side=-1)
    if position is not None:
        return position
    # A network whose units died at a high learning rate also gains a little, while the true
    # peak lies far below.
    return best - CHECK_DECADES if min(gains) > best - CHECK_DECADES else None


def _between(gains: Gains, position: float, extension: float, side: int = 1) -> float | None:
    """Return a position towards the neighbour, or ``extension`` away; None if it is near."""
    neighbours = [other for other in gains if (other - position) * side > 0]
    if not neighbours:
        return position + side * extension
    gap = min(abs(other - position) for other in neighbours)
    if gap <= MIN_SPACING:
        return None
    return position + side * max(MIN_SPACING, MIN_SPACING * (gap // (2 * MIN_SPACING)))


def around_best(gains: Gains) -> list[float]:
    """Return the best position and those of its two neighbours that were tried."""
    best = max(gains, key=gains.__getitem__)
    return sorted(position for position in gains if abs(position - best) <= MIN_SPACING)


def find_peak(gains: Gains, best: float | None = None) -> Peak | None:
    """Return the peak of the gains, or None if none is positive.

    It is the vertex of the parabola through the best position (``best``, if it is known from more
    than ``gains``) and its neighbours, moved a quarter of the way to the low end of the band of
    almost equal gain: a learning rate that is too low costs less than one that is too high.
    """
    best = max(gains, key=gains.__getitem__) if best is None else best
    if not gains[best] > 0:
        return None
    vertex = best + _vertex_offset(gains, best)
    low, high = _band_edge(gains, best, -1), _band_edge(gains, best, 1)
    low, high = min(low, vertex), max(high, vertex)
    return Peak(low, vertex - SAFETY_SHARE * (vertex - low), high, vertex)


def _vertex_offset(gains: Gains, best: float) -> float:
    """Return the offset of the parabola's vertex from the best: at most 1/4 decade."""
    left = gains.get(best - MIN_SPACING, -math.inf)
    right = gains.get(best + MIN_SPACING, -math.inf)
    if math.isinf(left):
        return 0.0
    if math.isinf(right):  # diverged or not tried: take a vertex slightly to the left
        return -MIN_SPACING / 5
    curvature = 2 * gains[best] - left - right
    if curvature <= 0:
        return 0.0
    return max(-1.0, min(1.0, (right - left) / curvature)) * MIN_SPACING / 2


def _band_edge(gains: Gains, best: float, side: int) -> float:
    """Return the end of the band on one side, interpolated linearly between two positions."""
    threshold = (1 - BAND_REL_TOL) * gains[best]
    edge = best
    outward = sorted((p for p in gains if (p - best) * side > 0), key=lambda p: p * side)
    for position in outward:
        if gains[position] >= threshold:
            edge = position
        elif math.isinf(gains[position]):
            break
        else:
            share = (gains[edge] - threshold) / (gains[edge] - gains[position])
            return edge + (position - edge) * share
    return edge
