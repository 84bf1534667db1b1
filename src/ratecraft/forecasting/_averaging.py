"""AdamW as an average: how far back its weights reach, and what is left of the first ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ratecraft.errors import SettingError
from ratecraft.schedule import Curve, Schedule


@dataclass(frozen=True, slots=True)
class Averaging:
    """What the weights at the end of a run are made of.

    Attributes:
        timescales: of each step, 1 / (lr x weight decay) in steps; inf where that is 0.
        effective: how many steps count in the end: 1 over the sum of squares of their shares.
        initial: the share of the initial weights that is left.
    """

    timescales: tuple[float, ...]
    effective: float
    initial: float

    def __str__(self) -> str:
        return (
            f"these weights average the last {self.effective:,.0f} steps or so; "
            f"{self.initial:.1%} of the initial weights is left"
        )


def averaging(lr: Curve, decay: float | Curve) -> Averaging:
    """Return what decoupled weight decay and a schedule of lrs average over.

    AdamW's step w <- (1 - a_k) w + a_k (-s_k / decay), where a_k = lr_k x decay_k and s_k is
    Adam's step, is an exponential average of past steps with a timescale of 1 / a_k steps. In
    the end step i counts with c_i = a_i x product of (1 - a_j) over all later j, and the
    initial weights with the product of all (1 - a_j).

    Args:
        lr: the lr of every step, as ``schedule.resolve(total)`` gives it.
        decay: the weight decay, or its curve.

    Raises:
        SettingError: an lr or decay below 0, or a product above 1, which is no average.
        ScheduleError: a curve without an end.
        TypeError: a schedule where its curve belongs.

    >>> from ratecraft import constant, linear
    >>> print(averaging((0.05 * linear(1, 0)).resolve(total_steps=1000), 0.1))
    these weights average the last 867 steps or so; 8.2% of the initial weights is left
    >>> round(averaging((0.05 * constant(1)).resolve(total_steps=1000), 0.1).effective)
    394

    Source: Wang & Aitchison 2024, arXiv 2405.13698.
    """
    for what, given in (("lr", lr), ("decay", decay)):
        if isinstance(given, Schedule):
            raise TypeError(
                f"{what} is a schedule without a length; give schedule.resolve(total), a curve"
            )
    steps = range(len(lr))
    decays = map(decay, steps) if isinstance(decay, Curve) else itertools.repeat(float(decay))
    return averaging_of([lr(k) * one for k, one in zip(steps, decays, strict=False)])


def averaging_of(shares: Sequence[float]) -> Averaging:
    """Return what `averaging` does, from lr x weight decay of every step.

    Raises:
        SettingError: a share that is none.
    """
    for k, share in enumerate(shares):
        if not 0 <= share <= 1:
            raise SettingError(
                f"lr x weight decay is {share:g} at step {k}; expected 0 to 1, a share of the "
                "weights"
            )
    kept, counted = 1.0, []
    for share in reversed(shares):
        counted.append(share * kept)
        kept *= 1 - share
    squares = math.fsum(one * one for one in counted)
    effective = math.fsum(counted) ** 2 / squares if squares else 0.0
    timescales = tuple(1 / share if share else math.inf for share in shares)
    return Averaging(timescales, effective, kept)
