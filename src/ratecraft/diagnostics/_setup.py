"""A live set-up as `doctor` looks at it: models, optimizers, schedulers, and who steps them."""

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
    """A scheduler, and how it is stepped as far as that is known.

    Attributes:
        scheduler: it.
        per_step: least and most calls of ``step()`` for each step; ``None`` if nobody knows.
        why: how that is known.
        done: steps that its optimizer has made, if somebody counted.
        total_steps: steps that its optimizer is going to make, if known.
        processes: how many times Accelerate calls it for one call of the user's.
    """

    scheduler: Any
    per_step: tuple[float, float] | None = None
    why: str = ""
    done: int | None = None
    total_steps: int | None = None
    processes: int = 1

    @property
    def name(self) -> str:
        """The scheduler's class."""
        return type(self.scheduler).__name__

    @property
    def ours(self) -> ScheduleLR | None:
        """The `ScheduleLR` that it is, or that is in it."""
        inner = (
            self.scheduler.scheduler if isinstance(self.scheduler, PlateauLR) else self.scheduler
        )
        return inner if isinstance(inner, ScheduleLR) else None

    @property
    def counts_itself(self) -> bool:
        """Whether its clock follows the optimizer, however often it is stepped."""
        return self.ours is not None and not self.ours.counts_calls

    def count(self) -> None:
        """Say from the counts how often it is stepped, where that is seldom and nobody knows."""
        follows = self.counts_itself or isinstance(self.scheduler, ReduceLROnPlateau)
        if follows or self.per_step is not None or not self.done:
            return
        if self.calls * 2 + 2 <= self.done:
            # Once an epoch, or forgotten: the next call may be due at any time.
            self.per_step = self.calls / self.done, (self.calls + 1) / self.done
            self.why = f"{self.calls} calls of step() in {self.done} steps"

    @property
    def calls(self) -> int:
        """StepOptions often it was stepped; torch's chain does not count."""
        scheduler = self.scheduler
        while isinstance(scheduler, ChainedScheduler):
            scheduler = scheduler._schedulers[0]
        return int(scheduler.last_epoch)

    def drives(self, optimizers: list[Optimizer]) -> bool:
        """Return whether its optimizer is among these."""
        own = innermost_optimizer(self.scheduler.optimizer)
        return any(own is innermost_optimizer(optimizer) for optimizer in optimizers)

    def parts(self) -> list[SchedulerUsage]:
        """Return the schedulers of a chain, each stepped as the chain is; or itself."""
        if not isinstance(self.scheduler, ChainedScheduler):
            return [self]
        return [
            inner
            for part in self.scheduler._schedulers
            for inner in SchedulerUsage(
                part, self.per_step, self.why, self.done, self.total_steps, self.processes
            ).parts()
        ]


