"""From a range test's curve to an lr, or to the reason why there is none.

Each rule is a known one, under the name of its source. None of them is told anything but the
curve: lrs, losses and smoothed losses of each step.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ratecraft.errors import SettingError

SKIP: Final = 10  # 1/SKIP of the curve at its start is never searched
PLATEAU: Final = 3  # 1/PLATEAU of the curve at its start is where nothing trains yet
FLAT: Final = 1e-9  # relative: a curve that moves by less is one number and its roundings
DROP: Final = 0.01
NOISE: Final = 3
FALL: Final = 0.05
SLIDE: Final = 15  # points between the two ends of the slide
SLOPES: Final = 0.005  # of the loss a point: slopes nearer than that are alike


class Suggestion(NamedTuple):
    """An lr, and how it was chosen; or no lr, and why not."""

    lr: float | None
    reason: str


Numbers = Sequence[float]


def suggest(rule: str, lrs: Numbers, losses: Numbers, smoothed: Numbers) -> Suggestion:
    """Return what a rule makes of a curve.

    Args:
        rule: one of `RULES`.
        lrs: the lr of each step, ascending.
        losses: the loss of each step.
        smoothed: the smoothed loss of each step.

    Raises:
        SettingError: there is no such rule.
    """
    if rule not in RULES:
        raise SettingError(f"there is no rule {rule!r}; there are {', '.join(RULES)}")
    if smoothed and max(smoothed) - min(smoothed) <= FLAT * max(map(abs, smoothed)):
        return Suggestion(None, "no suggestion: the loss did not move at all")
    return RULES[rule](lrs, losses, smoothed)


def minimum_over_ten(lrs: Numbers, losses: Numbers, smoothed: Numbers) -> Suggestion:
    """Return one decade left of the smoothed loss's minimum, and how it was chosen.

    The minimum is searched only after the descent has begun: never in the first tenth of the
    curve, where it would be the luck of the first batches, and only if the smoothed loss falls
    clearly below the plateau it starts from, the mean loss of the first third: by 1 %, and by
    three standard errors of that mean. (Where it stood after the first tenth counts if that is
    lower: a curve that only rises has no descent.)

    Source: Gugger 2018, "StepOptions do you find a good learning rate", with the guard added.

    >>> losses = [2, 2.01, 1.99, 2, 2, 1.8, 1, 0.5, 1, 4]
    >>> lr, reason = minimum_over_ten([10.0**i for i in range(-8, 2)], losses, losses)
    >>> lr, reason
    (0.01, 'one decade left of the minimum of the smoothed loss, 0.5 at 0.1')
    """
    first = math.ceil(len(smoothed) / SKIP)
    if len(smoothed) - first < 2:
        return Suggestion(None, f"no suggestion: only {len(smoothed)} steps were seen")
    lowest = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    early = losses[: max(2, len(losses) // PLATEAU)]
    plateau, noise = statistics.fmean(early), statistics.stdev(early) / math.sqrt(len(early))
    start = min(plateau, smoothed[first - 1])
    if start - smoothed[lowest] < max(DROP * abs(plateau), NOISE * noise):
        return Suggestion(
            None,
            f"no suggestion: the smoothed loss never fell clearly (from {start:.4g} ± {noise:.2g} "
            f"to {smoothed[lowest]:.4g}); test with more steps, or an untrained model",
        )
    place = f"{smoothed[lowest]:.4g} at {lrs[lowest]:.3g}"
    end = ""
    if lowest == len(smoothed) - 1:
        end = ", where the test ended: the loss was still falling; test up to a higher lr"
    return Suggestion(
        lrs[lowest] / 10, f"one decade left of the minimum of the smoothed loss, {place}{end}"
    )


def minimum_over_four(lrs: Numbers, losses: Numbers, smoothed: Numbers) -> Suggestion:
    """Return a quarter of the lr at which the smoothed loss is lowest, and how it was chosen.

    For curves with a control variate, which begin without noise and need little smoothing: the
    minimum is searched everywhere, and counts if the loss fell by 5 % of where it began.

    >>> losses = [2, 2, 2, 1.99, 1.9, 1.5, 1, 0.5, 1, 4]
    >>> minimum_over_four([10.0**i for i in range(-8, 2)], losses, losses).lr
    0.025
    """
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    if lowest == 0 or smoothed[0] - smoothed[lowest] < FALL * abs(smoothed[0]):
        return Suggestion(None, "no suggestion: the smoothed loss never fell by 5 %")
    place = f"{smoothed[lowest]:.4g} at {lrs[lowest]:.3g}"
    return Suggestion(lrs[lowest] / 4, f"a quarter of the minimum of the smoothed loss, {place}")


def steepest(lrs: Numbers, losses: Numbers, smoothed: Numbers) -> Suggestion:
    """Return the lr at which the smoothed loss falls fastest over the logarithm of the lr.

    Left of its minimum, that is, and not in the first tenth of the curve.

    Source: Smith 2015, arXiv 1506.01186; in this form Ignite's. (Lightning, fastai's "steep" and
    torch-lr-finder look right of the minimum, too, where a loss falls back from its explosion.)

    >>> steepest([10.0**i for i in range(-8, 2)], [], [2, 2, 2, 2, 2, 1.8, 1, 0.9, 0.9, 4]).lr
    0.001
    """
    first = math.ceil(len(smoothed) / SKIP)
    if len(smoothed) - first < 2:
        return Suggestion(None, f"no suggestion: only {len(smoothed)} steps were seen")
    last = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    if last == first:
        return Suggestion(None, "no suggestion: the smoothed loss never falls")
    slopes = [
        (smoothed[i + 1] - smoothed[i]) / math.log(lrs[i + 1] / lrs[i]) for i in range(first, last)
    ]
    slope = min(slopes)
    if slope >= 0:
        return Suggestion(None, "no suggestion: the smoothed loss never falls")
    lr = lrs[first + slopes.index(slope)]
    return Suggestion(lr, f"where the smoothed loss falls fastest, {slope:.3g} an e-fold")


def valley(lrs: Numbers, losses: Numbers, smoothed: Numbers) -> Suggestion:
    """Return the middle of the longest valley: of the longest falling subsequence of the loss.

    Source: ESRI's arcgis.learn; fastai's default since 2.3 ("valley").

    >>> valley([10.0**i for i in range(-8, 2)], [], [2, 2, 2, 2, 2, 1.8, 1, 0.9, 0.9, 4]).lr
    0.0001
    """
    if len(smoothed) < 3:
        return Suggestion(None, f"no suggestion: only {len(smoothed)} steps were seen")
    start, end = _longest_fall(smoothed)
    if end == 0:
        return Suggestion(None, "no suggestion: the smoothed loss never falls")
    third = (end - start) / 3
    place = start + int(third) + int(third / 2)
    return Suggestion(
        lrs[place],
        f"the middle of the longest valley, from {lrs[start]:.3g} to {lrs[end]:.3g}",
    )


def _longest_fall(losses: Numbers) -> tuple[int, int]:
    """Return the longest strictly falling subsequence's end, and as many steps before that."""
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


