"""Training runs and their measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ratecraft.schedule import Curve, parse


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics measured during a run.

    Attributes:
        step: number of optimizer steps done before the measurement.
        metrics: metrics on the validation data; ``loss`` is always present.
        train: the same metrics on the last training batches, also in evaluation mode.
        lrs: learning rate of the last step, by name or number of the param group.
    """

    step: int
    metrics: Mapping[str, float]
    train: Mapping[str, float] = field(default_factory=dict)
    lrs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        schedule: text of the schedule, a factor of ``lr``.
        lr: learning rate that the schedule multiplies.
        seed: seed of the initial weights and the data order.
        total_steps: planned number of steps.
        steps_per_epoch: number of steps in an epoch.
        losses: training loss of each step.
        evaluations: measurements in time order; the last one is the result of the run.
        diverged: step at which the loss stopped being finite, or ``None``.
        seconds: wall time of the run.
        optimizer: optimizer that replaced the one of the task; empty if none did.
        stopped: step after which early stopping ended the run, or ``None``.
        realized_schedule: for a schedule that follows a metric, the text of the factors it
            actually applied; empty for other schedules.
    """

    schedule: str
    lr: float
    seed: int
    total_steps: int
    steps_per_epoch: int
    losses: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]
    diverged: int | None = None
    seconds: float = 0.0
    optimizer: str = ""
    stopped: int | None = None
    realized_schedule: str = ""

    def curve(self) -> Curve:
        """Return the curve of learning rates that this run was trained with."""
        text = self.realized_schedule or self.schedule
        return (self.lr * parse(text)).resolve(
            total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch
        )

    def final(self, metric: str = "loss") -> float:
        """Return the last value of a metric; NaN if the run diverged or was stopped early.

        Args:
            metric: name of a validation metric.
        """
        if self.diverged is not None or self.stopped is not None or not self.evaluations:
            return math.nan
        return self.evaluations[-1].metrics[metric]