@dataclass(slots=True)
class TrainingSetup:
    """What is to be looked at.

    Attributes:
        total_steps: steps the run is going to make.
        done: steps made.
        builds_own: the trainer will build an optimizer of its own beside a given scheduler.
        swaps: an SWALR takes over from the others before the run ends.
    """

    models: list[torch.nn.Module] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    patients: list[SchedulerUsage] = field(default_factory=list)
    total_steps: int | None = None
    done: int | None = None
    builds_own: bool = False
    swaps: bool = False

    @classmethod
    def of(
        cls, things: tuple[Any, ...], total_steps: int | None, done: int | None
    ) -> TrainingSetup:
        """Return the set-up of things, taken by what they are; lists of them are looked into.

        Raises:
            TypeError: something that is none of these.
            BindingError: a length that is none, or a trainer that has nothing yet.
        """
        for name, least, value in (("total", 1, total_steps), ("done", 0, done)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"doctor({name}={value!r}): expected an int, counting steps")
            if value is not None and value < least:
                raise BindingError(f"doctor({name}={value}): expected {least} or more")
        setup = cls(total_steps=total_steps, done=done)
        for thing in things:
            setup._take(thing)
        setup.swaps = any(isinstance(patient.scheduler, SWALR) for patient in setup.patients)
        counts = {id(innermost_optimizer(one)): _counted(one) for one in setup.optimizers}
        alike = len({count for count in counts.values() if count is not None}) <= 1
        for patient in setup.patients:
            own = counts.get(id(innermost_optimizer(patient.scheduler.optimizer)))
            patient.done = (setup.done if own is None else own) if done is None else done
            # Of optimizers at different paces nobody knows whose steps a total counts.
            patient.total_steps = setup.total_steps if alike else None
            patient.count()
        return setup

    def _take(self, thing: Any) -> None:
        if isinstance(thing, torch.nn.Module):
            self.models.append(thing)
        elif isinstance(thing, Optimizer):
            self.optimizers.append(thing)
        elif isinstance(thing, LRScheduler) or _is_accelerates(thing):
            self.patients.append(_patient(thing))
        elif isinstance(thing, list | tuple | Mapping):
            for inner in thing.values() if isinstance(thing, Mapping) else thing:
                self._take(inner)
        elif hasattr(thing, "lr_scheduler_configs") and hasattr(thing, "strategy"):
            self._take_lightning(thing)
        elif hasattr(thing, "create_optimizer_and_scheduler") and hasattr(thing, "args"):
            self._take_hugging_face(thing)
        else:
            raise TypeError(
                "doctor() looks at models, optimizers, schedulers and trainers, not "
                f"{type(thing).__name__}"
            )

    def _take_lightning(self, trainer: Any) -> None:
        if not trainer.optimizers:
            raise BindingError(
                "this Trainer has no optimizers yet; call doctor(trainer) while it fits, as in "
                "on_train_start(self, trainer, module) of a callback"
            )
        self.models.append(trainer.lightning_module)
        self.optimizers += trainer.optimizers
        automatic = trainer.lightning_module.automatic_optimization
        if len(trainer.optimizers) == 1:
            # Of several Lightning counts the steps together.
            self.done = trainer.global_step
            if self.total_steps is None and 0 < trainer.estimated_stepping_batches < math.inf:
                self.total_steps = int(trainer.estimated_stepping_batches)
        batches = trainer.num_training_batches
        for config in trainer.lr_scheduler_configs:
            patient = SchedulerUsage(config.scheduler)
            if automatic and config.interval == "step":
                patient.per_step = (1 / config.frequency,) * 2
                patient.why = 'its interval is "step"'
            elif automatic and math.isfinite(batches):
                steps_per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
                patient.per_step = (1 / steps_per_epoch / config.frequency,) * 2
                patient.why = 'its interval is "epoch"'
            self.patients.append(patient)

    def _take_hugging_face(self, trainer: Any) -> None:
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
            trainer.accelerator._dataloaders[:] = prepared  # where it would be kept for ever
            steps = max(math.ceil(batches / arguments.gradient_accumulation_steps), 1)
            self.total_steps = math.ceil(arguments.num_train_epochs * steps)
        if trainer.lr_scheduler is not None:
            self.builds_own = trainer.optimizer is None
            patient = _patient(trainer.lr_scheduler)
            patient.per_step = patient.per_step or (1.0, 1.0)
            patient.why = patient.why or "the Trainer steps it once a step"
            self.patients.append(patient)


def _is_accelerates(thing: Any) -> bool:
    return isinstance(getattr(thing, "scheduler", None), LRScheduler) and hasattr(
        thing, "step_with_optimizer"
    )


def _patient(scheduler: Any) -> SchedulerUsage:
    if not _is_accelerates(scheduler):
        return SchedulerUsage(scheduler)
    if not scheduler.step_with_optimizer or scheduler.split_batches:
        return SchedulerUsage(scheduler.scheduler)
    processes = int(sys.modules[type(scheduler).__module__].AcceleratorState().num_processes)
    why = f"Accelerate steps it once for each of {processes} processes"
    return SchedulerUsage(scheduler.scheduler, (float(processes),) * 2, why, processes=processes)


def _counted(optimizer: Optimizer) -> int | None:
    """Return the steps made, where an optimizer's state counts them."""
    counts = [
        int(state["step"])
        for state in optimizer.state.values()
        if isinstance(state, dict) and isinstance(state.get("step"), int | float | torch.Tensor)
    ]
    return max(counts, default=None)
