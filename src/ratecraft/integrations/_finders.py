"""find_lr and range_test with the model, optimizer, data and settings of a trainer.

Neither Lightning nor transformers is imported here; the trainer passed in is read by attributes.
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
from ratecraft.finder._range_test import MIN_DEFAULT_STEPS, range_test
from ratecraft.results import LRFinderResult, LRRangeTestResult


class TrainerContext(NamedTuple):
    """The arguments of a finder, read from a trainer.

    Attributes:
        objects: model, optimizer, loader and loss.
        options: keyword arguments, such as ``accumulate`` and ``clip``.
        steps_per_epoch: steps per epoch, if known.
        total_steps: length of the run in steps, if known.
    """

    objects: tuple[Any, Any, Any, Any]
    options: dict[str, Any]
    steps_per_epoch: int | None
    total_steps: int | None


def find_lr_for(trainer: Any, **options: Any) -> LRFinderResult:
    """Find a learning rate inside a trainer; training then continues as if nothing had run.

    Model, optimizer, batches, gradient accumulation, clipping, GradScaler, precision and the run's
    length come from the trainer. A Lightning ``Trainer`` has them during fit; a Hugging Face
    ``Trainer`` also before ``train()``.

    Args:
        trainer: a Lightning ``Trainer`` or a Hugging Face ``Trainer``.
        options: keyword arguments of `ratecraft.finder.find_lr`, such as ``budget_steps=``; they
            override the trainer's values.

    Raises:
        TypeError: ``trainer`` is neither of these.
        BindingError: a Lightning trainer that is not fitting, or whose module uses manual
            optimization.
        TaskError: the trainer's step does not return a loss.

    Example::

        class Module(lightning.LightningModule):
            def on_train_start(self):
                print(find_lr_for(self.trainer).lr)
    """
    with _context_of(trainer, "find_lr_for") as context:
        defaults = {"total_steps": context.total_steps} | context.options
        return find_lr(*context.objects, **(defaults | options))


def range_test_for(trainer: Any, **options: Any) -> LRRangeTestResult:
    """Run a learning rate range test inside a trainer; training then continues unchanged.

    The test takes one epoch of steps, but at least 100.

    Args:
        trainer: a Lightning ``Trainer`` or a Hugging Face ``Trainer``, as in `find_lr_for`.
        options: keyword arguments of `ratecraft.finder.range_test`, such as ``low=``, ``high=`` or
            ``steps=``; they override the trainer's values.

    Raises:
        TypeError: ``trainer`` is neither of these.
        BindingError: a Lightning trainer that is not fitting, or whose module uses manual
            optimization.
        TaskError: the trainer's step does not return a loss.

    Example::

        class Module(lightning.LightningModule):
            def on_train_start(self):
                print(range_test_for(self.trainer).suggestion)
    """
    with _context_of(trainer, "range_test_for") as context:
        steps = context.steps_per_epoch
        length = {"steps": max(steps, MIN_DEFAULT_STEPS)} if steps else {}
        return range_test(*context.objects, **(length | context.options | options))


def _context_of(trainer: Any, caller: str) -> AbstractContextManager[TrainerContext]:
    if hasattr(trainer, "lr_scheduler_configs") and hasattr(trainer, "strategy"):
        return _lightning_context(trainer, caller)
    if hasattr(trainer, "create_optimizer_and_scheduler") and hasattr(trainer, "args"):
        return _hugging_face_context(trainer)
    raise TypeError(
        f"{caller}() takes a Lightning or Hugging Face Trainer, not {type(trainer).__name__}"
    )


@contextmanager
def _lightning_context(trainer: Any, caller: str) -> Iterator[TrainerContext]:
    if not trainer.optimizers or trainer.train_dataloader is None:
        raise BindingError(
            f"this Trainer has no optimizers yet; call {caller}(self.trainer) during fit, in the "
            "module's on_train_start"
        )
    module = trainer.lightning_module
    if not module.automatic_optimization:
        raise BindingError(
            f"this module uses manual optimization, which {caller} cannot repeat; call "
            f"{caller.removesuffix('_for')} with its models, optimizers and loss"
        )
    parameter_count = len(inspect.signature(module.training_step).parameters)
    batch_index = iter(range(2**63))

    def loss(_: nn.Module, batch: Any) -> torch.Tensor:
        moved = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        arguments = (moved, next(batch_index))[: max(parameter_count, 1)]
        return _loss_of(trainer.strategy.training_step(*arguments), "training_step")

    options: dict[str, Any] = {
        "accumulate": trainer.accumulate_grad_batches,
        "scaler": getattr(trainer.precision_plugin, "scaler", None),
        "reduce": trainer.world_size > 1,
        "task": type(module).__name__,
    }
    if trainer.gradient_clip_val:
        options["clip"] = trainer.gradient_clip_val
        if str(getattr(trainer.gradient_clip_algorithm, "value", "norm")) == "value":
            bound = float(trainer.gradient_clip_val)
            options["clip"] = lambda parameters: nn.utils.clip_grad_value_(parameters, bound)
    steps_per_epoch = None
    if math.isfinite(trainer.num_training_batches):
        steps_per_epoch = math.ceil(trainer.num_training_batches / options["accumulate"])
    estimate = trainer.estimated_stepping_batches
    total_steps = int(estimate) if math.isfinite(estimate) and estimate > 0 else None
    objects = trainer.model, trainer.optimizers, trainer.train_dataloader, loss
    with _without_logging(module):
        yield TrainerContext(objects, options, steps_per_epoch, total_steps)


@contextmanager
def _without_logging(module: Any) -> Iterator[None]:
    """Disable a module's log methods, so that losses of the test do not reach its logger."""

    def ignore(*_: Any, **__: Any) -> None:
        """Log nothing."""

    names = ("log", "log_dict")
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    vars(module).update(dict.fromkeys(names, ignore))
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]
        vars(module).update(before)


@contextmanager
def _hugging_face_context(trainer: Any) -> Iterator[TrainerContext]:
    arguments, accelerator = trainer.args, trainer.accelerator

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        inputs = trainer._prepare_inputs(batch)
        with accelerator.autocast():
            return _loss_of(trainer.compute_loss(model, inputs), "compute_loss")

    options: dict[str, Any] = {
        "accumulate": arguments.gradient_accumulation_steps,
        "scaler": getattr(accelerator, "scaler", None),
        "reduce": accelerator.num_processes > 1,
        "task": type(trainer.model).__name__,
    }
    if arguments.max_grad_norm:
        options["clip"] = arguments.max_grad_norm
    # The trainer builds its optimizer and loader here as it would for the run; both are dropped
    # afterwards.
    optimizer, prepared = trainer.optimizer, list(accelerator._dataloaders)
    try:
        if trainer.optimizer is None:
            trainer.create_optimizer()
        loader = trainer.get_train_dataloader()
        total_steps = arguments.max_steps if arguments.max_steps > 0 else None
        if total_steps is None and hasattr(loader, "__len__"):
            steps_per_epoch = math.ceil(len(loader) / options["accumulate"])
            total_steps = math.ceil(arguments.num_train_epochs * steps_per_epoch)
        objects = trainer.model, trainer.optimizer, loader, loss
        yield TrainerContext(objects, options, None, total_steps)
    finally:
        trainer.optimizer = optimizer
        accelerator._dataloaders[:] = prepared


def _loss_of(output: Any, name: str) -> torch.Tensor:
    """Return the loss in the output of a trainer's step."""
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, torch.Tensor):
        raise TaskError(
            f"{name} returned {type(output).__name__} without a loss; expected a tensor, or a "
            'dict with "loss"'
        )
    return loss
