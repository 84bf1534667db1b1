"""Predicted losses of schedules that were not run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ratecraft.schedule import Curve, parse

from ._files import save


@dataclass(frozen=True, slots=True)
class ForecastEntry:
    """Predicted losses of one schedule.

    Attributes:
        name: name of the schedule.
        schedule: text of the schedule; its values are learning rates, not factors.
        loss: predicted loss at the end of the run.
        low: lower end of an interval that contains the loss with a probability of 80 % or more.
        high: upper end of that interval.
        steps: steps at which ``losses`` are predicted.
        losses: predicted loss after each of ``steps``.
        notes: reasons why this prediction is uncertain.
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
        """Return the curve of learning rates of this schedule.

        Args:
            total_steps: length of the run, in steps.
            steps_per_epoch: steps per epoch, for a schedule with lengths in epochs.
        """
        return parse(self.schedule).resolve(
            total_steps=total_steps, steps_per_epoch=steps_per_epoch
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """Losses of schedules that were not run, predicted by a law fitted to logs.

    Attributes:
        entries: predictions, lowest loss first.
        tied: pairs of names that the law cannot rank.
        total_steps: length of the runs, in steps.
        steps_per_epoch: steps per epoch, or ``None``.
        peak_lr: highest learning rate of the logged runs.
        logs: steps and losses of each logged run, by name.
        law: parameters of the fitted law.
        error: root mean square residual of the logarithms of the logged losses.
        notes: reasons why all predictions are uncertain.
    """

    entries: tuple[ForecastEntry, ...]
    tied: tuple[tuple[str, str], ...]
    total_steps: int
    steps_per_epoch: float | None
    peak_lr: float
    logs: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]]
    law: Mapping[str, float]
    error: float
    notes: tuple[str, ...] = ()

    def verdict(self) -> str:
        """Return a sentence that names the best schedule and its margin."""
        best = self.entries[0]
        tied = {name for pair in self.tied if best.name in pair for name in pair}
        equal = [entry.name for entry in self.entries[1:] if entry.name in tied]
        lead = f"{best.name} would end at {best.loss:.4g} ({best.low:.4g} to {best.high:.4g})"
        if len(self.entries) == 1:
            return lead
        if len(equal) == len(self.entries) - 1:
            return f"{lead}; the law cannot rank it above any other schedule"
        if equal:
            return f"{lead}; the law cannot rank it above {' or '.join(equal)}"
        second = self.entries[1]
        return f"{lead}, {second.loss - best.loss:.2g} below {second.name}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: path of the file; missing folders are created. `ratecraft.results.load` reads
                the file.
        """
        return save(self, path)
