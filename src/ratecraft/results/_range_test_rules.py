"""Rules of the literature and other libraries that read a learning rate off a range test."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ratecraft.errors import SettingError

SKIPPED_FRACTION: Final = 0.1  # of the curve, at its start, is not searched
PLATEAU_PARTS: Final = 3  # the plateau is the first 1/PLATEAU_PARTS of the curve
CONSTANT_LOSS_REL_TOL: Final = 1e-9  # a range of losses below this is rounding error
MIN_DROP_REL: Final = 0.01  # smallest drop below the plateau, relative to the plateau
MIN_DROP_SIGMAS: Final = 3  # the same, in standard errors of the plateau's mean
SLIDE_WINDOW_POINTS: Final = 15  # points between the two ends of the sliding window
SLIDE_SLOPE_TOL: Final = 0.005  # slopes, in loss per point, closer than this are equal
DEFAULT_RULE: Final = "minimum/10"


class LRSuggestion(NamedTuple):
    """A learning rate and how it was chosen; or ``None`` and why there is none."""

    lr: float | None
    reason: str


NEVER_FALLS: Final = LRSuggestion(None, "no suggestion: the smoothed loss never falls")
Values = Sequence[float]


def suggest_lr(rule: str, lrs: Values, losses: Values, smoothed: Values) -> LRSuggestion:
    """Apply a rule to the curve of a range test.

    Args:
        rule: a key of `RANGE_TEST_RULES`.
        lrs: learning rate of each step, ascending.
        losses: loss of each step.
        smoothed: smoothed loss of each step.

    Raises:
        SettingError: the rule is unknown.

    >>> losses = [2, 2, 2, 2, 2, 1.8, 1, 0.9, 0.9, 4]
    >>> suggest_lr("valley", [10.0**i for i in range(-8, 2)], losses, losses).lr
    0.0001
    """
    if rule not in RANGE_TEST_RULES:
        raise SettingError(f"unknown rule {rule!r}: expected one of {', '.join(RANGE_TEST_RULES)}")
    span = max(smoothed, default=0) - min(smoothed, default=0)
    if smoothed and span <= CONSTANT_LOSS_REL_TOL * max(map(abs, smoothed)):
        return LRSuggestion(None, "no suggestion: the loss is constant")
    return RANGE_TEST_RULES[rule](lrs, losses, smoothed)


def minimum_over_ten(lrs: Values, losses: Values, smoothed: Values) -> LRSuggestion:
    """Return a tenth of the lr at the minimum of the smoothed loss, where that clearly fell.

    The first tenth of the curve is skipped: a minimum there is batch noise. The smoothed loss must
    fall below its value at the end of that tenth and below the plateau, the mean loss of the first
    third, by 1 % and by three standard errors of that mean.

    Source: Gugger 2018, "How do you find a good learning rate"; the checks are added.
    """
    first = math.ceil(len(smoothed) * SKIPPED_FRACTION)
    if len(smoothed) - first < 2:
        return _too_short(smoothed)
    lowest = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    early = losses[: max(2, len(losses) // PLATEAU_PARTS)]
    plateau, noise = statistics.fmean(early), statistics.stdev(early) / math.sqrt(len(early))
    start = min(plateau, smoothed[first - 1])
    if start - smoothed[lowest] < max(MIN_DROP_REL * abs(plateau), MIN_DROP_SIGMAS * noise):
        return LRSuggestion(
            None,
            f"no suggestion: the smoothed loss never fell clearly (from {start:.4g} ± {noise:.2g} "
            f"to {smoothed[lowest]:.4g}); test with more steps, or an untrained model",
        )
    minimum = f"{smoothed[lowest]:.4g} at {lrs[lowest]:.3g}"
    note = ""
    if lowest == len(smoothed) - 1:
        note = ", where the test ended: the loss was still falling; test up to a higher lr"
    reason = f"a tenth of the lr at the minimum of the smoothed loss, {minimum}{note}"
    return LRSuggestion(lrs[lowest] / 10, reason)


def steepest(lrs: Values, losses: Values, smoothed: Values) -> LRSuggestion:
    """Return the lr, left of the minimum, at which the smoothed loss falls fastest per log(lr).

    Source: Smith 2015, arXiv 1506.01186, as implemented in Ignite. (Lightning, fastai's "steep"
    and torch-lr-finder also search right of the minimum, where a loss can fall after a spike.)
    """
    first = math.ceil(len(smoothed) * SKIPPED_FRACTION)
    if len(smoothed) - first < 2:
        return _too_short(smoothed)
    last = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    slopes = [
        (smoothed[i + 1] - smoothed[i]) / math.log(lrs[i + 1] / lrs[i]) for i in range(first, last)
    ]
    slope = min(slopes, default=0.0)
    if slope >= 0:
        return NEVER_FALLS
    lr = lrs[first + slopes.index(slope)]
    return LRSuggestion(lr, f"where the smoothed loss falls fastest, {slope:.3g} per e-fold")


def valley(lrs: Values, losses: Values, smoothed: Values) -> LRSuggestion:
    """Return the middle of the longest valley, the longest decreasing subsequence of the loss.

    Source: ESRI's arcgis.learn; fastai's default since 2.3 ("valley").
    """
    if len(smoothed) < 3:
        return _too_short(smoothed)
    start, end = _longest_decrease(smoothed)
    if end == 0:
        return NEVER_FALLS
    third = (end - start) / 3
    middle = start + int(third) + int(third / 2)
    reason = f"the middle of the longest valley, from {lrs[start]:.3g} to {lrs[end]:.3g}"
    return LRSuggestion(lrs[middle], reason)


def _longest_decrease(losses: Values) -> tuple[int, int]:
    """Return (end - length, end) for the longest strictly decreasing subsequence."""
    tails: list[float] = []  # the smallest -loss that ends a rising subsequence of each length
    end = 0
    for i, loss in enumerate(losses):
        length = bisect_left(tails, -loss)
        if length == len(tails):
            tails.append(-loss)
            end = i
        else:
            tails[length] = -loss
    return max(end - len(tails), 0), end


def slide(lrs: Values, losses: Values, smoothed: Values) -> LRSuggestion:
    """Return the lr left of the divergence at which the smoothed loss is level.

    A window of 15 steps slides left from the end of the curve until the slopes at its two ends
    differ by at most 0.005 per step; the left end is taken.

    Source: Novetta, "Automated learning rate suggester", 2019; fastai's "slide".
    """
    count = len(smoothed)
    if count < SLIDE_WINDOW_POINTS + 2:
        return _too_short(smoothed)
    slopes = [
        (smoothed[min(i + 1, count - 1)] - smoothed[max(i - 1, 0)])
        / (2 if 0 < i < count - 1 else 1)
        for i in range(count)
    ]
    right = count - 1
    while (
        right >= SLIDE_WINDOW_POINTS
        and abs(slopes[right] - slopes[right - SLIDE_WINDOW_POINTS]) > SLIDE_SLOPE_TOL
    ):
        right -= 1
    left = right - SLIDE_WINDOW_POINTS
    if right < count - 1:
        left += 1
    return LRSuggestion(
        lrs[left], "where a window that slides left from the end finds level slopes"
    )


def _too_short(smoothed: Values) -> LRSuggestion:
    return LRSuggestion(None, f"no suggestion: the curve has only {len(smoothed)} steps")


RANGE_TEST_RULES: Final[dict[str, Callable[[Values, Values, Values], LRSuggestion]]] = {
    "minimum/10": minimum_over_ten,
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
}
"""The rules by name."""
