"""The facts of an Accelerator, and of a scheduler that it prepared."""

import sys
from typing import Any

from ._facts import SteppedScheduler, TrainerFacts


def is_accelerator(trainer: Any) -> bool:
    return hasattr(trainer, "prepare") and hasattr(trainer, "gradient_accumulation_steps")


def read_accelerator(accelerator: Any) -> TrainerFacts:
    """Return what an Accelerator prepared. It has no number for the length of the run."""
    return TrainerFacts(
        models=tuple(accelerator._models),
        optimizers=tuple(map(unwrap_optimizer, accelerator._optimizers)),
        schedulers=tuple(map(read_scheduler, accelerator._schedulers)),
        accumulate=accelerator.gradient_accumulation_steps,
        scaler=accelerator.scaler,
        reduce=accelerator.num_processes > 1,
    )


def unwrap_optimizer(optimizer: Any) -> Any:
    return optimizer.optimizer if hasattr(optimizer, "accelerator_state") else optimizer


def is_prepared_scheduler(scheduler: Any) -> bool:
    return hasattr(scheduler, "step_with_optimizer") and hasattr(scheduler, "scheduler")


def read_scheduler(scheduler: Any) -> SteppedScheduler:
    """Return a scheduler and how often Accelerate steps it; unknown if it is not prepared."""
    if not is_prepared_scheduler(scheduler):
        return SteppedScheduler(scheduler)
    if not scheduler.step_with_optimizer or scheduler.split_batches:
        return SteppedScheduler(scheduler.scheduler)
    processes = int(sys.modules[type(scheduler).__module__].AcceleratorState().num_processes)
    evidence = f"Accelerate steps it once for each of {processes} processes"
    return SteppedScheduler(scheduler.scheduler, float(processes), evidence)
