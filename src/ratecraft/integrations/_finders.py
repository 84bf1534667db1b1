"""find_lr and range_test with the model, optimizer, data and settings of a trainer."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ratecraft._trainers._facts import TrainerFacts
from ratecraft._trainers._hugging_face import is_hugging_face, read_hugging_face
from ratecraft._trainers._lightning import is_lightning, read_lightning
from ratecraft._training._short_runner import LossFunction
from ratecraft.errors import BindingError, TaskError
from ratecraft.finder._find_lr import find_lr
from ratecraft.finder._range_test import MIN_DEFAULT_STEPS, range_test
from ratecraft.results import LRFinderResult, LRRangeTestResult


def find_lr_for(trainer: Any, **options: Any) -> LRFinderResult:
    """Find a learning rate inside a trainer; training then continues as if nothing had run.

    Model, optimizer, batches, gradient accumulation, clipping, GradScaler, precision and the run's
    length come from the trainer.

    Args:
        trainer: a Lightning ``Trainer`` during fit, or a Hugging Face ``Trainer``, also before
            ``train()``.
        options: keyword arguments of `ratecraft.finder.find_lr`, such as ``budget_steps=``; they
            override the trainer's values.

    Raises:
        TypeError: ``trainer`` is neither.
        BindingError: a Lightning trainer that is not fitting, or whose module uses manual
            optimization.
        TaskError: the trainer's step does not return a loss.

    Example::

        class Module(lightning.LightningModule):
            def on_train_start(self):
                print(find_lr_for(self.trainer).lr)
    """
    with _run_of(trainer, "find_lr_for") as (facts, arguments):
        return find_lr(**({**arguments, "total_steps": facts.total_steps} | options))


def range_test_for(trainer: Any, **options: Any) -> LRRangeTestResult:
    """Run a learning-rate range test inside a trainer; training then continues unchanged.

    The test takes one epoch of steps, but at least 100.

    Args:
        trainer: as in `find_lr_for`.
        options: keyword arguments of `ratecraft.finder.range_test`, such as ``low=``, ``high=`` or
            ``steps=``; they override the trainer's values.

    Raises:
        TypeError, BindingError, TaskError: as in `find_lr_for`.

    Example::

        class Module(lightning.LightningModule):
            def on_train_start(self):
                print(range_test_for(self.trainer).suggestion)
    """
    with _run_of(trainer, "range_test_for") as (facts, arguments):
        steps = max(facts.steps_per_epoch or 0, MIN_DEFAULT_STEPS)
        return range_test(**({**arguments, "steps": steps} | options))


@contextmanager
def _run_of(trainer: Any, caller: str) -> Iterator[tuple[TrainerFacts, dict[str, Any]]]:
    """Prepare a short run; yield the trainer's facts, and the arguments of a finder."""
    run: AbstractContextManager[tuple[TrainerFacts, LossFunction]]
    if is_lightning(trainer):
        run = _lightning_run(trainer, caller)
    elif is_hugging_face(trainer):
        run = _hugging_face_run(trainer)
    else:
        raise TypeError(
            f"{caller}() takes a Lightning or Hugging Face Trainer, not {type(trainer).__name__}"
        )
    with run as (facts, loss):
        names = ("loader", "accumulate", "clip", "scaler", "reduce")
        arguments: dict[str, Any] = {name: getattr(facts, name) for name in names} | {
            "model": trainer.model,  # unlike facts.models in DistributedDataParallel, for example
            "optimizer": facts.optimizers,
            "loss": loss,
            "task": type(facts.models[0]).__name__,
        }
        if facts.clip is not None and facts.clips_values:
            arguments["clip"] = partial(nn.utils.clip_grad_value_, clip_value=float(facts.clip))
        yield facts, arguments


@contextmanager
def _lightning_run(trainer: Any, caller: str) -> Iterator[tuple[TrainerFacts, LossFunction]]:
    facts = read_lightning(trainer)
    if not facts.optimizers or facts.loader is None:
        raise BindingError(
            f"this Trainer has no optimizers yet; call {caller}(self.trainer) during fit, in the "
            "module's on_train_start"
        )
    (module,) = facts.models
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

    with _without_logging(module):
        yield facts, loss


@contextmanager
def _without_logging(module: Any) -> Iterator[None]:
    """Disable a module's log methods, so that losses of the test do not reach its logger."""
    names = ("log", "log_dict")
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    vars(module).update(dict.fromkeys(names, lambda *_, **__: None))
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]
        vars(module).update(before)


@contextmanager
def _hugging_face_run(trainer: Any) -> Iterator[tuple[TrainerFacts, LossFunction]]:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        inputs = trainer._prepare_inputs(batch)
        with trainer.accelerator.autocast():
            return _loss_of(trainer.compute_loss(model, inputs), "compute_loss")

    # The optimizer is built as the trainer would for the run, and dropped afterwards.
    optimizer = trainer.optimizer
    try:
        if optimizer is None:
            trainer.create_optimizer()
        yield read_hugging_face(trainer, with_loader=True), loss
    finally:
        trainer.optimizer = optimizer


def _loss_of(output: Any, name: str) -> torch.Tensor:
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, torch.Tensor):
        raise TaskError(
            f"{name} returned {type(output).__name__} without a loss; expected a tensor, or a "
            'dict with "loss"'
        )
    return loss
