"""TrainingSetup: the models, optimizers and schedulers that doctor examines, and their ends."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ratecraft._trainers._accelerate import (
    is_accelerator,
    is_prepared_scheduler,
    read_accelerator,
    read_scheduler,
)
from ratecraft._trainers._facts import SteppedScheduler, TrainerFacts
from ratecraft._trainers._hugging_face import is_hugging_face, read_hugging_face
from ratecraft._trainers._lightning import is_lightning, read_lightning
from ratecraft.errors import BindingError
from ratecraft.torch._hyperparam import innermost_optimizer
from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR

from ._describe import chain_parts


@dataclass(slots=True)
class SchedulerUsage:
    stepped: SteppedScheduler
    done: int | None = None  # steps that its optimizer has taken, if counted
    total_steps: int | None = None  # that its optimizer will take, if known

    @property
    def scheduler(self) -> Any:
        return self.stepped.scheduler

    @property
    def optimizer(self) -> Optimizer:
        return innermost_optimizer(self.scheduler.optimizer)

    @property
    def name(self) -> str:
        return type(self.scheduler).__name__

    @property
    def schedule_lr(self) -> ScheduleLR | None:
        """The scheduler if it is a `ScheduleLR`, or the one inside a `PlateauLR`."""
        is_plateau = isinstance(self.scheduler, PlateauLR)
        inner = self.scheduler.scheduler if is_plateau else self.scheduler
        return inner if isinstance(inner, ScheduleLR) else None

    @property
    def counts_optimizer_steps(self) -> bool:
        """Whether it counts the optimizer's steps, independent of its own ``step()`` calls."""
        return self.schedule_lr is not None and not self.schedule_lr.counts_calls

    @property
    def calls(self) -> int:
        """The number of ``step()`` calls (``last_epoch``); of a chain, that of its first part."""
        return int(next(chain_parts(self.scheduler)).last_epoch)

    @property
    def calls_per_step(self) -> tuple[float, float] | None:
        """Lowest and highest number of ``step()`` calls per optimizer step; None if unknown."""
        known = 1.0 if self.counts_optimizer_steps else self.stepped.calls_per_step
        if known is not None:
            return known, known
        follows_metric = isinstance(self.scheduler, ReduceLROnPlateau)
        if follows_metric or not self.done or self.calls * 2 + 2 > self.done:
            return None
        # Stepped once an epoch, or forgotten: the next call may be due at any step.
        return self.calls / self.done, (self.calls + 1) / self.done

    @property
    def evidence(self) -> str:
        """How ``calls_per_step`` is known."""
        return self.stepped.evidence or f"{self.calls} calls of step() in {self.done} steps"


class TrainingSetup:
    """The objects that doctor examines."""

    def __init__(self, objects: tuple[Any, ...], total_steps: int | None, done: int | None) -> None:
        for name, least, value in (("total_steps", 1, total_steps), ("done", 0, done)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"doctor({name}={value!r}): expected an int, in steps")
            if value is not None and value < least:
                raise BindingError(f"doctor({name}={value}): expected {least} or more")
        self.models: list[torch.nn.Module] = []
        self.optimizers: list[Optimizer] = []
        self.schedulers: list[SchedulerUsage] = []
        self.total_steps = total_steps  # of the run, if known
        self.trainer_done: int | None = None  # steps so far, by the trainer's count
        self.joint_max_steps: int | None = None  # of all optimizers together
        # A Hugging Face Trainer with a scheduler but no optimizer builds another optimizer.
        self.trainer_builds_optimizer = False
        for item in objects:
            self._add(item)
        counts = {id(innermost_optimizer(each)): _steps_in_state(each) for each in self.optimizers}
        # If the optimizers differ in their step counts, total_steps is ambiguous.
        same_step_count = len({count for count in counts.values() if count is not None}) <= 1
        for usage in self.schedulers:
            known = (done, counts.get(id(usage.optimizer)), self.trainer_done)
            usage.done = next((steps for steps in known if steps is not None), None)
            usage.total_steps = self.total_steps if same_step_count else None

    def _add(self, item: Any) -> None:
        if isinstance(item, torch.nn.Module):
            self.models.append(item)
        elif isinstance(item, Optimizer):
            self.optimizers.append(item)
        elif isinstance(item, LRScheduler) or is_prepared_scheduler(item):
            self.schedulers.append(SchedulerUsage(read_scheduler(item)))
        elif isinstance(item, list | tuple | Mapping):
            for inner in item.values() if isinstance(item, Mapping) else item:
                self._add(inner)
        elif is_lightning(item):
            self._add_facts(read_lightning(item))
            if not item.optimizers:
                raise BindingError(
                    "this Trainer has no optimizers yet; call doctor(trainer) during fit, for "
                    "example in on_train_start(self, trainer, module) of a callback"
                )
        elif is_hugging_face(item):
            facts = read_hugging_face(item)
            self._add_facts(facts)
            self.trainer_builds_optimizer = bool(facts.schedulers and not facts.optimizers)
        elif is_accelerator(item):
            self._add_facts(read_accelerator(item))
        else:
            raise TypeError(
                "doctor() takes models, optimizers, schedulers and trainers, not "
                f"{type(item).__name__}"
            )

    def _add_facts(self, facts: TrainerFacts) -> None:
        self.models += facts.models
        self.optimizers += facts.optimizers
        self.schedulers += map(SchedulerUsage, facts.schedulers)
        self.trainer_done, self.joint_max_steps = facts.done, facts.joint_max_steps
        if self.total_steps is None and facts.done is not None:
            self.total_steps = facts.total_steps


