"""Successive halving: early stopping among the learning rates of one schedule."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from ._train import Training

HALVING_POINTS: Final = (0.25, 0.5)  # fractions of the run after which the worse half stops
RANKING_WINDOW: Final = 0.1  # fraction of the run whose training losses rank the learning rates


def halve(trainings: Mapping[float, Sequence[Training]]) -> dict[float, int | None]:
    """Train the runs of several learning rates and stop the worse ones early.

    After a quarter and after half of the run the learning rates are ranked by their mean training
    loss over the last tenth of the run and over all seeds; the better half, rounded up,
    continues. This is fair among learning rates of one schedule, since the rest of the run has
    the same shape for all. It is not fair among schedules: in a set of 24, the one that was best
    at the end ranked 18th early on. The result is, by learning rate, the number of steps after
    which it was stopped, or None.

    Source: successive halving, Jamieson & Talwalkar 2016, arXiv 1502.07943.
    """
    stopped: dict[float, int | None] = dict.fromkeys(trainings)
    active = list(trainings)
    for fraction in (*HALVING_POINTS, 1.0):
        for lr in active:
            for training in trainings[lr]:
                training.advance(_steps(fraction, training))
        if fraction == 1.0 or len(active) < 2:
            continue
        active.sort(key=lambda lr: _recent_loss(trainings[lr]))
        half = (len(active) + 1) // 2
        active, losers = active[:half], active[half:]
        for lr in losers:
            stopped[lr] = _steps(fraction, trainings[lr][0])
    return stopped


def _steps(fraction: float, training: Training) -> int:
    return max(round(fraction * training.total_steps), 1)


def _recent_loss(trainings: Sequence[Training]) -> float:
    """Return the mean of the recent training losses; infinity if a training diverged."""
    if any(training.diverged is not None for training in trainings):
        return math.inf
    return statistics.fmean(
        statistics.fmean(training.losses[-_steps(RANKING_WINDOW, training) :])
        for training in trainings
    )
