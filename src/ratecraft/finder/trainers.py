"""A range test with what a trainer knows: model, optimizer, batches, precision, clipping.

Neither library is imported here: what is asked of a trainer is read from the one that was given.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ratecraft.errors import BindingError, TaskError
from ratecraft.finder.sweep import LEAST_UPDATES, range_test
from ratecraft.records import RangeTest

__all__ = ["range_test_for"]


def range_test_for(trainer: Any, **settings: Any) -> RangeTest:
    """Run a range test inside a trainer, which goes on as if it had not been.

    Model, optimizer, batches, accumulation, clipping, GradScaler and precision are the
    trainer's. A Lightning ``Trainer`` has them while it fits; a Hugging Face ``Trainer`` before
    ``train()``, too.

    Args:
        trainer: a Lightning or a Hugging Face ``Trainer``.
        settings: what `range_test` takes: ``low=``, ``high=``, ``updates=`` and so on; they go
            before the trainer's.

    Raises:
        TypeError: no such trainer.
        BindingError: a Lightning trainer that does not fit at present, or whose module
            optimizes by hand.

    Example::

        class Module(lightning.LightningModule):
            def on_train_start(self):
                print(range_test_for(self.trainer).suggestion)
    """
    if hasattr(trainer, "lr_scheduler_configs") and hasattr(trainer, "strategy"):
        return _in_lightning(trainer, settings)
    if hasattr(trainer, "create_optimizer_and_scheduler") and hasattr(trainer, "args"):
        return _in_hugging_face(trainer, settings)
    raise TypeError(f"range_test_for() takes a trainer, not {type(trainer).__name__}")


def _in_lightning(trainer: Any, settings: dict[str, Any]) -> RangeTest:
    if not trainer.optimizers or trainer.train_dataloader is None:
        raise BindingError(
            "this Trainer has no optimizers yet; call range_test_for(self.trainer) while it fits, "
            "in the module's on_train_start"
        )
    module = trainer.lightning_module
    if not module.automatic_optimization:
        raise BindingError(
            "this module optimizes by hand, and nobody else knows how; call range_test with its "
            "models, optimizers and loss"
        )
    taken = len(inspect.signature(module.training_step).parameters)
    number = iter(range(2**63))

    def loss(_: nn.Module, batch: Any) -> torch.Tensor:
        moved = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        arguments = (moved, next(number))[: max(taken, 1)]
        step = trainer.strategy.training_step(*arguments)
        return _loss_in(step, "training_step")

    said: dict[str, Any] = {
        "accumulate": trainer.accumulate_grad_batches,
        "scaler": getattr(trainer.precision_plugin, "scaler", None),
        "reduce": trainer.world_size > 1,
        "task": type(module).__name__,
    }
    if trainer.gradient_clip_val:
        said["clip"] = trainer.gradient_clip_val
        if str(getattr(trainer.gradient_clip_algorithm, "value", "norm")) == "value":
            bound = float(trainer.gradient_clip_val)
            said["clip"] = lambda parameters: nn.utils.clip_grad_value_(parameters, bound)
    if math.isfinite(trainer.num_training_batches):
        updates = math.ceil(trainer.num_training_batches / said["accumulate"])
        said["updates"] = max(updates, LEAST_UPDATES)
    with _silent(module):
        return range_test(
            trainer.model, trainer.optimizers, trainer.train_dataloader, loss, **(said | settings)
        )


@contextmanager
def _silent(module: Any) -> Iterator[None]:
    """Let a module's training_step log nothing: the test's losses belong into no log."""

    def nothing(*_: Any, **__: Any) -> None:
        """Log nothing."""

    names = ("log", "log_dict")
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    vars(module).update(dict.fromkeys(names, nothing))
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]
        vars(module).update(before)


def _in_hugging_face(trainer: Any, settings: dict[str, Any]) -> RangeTest:
    arguments, accelerator = trainer.args, trainer.accelerator

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        inputs = trainer._prepare_inputs(batch)
        with accelerator.autocast():
            return _loss_in(trainer.compute_loss(model, inputs), "compute_loss")

    said: dict[str, Any] = {
        "accumulate": arguments.gradient_accumulation_steps,
        "scaler": getattr(accelerator, "scaler", None),
        "reduce": accelerator.num_processes > 1,
        "task": type(trainer.model).__name__,
    }
    if arguments.max_grad_norm:
        said["clip"] = arguments.max_grad_norm
    # What the trainer would build for the run is built for the test, and forgotten afterwards.
    given, prepared = trainer.optimizer, list(accelerator._dataloaders)
    try:
        if trainer.optimizer is None:
            trainer.create_optimizer()
        return range_test(
            trainer.model, trainer.optimizer, trainer.get_train_dataloader(), loss,
            **(said | settings),
        )  # fmt: skip
    finally:
        trainer.optimizer = given
        accelerator._dataloaders[:] = prepared


def _loss_in(answer: Any, name: str) -> torch.Tensor:
    """Return the loss that a trainer's step answered with."""
    loss = answer.get("loss") if isinstance(answer, dict) else answer
    if not isinstance(loss, torch.Tensor):
        raise TaskError(f"{name} returned {type(answer).__name__}, and no loss in it")
    return loss