def slide(lrs: Numbers, losses: Numbers, smoothed: Numbers) -> Suggestion:
    """Return where a window that slides down from the explosion finds a level slope.

    Two points 15 steps apart go left from the end of the curve until the slopes of the smoothed
    loss at both differ by at most 0.005 a point; the left one's lr is taken.

    Source: Novetta, "Automated learning rate suggester", 2019; fastai's "slide".

    >>> falls = [2 - i / 100 for i in range(60)] + [1.4 + i**2 / 50 for i in range(20)]
    >>> round(slide([10 ** (i / 10 - 7) for i in range(80)], [], falls).lr, 4)
    0.0032
    """
    count = len(smoothed)
    if count < SLIDE + 2:
        return Suggestion(None, f"no suggestion: only {count} steps were seen")
    slopes = [
        (smoothed[min(i + 1, count - 1)] - smoothed[max(i - 1, 0)])
        / (2 if 0 < i < count - 1 else 1)
        for i in range(count)
    ]
    right = count - 1
    while right >= SLIDE and abs(slopes[right] - slopes[right - SLIDE]) > SLOPES:
        right -= 1
    place = min(right - SLIDE + 1, count - 1) if right < count - 1 else right - SLIDE
    return Suggestion(lrs[place], "where a window slid down from the explosion finds it level")


RULES: Final[dict[str, Callable[[Numbers, Numbers, Numbers], Suggestion]]] = {
    "minimum/10": minimum_over_ten,
    "minimum/4": minimum_over_four,
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
}
"""The rules by name; the first is the one that a result suggests by itself."""

CONTROLLED: Final = "minimum/4"
"""The rule for curves with a control variate."""