def _steps_in_state(optimizer: Optimizer) -> int | None:
    """Return the number of steps taken, if the optimizer's state counts them."""
    counts = [
        int(state["step"])
        for state in optimizer.state.values()
        if isinstance(state, dict) and isinstance(state.get("step"), int | float | torch.Tensor)
    ]
    return max(counts, default=None)


@dataclass(frozen=True, slots=True)
class ScheduleEnd:
    calls: int  # of step(), up to the end
    past: str = "and stays where it is"  # after the end, for messages
    spans_run: bool = True  # the schedule is meant to last exactly as long as the run
    raises: bool = False  # step() raises an error after the end


def schedule_end(scheduler: Any) -> ScheduleEnd | None:
    if isinstance(scheduler, PlateauLR):
        scheduler = scheduler.scheduler
    if isinstance(scheduler, ScheduleLR):
        if not scheduler.end_step:
            return None
        factors = scheduler.factors(scheduler.end_step)
        value = max(factors) if isinstance(factors, list) else factors
        quantity = "an lr" if scheduler.sets_lr else "a factor"
        return ScheduleEnd(scheduler.end_step, f"and stays at {quantity} of {value:g}")
    match scheduler:
        case lr_scheduler.OneCycleLR():
            return ScheduleEnd(scheduler.total_steps, "and raises an error there", raises=True)
        case lr_scheduler.CosineAnnealingLR():
            return ScheduleEnd(scheduler.T_max, "and rises again")
        case lr_scheduler.PolynomialLR():
            return ScheduleEnd(scheduler.total_iters, "and stays at lr 0")
        case lr_scheduler.LinearLR() if scheduler.end_factor < scheduler.start_factor:
            past = f"and stays at a factor of {scheduler.end_factor:g}"
            return ScheduleEnd(scheduler.total_iters, past)
        case lr_scheduler.LinearLR() | lr_scheduler.ConstantLR():
            return ScheduleEnd(scheduler.total_iters, spans_run=False)
        case lr_scheduler.MultiStepLR() if scheduler.milestones:
            return ScheduleEnd(max(scheduler.milestones), spans_run=False)
        case lr_scheduler.StepLR():
            return ScheduleEnd(scheduler.step_size, spans_run=False)
        case lr_scheduler.SequentialLR():
            last = schedule_end(scheduler._schedulers[-1])
            began = scheduler._milestones[-1] if scheduler._milestones else 0
            return replace(last, calls=began + last.calls) if last else None
        case lr_scheduler.LambdaLR():
            return _end_of_lambda(scheduler.lr_lambdas[0])
    return None


def _end_of_lambda(function: Any) -> ScheduleEnd | None:
    """Return the end of a transformers schedule, which is a partial with named lengths."""
    keywords = function.keywords if isinstance(function, partial) else {}
    total_steps = keywords.get("num_training_steps")
    if total_steps is None and "num_decay_steps" in keywords:
        phases = [keywords.get(f"num_{name}_steps", 0) for name in ("warmup", "stable", "decay")]
        total_steps = sum(phases) if all(isinstance(length, int) for length in phases) else None
    return ScheduleEnd(total_steps) if isinstance(total_steps, int) else None
