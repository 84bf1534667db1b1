"""What is read from a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SteppedScheduler:
    """A scheduler, and how often its ``step()`` is called.

    Attributes:
        scheduler: the scheduler itself, not the trainer's wrapper.
        calls_per_step: number of calls per optimizer step; None if unknown.
        evidence: how ``calls_per_step`` is known, for messages.
    """

    scheduler: Any
    calls_per_step: float | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class TrainerFacts:
    """What a trainer knows about its run; None where it does not know.

    Attributes:
        models: the models, in Lightning and the Hugging Face Trainer without wrappers.
        optimizers: the optimizers that exist so far, without wrappers.
        schedulers: the schedulers, and how often each is stepped.
        loader: the loader of the training batches, if it exists.
        total_steps: steps of the current run, or of the next if none is running.
        steps_per_epoch: steps of one epoch.
        done: steps so far; None if several optimizers are counted together.
        accumulate: batches per step.
        clip: the largest gradient norm; with ``clips_values`` the largest absolute gradient.
        clips_values: whether single values are clipped.
        scaler: the GradScaler.
        reduce: whether several processes share the work.
    """

    models: tuple[Any, ...]
    optimizers: tuple[Any, ...] = ()
    schedulers: tuple[SteppedScheduler, ...] = ()
    loader: Any = None
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    done: int | None = None
    accumulate: int = 1
    clip: float | None = None
    clips_values: bool = False
    scaler: Any = None
    reduce: bool = False
