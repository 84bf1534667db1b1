"""TrainingSetup: the models, optimizers and schedulers that doctor examines."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import SWALR

from ratecraft.errors import BindingError
from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR
from ratecraft.torch._writer import innermost_optimizer


@dataclass(slots=True)
class SchedulerUsage:
    """A scheduler, and how often its ``step()`` is called as far as that is known.

    Attributes:
        scheduler: the scheduler.
        calls_per_step: lowest and highest number of ``step()`` calls per optimizer step; None if
            unknown.
        evidence: how ``calls_per_step`` is known, for messages.
        done: steps that the scheduler's optimizer has taken, if counted.
        total_steps: steps that its optimizer will take, if known.
        processes: how many times Accelerate steps the scheduler for one call of the user's.
    """

    scheduler: Any
    calls_per_step: tuple[float, float] | None = None
    evidence: str = ""
    done: int | None = None
    total_steps: int | None = None
    processes: int = 1

    @property
    def name(self) -> str:
        """The scheduler's class name."""
        return type(self.scheduler).__name__

    @property
    def schedule_lr(self) -> ScheduleLR | None:
        """The scheduler if it is a `ScheduleLR`, or the one inside a `PlateauLR`."""
        inner = (
            self.scheduler.scheduler if isinstance(self.scheduler, PlateauLR) else self.scheduler
        )
        return inner if isinstance(inner, ScheduleLR) else None

    @property
    def counts_optimizer_steps(self) -> bool:
        """Whether it counts the optimizer's steps, independent of its own ``step()`` calls."""
        return self.schedule_lr is not None and not self.schedule_lr.counts_calls

    def infer_calls_per_step(self) -> None:
        """Set ``calls_per_step`` from the counts if it is unknown and calls are clearly rare."""
        follows = self.counts_optimizer_steps or isinstance(self.scheduler, ReduceLROnPlateau)
        if follows or self.calls_per_step is not None or not self.done:
            return
        if self.calls * 2 + 2 <= self.done:
            # Stepped once an epoch, or forgotten: the next call may be due at any step.
            self.calls_per_step = self.calls / self.done, (self.calls + 1) / self.done
            self.evidence = f"{self.calls} calls of step() in {self.done} steps"

    @property
    def calls(self) -> int:
        """The number of ``step()`` calls (``last_epoch``); of a chain, that of its first part."""
        scheduler = self.scheduler
        while isinstance(scheduler, ChainedScheduler):
            scheduler = scheduler._schedulers[0]
        return int(scheduler.last_epoch)

    def is_attached_to(self, optimizers: list[Optimizer]) -> bool:
        """Return whether the scheduler's optimizer is one of these."""
        attached = innermost_optimizer(self.scheduler.optimizer)
        return any(attached is innermost_optimizer(optimizer) for optimizer in optimizers)

    def parts(self) -> list[SchedulerUsage]:
        """Return the schedulers of a chain, each stepped as often as the chain; else itself."""
        if not isinstance(self.scheduler, ChainedScheduler):
            return [self]
        return [
            inner
            for part in self.scheduler._schedulers
            for inner in SchedulerUsage(
                part,
                self.calls_per_step,
                self.evidence,
                self.done,
                self.total_steps,
                self.processes,
            ).parts()
        ]


