"""TrainerTask and TrainerRun: a task that a trainer trains in its own loop, and a run of it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import torch

from ratecraft._training._snapshot import preserve_rng, seed_everything
from ratecraft.errors import TaskError
from ratecraft.results import Evaluation
from ratecraft.schedule import Duration
from ratecraft.torch import ScheduleLR

from ._plateau import Candidate
from ._source import call_function
from ._training_run import TrainingRun, lrs_by_group


@dataclass(frozen=True)
class TrainerTask(ABC):
    """A task of `Task.from_lightning` or `Task.from_trainer`.

    Attributes:
        name: description of the task.
    """

    trainer_name: ClassVar[str]

    name: str
    _given_steps_per_epoch: int | None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.startswith("make_")):
            value = getattr(self, name)
            if isinstance(value, torch.nn.Module) or not (value is None or callable(value)):
                raise TaskError(
                    f"{name} is a {type(value).__name__}; expected a function that creates one, "
                    "since each run needs a new one"
                )
        steps = self._given_steps_per_epoch
        if steps is not None and (
            isinstance(steps, bool) or not isinstance(steps, int) or steps < 1
        ):
            raise TaskError(f"steps_per_epoch={steps!r}: expected a whole number >= 1")

    @cached_property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch; read from a new trainer, unless it was given."""
        steps: int = call_function(
            lambda: self._epoch_length(self._visit(self._read_steps_per_epoch)), self.trainer_name
        )
        return steps

    def _epoch_length(self, steps_per_epoch: int | None) -> int:
        """Return the number of steps that was given, or else this one of a trainer."""
        steps = self._given_steps_per_epoch or steps_per_epoch
        if steps is None:
            raise TaskError(
                "the training data has no length: write steps_per_epoch=, the number of steps that "
                "count as an epoch"
            )
        return steps

    @abstractmethod
    def _visit(self, function: Callable[[Any], Any]) -> Any:
        """Return ``function(trainer)`` of a new trainer that is ready to train, and discard it."""

    @abstractmethod
    def _read_steps_per_epoch(self, trainer: Any) -> int | None:
        """Return the number of steps in an epoch of a trainer; None if it does not know."""

    @abstractmethod
    def _train(self, run: "TrainerRun") -> None:
        """Train a new model in the loop of a new trainer, and add losses and metrics to a run."""


class TrainerRun(TrainingRun):
    """A run of a `TrainerTask`, which adds the losses and metrics of its trainer."""

    def __init__(
        self,
        task: TrainerTask,
        schedule: Candidate,
        *,
        lr: float = 1.0,
        seed: int = 0,
        total_steps: int | Duration | None = None,
    ) -> None:
        super().__init__(schedule, lr=lr, seed=seed)
        self.task, self._length = task, total_steps
        self._batch_losses: list[float] = []  # of the step in progress
        self._lrs: dict[str, float] = {}  # of the last step
        self._watch: Callable[[Evaluation], None] | None = None

    def advance(
        self, until: int | None = None, *, watch: Callable[[Evaluation], None] | None = None
    ) -> None:
        """Train to the end; a trainer cannot stop at a step and go on."""
        self._watch = watch
        start = time.perf_counter()
        with preserve_rng():
            seed_everything(self.seed)
            self.task._train(self)
        self.seconds += time.perf_counter() - start
        if self.diverged is None and len(self.losses) < self.total_steps:
            raise TaskError(
                f"{self.task.trainer_name} stopped after {len(self.losses)} of {self.total_steps} "
                "steps: leave out early stopping and limits of the run's length or time"
            )

    def start(self, steps_per_epoch: int | None) -> None:
        """Set the length of the run, from the number of steps in an epoch of its trainer."""
        self.set_length(self._length, self.task._epoch_length(steps_per_epoch))
        vars(self.task)["steps_per_epoch"] = self.steps_per_epoch  # spares another trainer

    def attach(self, optimizer: torch.optim.Optimizer, *, counts_calls: bool = False) -> ScheduleLR:
        """Create the scheduler of the trainer's optimizer."""
        scheduler = self.attach_schedule(optimizer, counts_calls=counts_calls)

        def remember_lrs(*_: object) -> None:
            self._lrs = lrs_by_group(optimizer)

        optimizer.register_step_pre_hook(remember_lrs)
        return scheduler

    def add_batch_loss(self, loss: torch.Tensor) -> None:
        """Add the loss of a batch, divided by the number of batches of its step."""
        self._batch_losses.append(float(loss.detach()))

    def end_step(self, accumulate: int = 1) -> None:
        """Add the mean loss of the batches since the last step.

        ``accumulate`` is what the losses of batches were divided by, if the last step of an epoch
        may have fewer batches.
        """
        losses = self._batch_losses
        if not losses:
            raise TaskError(f"{self.task.trainer_name} took a step without a loss")
        total, self._batch_losses = sum(losses), []
        if accumulate not in (1, len(losses)):
            total *= accumulate / len(losses)
        if self.diverged is None:
            self.add_loss(total)
            if self.diverged is None and self.on_step is not None:
                self.on_step(self)

    @property
    def needs_evaluation(self) -> bool:
        """Whether the run has ended and was not measured at its end."""
        measured = bool(self.evaluations) and self.evaluations[-1].step == len(self.losses)
        return self.diverged is None and not measured

    def add_metrics(self, metrics: Mapping[str, float], hint: str) -> None:
        """Add the validation metrics after the last step; ``hint`` says how to add the loss."""
        if self.diverged is not None or not self.needs_evaluation:
            return
        if "loss" not in metrics:
            names = ", ".join(metrics) or "none"
            raise TaskError(f"there is no validation loss (metrics: {names}); {hint}")
        self.check_metric(metrics)
        self.add_evaluation(metrics, self._lrs)
        if self._watch is not None:
            self._watch(self.evaluations[-1])
