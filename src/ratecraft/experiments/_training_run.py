"""TrainingRun: the schedule, the losses and the measurements of a run in progress."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch

from ratecraft.errors import ScheduleError
from ratecraft.results import Evaluation, Run
from ratecraft.results._lr_search import group_lr_ratios
from ratecraft.schedule import Duration
from ratecraft.torch import PlateauLR, ScheduleLR
from ratecraft.torch._hyperparam import by_group, group_names

from ._plateau import Candidate, Plateau, curve_of, plain_schedule


class TrainingRun:
    """A run in progress; subclasses train it.

    Attributes:
        losses: training loss of each step so far.
        evaluations: measurements so far.
        diverged: step at which the loss stopped being finite, or None.
        seconds: wall time so far.
        total_steps: planned number of steps.
        steps_per_epoch: number of steps in an epoch.
        on_step: called with the run after each step, if it is not None.
    """

    total_steps: int
    steps_per_epoch: int

    def __init__(self, schedule: Candidate, *, lr: float, seed: int) -> None:
        self.schedule, self.lr, self.seed = schedule, lr, seed
        self.losses: list[float] = []
        self.evaluations: list[Evaluation] = []
        self.diverged: int | None = None
        self.seconds = 0.0
        self.on_step: Callable[[TrainingRun], object] | None = None
        self._plateau: PlateauLR | None = None

    def advance(
        self, until: int | None = None, *, watch: Callable[[Evaluation], None] | None = None
    ) -> None:
        """Train up to a step, or to the end; the caller's random numbers are restored."""
        raise NotImplementedError

    def set_length(self, total_steps: int | Duration | None, steps_per_epoch: int) -> None:
        """Set the length of the run; raise ScheduleError if the schedule does not fit into it."""
        curve = curve_of(self.schedule, self.lr, total_steps, steps_per_epoch)
        self.total_steps, self.steps_per_epoch = len(curve), steps_per_epoch

    def attach_schedule(
        self,
        optimizer: torch.optim.Optimizer,
        lr_ratios: Iterable[float] | None = None,
        *,
        initial_step: int = 0,
        counts_calls: bool = False,
    ) -> ScheduleLR:
        """Create the scheduler of an optimizer; its groups keep the ratios of their lrs.

        With ``counts_calls`` its ``step()`` is called after each step.
        """
        if lr_ratios is None:
            lr_ratios = (ratio for _, ratio in group_lr_ratios([optimizer]))
        plain = plain_schedule(self.schedule)
        scheduler = ScheduleLR(
            optimizer,
            lr=by_group(optimizer.param_groups, [(self.lr * ratio) * plain for ratio in lr_ratios]),
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            initial_step=initial_step,
            clock="step" if counts_calls else "optimizer",
        )
        self._plateau = None
        if isinstance(self.schedule, Plateau):
            self._plateau = PlateauLR(
                scheduler,
                mode="min" if self.schedule.lower_is_better else "max",
                factor=self.schedule.factor,
                patience=self.schedule.patience,
                threshold=self.schedule.threshold,
                cooldown=self.schedule.cooldown,
            )
        return scheduler

    def check_metric(self, metrics: Iterable[str]) -> None:
        """Raise ScheduleError if the schedule follows a metric that is not measured."""
        if isinstance(self.schedule, Plateau) and self.schedule.metric not in metrics:
            raise ScheduleError(
                f"{self.schedule!r}: the task has no metric {self.schedule.metric!r}; it has "
                f"{', '.join(metrics)}"
            )

    def add_loss(self, loss: float) -> None:
        """Add the loss of a step; one that is not finite ends the run."""
        self.losses.append(loss)
        if not math.isfinite(loss):
            self.diverged = len(self.losses) - 1

    def add_evaluation(
        self,
        metrics: Mapping[str, float],
        lrs: Mapping[str, float],
        train: Mapping[str, float] | None = None,
    ) -> None:
        """Add metrics after the last step, and pass one of them to the plateau."""
        steps = len(self.losses)
        self.evaluations.append(Evaluation(steps, metrics, train or {}, lrs))
        if steps == self.total_steps and not math.isfinite(metrics["loss"]):
            self.diverged = steps
        elif self._plateau is not None and isinstance(self.schedule, Plateau):
            self._plateau.step(metrics[self.schedule.metric])

    def result(self, stopped: int | None = None) -> Run:
        """Return the run so far; ``stopped`` is the step after which early stopping ended it."""
        realized_schedule = ""
        if isinstance(self.schedule, Plateau) and self._plateau is not None:
            factor = self._plateau.as_schedule()
            if isinstance(factor, dict):
                factor = next(iter(factor.values()))
            realized_schedule = repr(self.schedule.schedule * factor)
        return Run(
            schedule=repr(self.schedule),
            lr=self.lr,
            seed=self.seed,
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            losses=tuple(self.losses),
            evaluations=tuple(self.evaluations),
            diverged=self.diverged,
            seconds=self.seconds,
            stopped=stopped,
            realized_schedule=realized_schedule,
        )


def lrs_by_group(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the current learning rate of each param group by name."""
    groups = optimizer.param_groups
    return dict(zip(group_names(groups), [float(g["lr"]) for g in groups], strict=True))