@dataclass(slots=True)
class TrainingSetup:
    """The objects that doctor examines.

    Attributes:
        models: the models.
        optimizers: the optimizers that step.
        schedulers: the schedulers, with how often they are stepped.
        total_steps: steps that the run will take, if known.
        done: steps taken so far, if known.
        trainer_builds_optimizer: a Hugging Face Trainer was given a scheduler without its
            optimizer, and builds another optimizer.
        ends_with_swa: an ``SWALR`` replaces the other schedulers before the run ends.
    """

    models: list[torch.nn.Module] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    schedulers: list[SchedulerUsage] = field(default_factory=list)
    total_steps: int | None = None
    done: int | None = None
    trainer_builds_optimizer: bool = False
    ends_with_swa: bool = False

    @classmethod
    def of(
        cls, objects: tuple[Any, ...], total_steps: int | None, done: int | None
    ) -> TrainingSetup:
        """Return the setup of models, optimizers, schedulers and trainers, also in lists and dicts.

        Raises:
            TypeError: an object of another type, or ``total_steps`` or ``done`` is not an int.
            BindingError: ``total_steps`` < 1, ``done`` < 0, or a Lightning trainer without
                optimizers.
        """
        for name, least, value in (("total_steps", 1, total_steps), ("done", 0, done)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"doctor({name}={value!r}): expected an int, in steps")
            if value is not None and value < least:
                raise BindingError(f"doctor({name}={value}): expected {least} or more")
        setup = cls(total_steps=total_steps, done=done)
        for item in objects:
            setup._add(item)
        setup.ends_with_swa = any(isinstance(usage.scheduler, SWALR) for usage in setup.schedulers)
        counts = {
            id(innermost_optimizer(optimizer)): _steps_in_state(optimizer)
            for optimizer in setup.optimizers
        }
        same_step_count = len({count for count in counts.values() if count is not None}) <= 1
        for usage in setup.schedulers:
            counted = counts.get(id(innermost_optimizer(usage.scheduler.optimizer)))
            usage.done = (setup.done if counted is None else counted) if done is None else done
            # If the optimizers differ in their step counts, total_steps is ambiguous.
            usage.total_steps = setup.total_steps if same_step_count else None
            usage.infer_calls_per_step()
        return setup

    def _add(self, item: Any) -> None:
        if isinstance(item, torch.nn.Module):
            self.models.append(item)
        elif isinstance(item, Optimizer):
            self.optimizers.append(item)
        elif isinstance(item, LRScheduler) or _is_from_accelerate(item):
            self.schedulers.append(_usage_of(item))
        elif isinstance(item, list | tuple | Mapping):
            for inner in item.values() if isinstance(item, Mapping) else item:
                self._add(inner)
        elif hasattr(item, "lr_scheduler_configs") and hasattr(item, "strategy"):
            self._add_lightning(item)
        elif hasattr(item, "create_optimizer_and_scheduler") and hasattr(item, "args"):
            self._add_hugging_face(item)
        else:
            raise TypeError(
                "doctor() takes models, optimizers, schedulers and trainers, not "
                f"{type(item).__name__}"
            )

    def _add_lightning(self, trainer: Any) -> None:
        if not trainer.optimizers:
            raise BindingError(
                "this Trainer has no optimizers yet; call doctor(trainer) during fit, for example "
                "in on_train_start(self, trainer, module) of a callback"
            )
        self.models.append(trainer.lightning_module)
        self.optimizers += trainer.optimizers
        automatic = trainer.lightning_module.automatic_optimization
        if len(trainer.optimizers) == 1:
            # With several optimizers Lightning counts their steps together.
            self.done = trainer.global_step
            if self.total_steps is None and 0 < trainer.estimated_stepping_batches < math.inf:
                self.total_steps = int(trainer.estimated_stepping_batches)
        batches = trainer.num_training_batches
        for config in trainer.lr_scheduler_configs:
            usage = SchedulerUsage(config.scheduler)
            if automatic and config.interval == "step":
                usage.calls_per_step = (1 / config.frequency,) * 2
                usage.evidence = 'its interval is "step"'
            elif automatic and math.isfinite(batches):
                steps_per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
                usage.calls_per_step = (1 / steps_per_epoch / config.frequency,) * 2
                usage.evidence = 'its interval is "epoch"'
            self.schedulers.append(usage)

    def _add_hugging_face(self, trainer: Any) -> None:
        self.models.append(trainer.model)
        if trainer.optimizer is not None:
            self.optimizers.append(trainer.optimizer)
        self.done = trainer.state.global_step
        arguments = trainer.args
        if self.total_steps is None and trainer.state.max_steps > 0:
            self.total_steps = trainer.state.max_steps
        elif self.total_steps is None and arguments.max_steps > 0:
            self.total_steps = arguments.max_steps
        elif self.total_steps is None and hasattr(trainer.train_dataset, "__len__"):
            prepared = list(trainer.accelerator._dataloaders)
            batches = len(trainer.get_train_dataloader())
            trainer.accelerator._dataloaders[:] = prepared  # Accelerate never drops it otherwise
            steps = max(math.ceil(batches / arguments.gradient_accumulation_steps), 1)
            self.total_steps = math.ceil(arguments.num_train_epochs * steps)
        if trainer.lr_scheduler is not None:
            self.trainer_builds_optimizer = trainer.optimizer is None
            usage = _usage_of(trainer.lr_scheduler)
            usage.calls_per_step = usage.calls_per_step or (1.0, 1.0)
            usage.evidence = usage.evidence or "the Trainer steps it once per step"
            self.schedulers.append(usage)


def _is_from_accelerate(item: Any) -> bool:
    return isinstance(getattr(item, "scheduler", None), LRScheduler) and hasattr(
        item, "step_with_optimizer"
    )


def _usage_of(scheduler: Any) -> SchedulerUsage:
    if not _is_from_accelerate(scheduler):
        return SchedulerUsage(scheduler)
    if not scheduler.step_with_optimizer or scheduler.split_batches:
        return SchedulerUsage(scheduler.scheduler)
    processes = int(sys.modules[type(scheduler).__module__].AcceleratorState().num_processes)
    evidence = f"Accelerate steps it once for each of {processes} processes"
    calls_per_step = (float(processes),) * 2
    return SchedulerUsage(scheduler.scheduler, calls_per_step, evidence, processes=processes)


def _steps_in_state(optimizer: Optimizer) -> int | None:
    """Return the number of steps taken, if the optimizer's state counts them."""
    counts = [
        int(state["step"])
        for state in optimizer.state.values()
        if isinstance(state, dict) and isinstance(state.get("step"), int | float | torch.Tensor)
    ]
    return max(counts, default=None)
