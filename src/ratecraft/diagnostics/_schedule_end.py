"""The step at which a scheduler ends, and what it does afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch.optim import lr_scheduler

from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR


@dataclass(frozen=True, slots=True)
class ScheduleEnd:
    """The end of a scheduler.

    Attributes:
        calls: the number of ``step()`` calls up to the end.
        past: what happens after it, for messages.
        spans_run: the schedule is meant to last exactly as long as the run.
        raises: ``step()`` raises an error after it.
    """

    calls: int
    past: str = "and stays where it is"
    spans_run: bool = True
    raises: bool = False


def schedule_end(scheduler: Any) -> ScheduleEnd | None:
    """Return the end of a scheduler, if it has one."""
    if isinstance(scheduler, PlateauLR):
        scheduler = scheduler.scheduler
    if isinstance(scheduler, ScheduleLR):
        return ScheduleEnd(scheduler.end_step, _last(scheduler)) if scheduler.end_step else None
    match scheduler:
        case lr_scheduler.OneCycleLR():
            return ScheduleEnd(scheduler.total_steps, "and raises an error there", raises=True)
        case lr_scheduler.CosineAnnealingLR():
            return ScheduleEnd(scheduler.T_max, "and rises again")
        case lr_scheduler.PolynomialLR():
            return ScheduleEnd(scheduler.total_iters, "and stays at lr 0")
        case lr_scheduler.LinearLR() if scheduler.end_factor < scheduler.start_factor:
            return ScheduleEnd(
                scheduler.total_iters, f"and stays at a factor of {scheduler.end_factor:g}"
            )
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


def _last(scheduler: ScheduleLR) -> str:
    """Return the text for the value that a schedule keeps after its end."""
    last = scheduler.factors(scheduler.end_step)
    value = max(last) if isinstance(last, list) else last
    return f"and stays at {'an lr' if scheduler.sets_lr else 'a factor'} of {value:g}"


def _end_of_lambda(function: Any) -> ScheduleEnd | None:
    """Return the end of a transformers schedule, which is a partial with named lengths."""
    keywords = function.keywords if isinstance(function, partial) else {}
    total_steps = keywords.get("num_training_steps")
    if total_steps is None and "num_decay_steps" in keywords:
        phases = [keywords.get(f"num_{name}_steps", 0) for name in ("warmup", "stable", "decay")]
        total_steps = sum(phases) if all(isinstance(length, int) for length in phases) else None
    return ScheduleEnd(total_steps) if isinstance(total_steps, int) else None
