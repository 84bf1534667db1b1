"""The facts of a Hugging Face Trainer."""

import math
from dataclasses import replace
from typing import Any

from ._accelerate import read_scheduler, unwrap_optimizer
from ._facts import SteppedScheduler, TrainerFacts


def is_hugging_face(trainer: Any) -> bool:
    return hasattr(trainer, "create_optimizer_and_scheduler") and hasattr(trainer, "args")


def read_hugging_face(trainer: Any, *, with_loader: bool = False) -> TrainerFacts:
    """Return the facts of a Hugging Face Trainer; while it does not train, those of its next run.

    The loader is built if ``with_loader`` or if the run's length depends on it.
    """
    arguments, accelerator = trainer.args, trainer.accelerator
    running_steps = trainer.state.max_steps if trainer.is_in_train else 0
    total_steps = running_steps or arguments.max_steps
    loader = None
    if with_loader or (total_steps <= 0 and trainer.train_dataset is not None):
        prepared = list(accelerator._dataloaders)
        loader = trainer.get_train_dataloader()
        accelerator._dataloaders[:] = prepared  # Accelerate never drops it otherwise
    steps_per_epoch = _steps_in(loader, arguments.gradient_accumulation_steps)
    if total_steps <= 0 and steps_per_epoch is not None:
        total_steps = math.ceil(arguments.num_train_epochs * steps_per_epoch)
    schedulers: tuple[SteppedScheduler, ...] = ()
    if trainer.lr_scheduler is not None:
        stepped = read_scheduler(trainer.lr_scheduler)
        if stepped.calls_per_step is None:
            evidence = "the Trainer steps it once per step"
            stepped = replace(stepped, calls_per_step=1.0, evidence=evidence)
        schedulers = (stepped,)
    return TrainerFacts(
        models=(trainer.model,),
        optimizers=() if trainer.optimizer is None else (unwrap_optimizer(trainer.optimizer),),
        schedulers=schedulers,
        loader=loader,
        total_steps=total_steps if total_steps > 0 else None,
        steps_per_epoch=steps_per_epoch,
        done=trainer.state.global_step,
        accumulate=arguments.gradient_accumulation_steps,
        clip=arguments.max_grad_norm or None,
        scaler=getattr(accelerator, "scaler", None),
        reduce=accelerator.num_processes > 1,
    )


def epoch_of_run(trainer: Any, total_steps: int) -> int | None:
    """Return the steps of an epoch in the run that ``train()`` prepares; None for a stream."""
    arguments = trainer.args
    epochs: float = arguments.num_train_epochs
    if arguments.max_steps <= 0 and epochs >= 1:
        # The trainer rounded epochs x steps up; the quotient may be a rounding error too small.
        return math.floor(total_steps / epochs * (1 + 1e-12))
    prepared = trainer.accelerator._dataloaders  # the loader of this run exists already
    loader = prepared[0] if prepared else trainer.get_train_dataloader()
    return _steps_in(loader, arguments.gradient_accumulation_steps)


def _steps_in(loader: Any, accumulate: int) -> int | None:
    try:
        return max(math.ceil(len(loader) / accumulate), 1)
    except TypeError:  # no loader, or one over a stream
        return None
