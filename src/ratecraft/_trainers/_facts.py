"""What is read from a trainer."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SteppedScheduler:
    """A scheduler without the trainer's wrapper, and how often its ``step()`` is called."""

    scheduler: Any
    calls_per_step: float | None = None  # per optimizer step; None if unknown
    evidence: str = ""  # for calls_per_step, in messages


@dataclass(frozen=True, slots=True)
class TrainerFacts:
    """What a trainer knows about its run; None where it does not know."""

    models: tuple[Any, ...]  # in Lightning and the Hugging Face Trainer without wrappers
    optimizers: tuple[Any, ...] = ()  # that exist so far, without wrappers
    schedulers: tuple[SteppedScheduler, ...] = ()
    loader: Any = None  # of the training batches
    total_steps: int | None = None  # of the current run, or of the next if none is running
    steps_per_epoch: int | None = None
    done: int | None = None  # steps; None if several optimizers are counted together
    joint_max_steps: int | None = None  # the run's, if several optimizers are counted together
    accumulate: int = 1  # batches per step
    clip: float | None = None  # gradient norm, or absolute gradient with clips_values
    clips_values: bool = False
    scaler: Any = None  # the GradScaler
    reduce: bool = False  # whether several processes share the work
