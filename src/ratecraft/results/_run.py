"""Training runs and their measurements."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ratecraft._render._axis import number
from ratecraft.errors import ScheduleError
from ratecraft.schedule import Curve, parse

from ._base import NonNegativeFloat, PositiveSteps, Steps, pluralize, short_repr

SCRIPT_SCHEDULE: Final = "script: "
"""The beginning of the text of a schedule that is not in the notation, but a script's own."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics measured during a run.

    Attributes:
        step: number of optimizer steps done before the measurement.
        metrics: metrics on the validation data; ``loss`` is always present.
        train: the same metrics on the last training batches, also in evaluation mode.
        lrs: learning rate of the last step, by name or number of the param group.
    """

    step: Steps
    metrics: Mapping[str, float]
    train: Mapping[str, float] = field(default_factory=dict)
    lrs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        schedule: text of the schedule, a factor of ``lr``; "script: ..." for one that a script
            has of its own, of which the curve is unknown.
        lr: learning rate that the schedule multiplies.
        seed: seed of the initial weights and the data order.
        total_steps: planned number of steps.
        steps_per_epoch: number of steps in an epoch.
        losses: training loss of each step, or of the steps in ``loss_steps``.
        evaluations: measurements in time order; the last one is the result of the run.
        diverged: step at which the loss stopped being finite, or ``None``.
        seconds: wall time of the run.
        optimizer: optimizer that replaced the task's own; empty if none did.
        stopped: step after which early stopping ended the run, or ``None``.
        realized_schedule: text of the factors that a `Plateau` applied; else empty.
        loss_steps: the number of the step of each loss; empty if every step has one.
    """

    schedule: str
    lr: NonNegativeFloat
    seed: int
    total_steps: PositiveSteps
    steps_per_epoch: PositiveSteps
    losses: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]
    diverged: Steps | None = None
    seconds: NonNegativeFloat = 0.0
    optimizer: str = ""
    stopped: Steps | None = None
    realized_schedule: str = ""
    loss_steps: tuple[Steps, ...] = ()

    def __repr__(self) -> str:
        end = f"loss {number(self.final())}"
        if self.diverged is not None:
            end = f"diverged at step {self.diverged}"
        elif self.stopped is not None:
            end = f"stopped after step {self.stopped}"
        configuration = [self.optimizer, f"lr {number(self.lr)}", f"seed {self.seed}"]
        steps = pluralize(self.total_steps, "step")
        return short_repr(self, self.schedule, *configuration, steps, end)

    @property
    def has_curve(self) -> bool:
        """Whether the learning rates of all steps are known."""
        return not self.schedule.startswith(SCRIPT_SCHEDULE)

    @property
    def trained_steps(self) -> int:
        """Number of steps that the run trained."""
        if not self.loss_steps and self.losses:
            return len(self.losses)
        evaluated = [evaluation.step for evaluation in self.evaluations]
        return max([0, *self.loss_steps[-1:], *evaluated[-1:]])

    def curve(self) -> Curve:
        """Return the curve of learning rates that this run was trained with.

        Raises:
            ScheduleError: the schedule is a script's own, so `has_curve` is false.
        """
        if not self.has_curve:
            raise ScheduleError(
                f"the lrs of {self.schedule!r} are unknown: the script has its own schedule"
            )
        text = self.realized_schedule or self.schedule
        return (self.lr * parse(text)).resolve(
            total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch
        )

    def final(self, metric: str = "loss") -> float:
        """Return the last value of a validation metric.

        It is NaN if the run diverged, was stopped or does not have the metric.
        """
        if self.diverged is not None or self.stopped is not None or not self.evaluations:
            return math.nan
        return self.evaluations[-1].metrics.get(metric, math.nan)
