"""An lr with what a trainer knows: model, optimizer, batches, precision, clipping, length.

Neither library is imported here: what is asked of a trainer is read from the one that was given.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from ratecraft.errors import BindingError, TaskError
from ratecraft.finder._find_lr import find_lr
from ratecraft.finder._range_test import LEAST_STEPS, range_test
from ratecraft.results import LRFinderResult, LRRangeTestResult


class TrainerContext(NamedTuple):
    """What a trainer trains and how; the steps of an epoch and of the run, if it knows them."""

    things: tuple[Any, Any, Any, Any]  # model, optimizer, loader, loss
    how: dict[str, Any]
    steps_per_epoch: int | None
    total_steps: int | None


def find_lr_for(trainer: Any, **settings: Any) -> LRFinderResult:
    """Find the lr inside a trainer, which goes on as if nobody had.

    Model, optimizer, batches, accumulation, clipping, GradScaler, precision and the run's length
    are the trainer's. A Lightning ``Trainer`` has them while it fits; a Hugging Face ``Trainer``
    before ``train()``, too.

    Args:
        trainer: a Lightning or a Hugging Face ``Trainer``.
        settings: what `find_lr` takes: ``steps=``, ``total_steps=`` and so on; they go before the
            trainer's.

    Raises:
        TypeError: no such trainer.
        BindingError: a Lightning trainer that does not fit at present, or whose module
            optimizes by hand.

    Example::

        class Module(lightning.LightningModule):
            def on_train_start(self):
                print(find_lr_for(self.trainer).lr)
    """
    with _world(trainer, "find_lr_for") as world:
        return find_lr(*world.things, **({"total_steps": world.total_steps} | world.how | settings))


def range_test_for(trainer: Any, **settings: Any) -> LRRangeTestResult:
    """Run a range test inside a trainer, which goes on as if it had not been.

    Args:
        trainer: a Lightning or a Hugging Face ``Trainer``, as `find_lr_for` takes it.
        settings: what `range_test` takes: ``low=``, ``high=``, ``steps=`` and so on; they go
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
    with _world(trainer, "range_test_for") as world:
        length = {"steps": max(world.steps_per_epoch, LEAST_STEPS)} if world.steps_per_epoch else {}
        return range_test(*world.things, **(length | world.how | settings))


def _world(trainer: Any, what: str) -> AbstractContextManager[TrainerContext]:
    if hasattr(trainer, "lr_scheduler_configs") and hasattr(trainer, "strategy"):
        return _of_lightning(trainer, what)
    if hasattr(trainer, "create_optimizer_and_scheduler") and hasattr(trainer, "args"):
        return _of_hugging_face(trainer)
    raise TypeError(f"{what}() takes a trainer, not {type(trainer).__name__}")


@contextmanager
def _of_lightning(trainer: Any, what: str) -> Iterator[TrainerContext]:
    if not trainer.optimizers or trainer.train_dataloader is None:
        raise BindingError(
            f"this Trainer has no optimizers yet; call {what}(self.trainer) while it fits, "
            "in the module's on_train_start"
        )
    module = trainer.lightning_module
    if not module.automatic_optimization:
        raise BindingError(
            "this module optimizes by hand, and nobody else knows how; call "
            f"{what.removesuffix('_for')} with its models, optimizers and loss"
        )
    taken = len(inspect.signature(module.training_step).parameters)
    number = iter(range(2**63))

    def loss(_: nn.Module, batch: Any) -> torch.Tensor:
        moved = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        arguments = (moved, next(number))[: max(taken, 1)]
        step = trainer.strategy.training_step(*arguments)
        return _loss_in(step, "training_step")

    how: dict[str, Any] = {
        "accumulate": trainer.accumulate_grad_batches,
        "scaler": getattr(trainer.precision_plugin, "scaler", None),
        "reduce": trainer.world_size > 1,
        "task": type(module).__name__,
    }
    if trainer.gradient_clip_val:
        how["clip"] = trainer.gradient_clip_val
        if str(getattr(trainer.gradient_clip_algorithm, "value", "norm")) == "value":
            bound = float(trainer.gradient_clip_val)
            how["clip"] = lambda parameters: nn.utils.clip_grad_value_(parameters, bound)
    steps_per_epoch = None
    if math.isfinite(trainer.num_training_batches):
        steps_per_epoch = math.ceil(trainer.num_training_batches / how["accumulate"])
    total_steps = trainer.estimated_stepping_batches
    total_steps = int(total_steps) if math.isfinite(total_steps) and total_steps > 0 else None
    things = trainer.model, trainer.optimizers, trainer.train_dataloader, loss
    with _silent(module):
        yield TrainerContext(things, how, steps_per_epoch, total_steps)


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


@contextmanager
def _of_hugging_face(trainer: Any) -> Iterator[TrainerContext]:
    arguments, accelerator = trainer.args, trainer.accelerator

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        inputs = trainer._prepare_inputs(batch)
        with accelerator.autocast():
            return _loss_in(trainer.compute_loss(model, inputs), "compute_loss")

    how: dict[str, Any] = {
        "accumulate": arguments.gradient_accumulation_steps,
        "scaler": getattr(accelerator, "scaler", None),
        "reduce": accelerator.num_processes > 1,
        "task": type(trainer.model).__name__,
    }
    if arguments.max_grad_norm:
        how["clip"] = arguments.max_grad_norm
    # What the trainer would build for the run is built for the test, and forgotten afterwards.
    given, prepared = trainer.optimizer, list(accelerator._dataloaders)
    try:
        if trainer.optimizer is None:
            trainer.create_optimizer()
        loader = trainer.get_train_dataloader()
        total_steps = arguments.max_steps if arguments.max_steps > 0 else None
        if total_steps is None and hasattr(loader, "__len__"):
            steps_per_epoch = math.ceil(len(loader) / how["accumulate"])
            total_steps = math.ceil(arguments.num_train_epochs * steps_per_epoch)
        yield TrainerContext(
            (trainer.model, trainer.optimizer, loader, loss), how, None, total_steps
        )
    finally:
        trainer.optimizer = given
        accelerator._dataloaders[:] = prepared


def _loss_in(answer: Any, name: str) -> torch.Tensor:
    """Return the loss that a trainer's step answered with."""
    loss = answer.get("loss") if isinstance(answer, dict) else answer
    if not isinstance(loss, torch.Tensor):
        raise TaskError(f"{name} returned {type(answer).__name__}, and no loss in it")
    return loss
