"""What a law says of schedules that were not run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ratecraft.schedule import Curve, parse

from ._files import save


@dataclass(frozen=True, slots=True)
class ForecastEntry:
    """What a law says of one schedule that was not run.

    Attributes:
        name: what the schedule is called.
        schedule: its text, as the lr itself.
        loss: the loss at the end of the run.
        low: the low end of the band that it lies in, four times of five or more.
        high: the high end.
        steps: some steps on the way, and
        losses: the losses after these.
        notes: what makes this one uncertain, in words.
    """

    name: str
    schedule: str
    loss: float
    low: float
    high: float
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def curve(self, total_steps: int, steps_per_epoch: float | None = None) -> Curve:
        """Return the lrs of this schedule.

        Args:
            total_steps: length of the run, in steps.
            steps_per_epoch: steps per epoch, if the schedule speaks of epochs.
        """
        return parse(self.schedule).resolve(
            total_steps=total_steps, steps_per_epoch=steps_per_epoch
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a law that was fitted to logs says of schedules that were not run, best first.

    Attributes:
        candidates: the schedules, by predicted loss.
        tied: pairs of names of which the law cannot say which is better.
        total_steps: length of the runs, in steps.
        steps_per_epoch: steps per epoch, if there is such.
        peak: the highest lr of the logged runs.
        logs: by name, after how many steps each loss was logged, and the losses.
        law: the parameters of the law.
        error: root mean square of what the law leaves of the logarithms of the logged losses.
        notes: what weakens all of it, in words.
    """

    candidates: tuple[ForecastEntry, ...]
    tied: tuple[tuple[str, str], ...]
    total_steps: int
    steps_per_epoch: float | None
    peak: float
    logs: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]]
    law: Mapping[str, float]
    error: float
    notes: tuple[str, ...] = ()

    def verdict(self) -> str:
        """Return the answer in one sentence."""
        best = self.candidates[0]
        equal = [other for pair in self.tied if best.name in pair for other in pair]
        equal = [one.name for one in self.candidates[1:] if one.name in equal]
        told = f"{best.name} would end at {best.loss:.4g} ({best.low:.4g} to {best.high:.4g})"
        if len(self.candidates) == 1:
            return told
        if len(equal) == len(self.candidates) - 1:
            return f"{told}; the law cannot tell any of the others from it"
        if equal:
            return f"{told}; the law cannot tell {' or '.join(equal)} from it"
        second = self.candidates[1]
        return f"{told}, {second.loss - best.loss:.2g} below {second.name}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: the file; folders that are missing are made. `ratecraft.results.load` reads it.
        """
        return save(self, path)
