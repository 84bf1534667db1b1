"""find_lr and range_test with the model, optimizer, data and settings of a trainer."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer

from ratecraft._trainers._accelerate import unwrap_optimizer
from ratecraft._trainers._facts import TrainerFacts
from ratecraft._trainers._hugging_face import is_hugging_face, read_hugging_face
from ratecraft._trainers._lightning import checkpoint_lrs, is_lightning, read_lightning
from ratecraft._training._short_runner import LossFunction
from ratecraft.errors import BindingError, TaskError
from ratecraft.finder._find_lr import find_lr
from ratecraft.finder._range_test import MIN_DEFAULT_STEPS, range_test
from ratecraft.results import LRFinderResult, LRRangeTestResult
from ratecraft.results._lr_search import check_without_scheduler, set_lr, write_lr

log = logging.getLogger("ratecraft.integrations")

FOUND_LR_KEY: Final = "found_lr"  # in the log history of a Hugging Face Trainer, which it saves
SEARCH_ATTRIBUTE: Final = "_ratecraft_search"  # of a Hugging Face Trainer that will search


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
    return _find(trainer, "find_lr_for", options)


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


def find_and_set_lr(trainer: Any, optimizer: Optimizer | None = None, **options: Any) -> None:
    """Find the learning rate of a run and set it, before the trainer builds the schedule.

    Call it in a LightningModule's ``configure_optimizers``, after the optimizer is created and
    before the schedule; it searches at once. For a Hugging Face ``Trainer``, call it before
    ``train()``, which then searches after it has created the optimizer. Param groups keep the
    ratios of their learning rates. The result is logged as a warning, so that it is always shown.

    A run that resumes from a checkpoint does not search again. It uses the learning rate of the
    checkpoint, and logs that. Lightning's ``fast_dev_run`` does not search either.

    Args:
        trainer: a Lightning ``Trainer``, ``self.trainer``, or a Hugging Face ``Trainer``.
        optimizer: the optimizer; only with Lightning.
        options: as in `find_lr_for`.

    Raises:
        TypeError: ``trainer`` is neither; or ``optimizer`` is missing, or not expected.
        RunFailed: no learning rate is found; training does not start.
        BindingError: a scheduler exists already, it is the second call for a Hugging Face
            ``Trainer``, the module uses manual optimization, or the strategy loads its checkpoint
            only after the optimizers are set up, as FSDP's does.
        TaskError: as in `find_lr_for`.

    Example::

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters())
            find_and_set_lr(self.trainer, optimizer)
            return for_lightning(self, optimizer, factor=wsd(percent(5)))
    """
    if is_lightning(trainer):
        if optimizer is None:
            raise TypeError(
                "find_and_set_lr() got no optimizer: with Lightning, write "
                "find_and_set_lr(self.trainer, optimizer) in configure_optimizers"
            )
        _set_lr_in_lightning(trainer, optimizer, options)
    elif is_hugging_face(trainer):
        if optimizer is not None:
            raise TypeError(
                "find_and_set_lr() got an optimizer: a Hugging Face Trainer has its own, so write "
                "find_and_set_lr(trainer)"
            )
        _set_lr_in_hugging_face(trainer, options)
    else:
        raise _wrong_trainer("find_and_set_lr", trainer)


def _set_lr_in_lightning(trainer: Any, optimizer: Optimizer, options: dict[str, Any]) -> None:
    if trainer.strategy.restore_checkpoint_after_setup:
        raise BindingError(
            f"{type(trainer.strategy).__name__} loads a checkpoint after configure_optimizers, so "
            "find_and_set_lr cannot tell whether the run resumes; search in a run of its own, with "
            "find_lr_for, and write the learning rate into the optimizer"
        )
    lrs = checkpoint_lrs(trainer)
    if lrs is not None:
        for group, lr in zip(optimizer.param_groups, lrs, strict=False):
            write_lr(group, lr)
        _log_resumed(trainer.is_global_zero, max(lrs, default=None))
    elif trainer.fast_dev_run:
        log.warning("find_and_set_lr: fast_dev_run does not search, and keeps the learning rate")
    else:
        if trainer.train_dataloader is None:
            trainer.fit_loop.setup_data()
        check_without_scheduler(optimizer)
        result = _find(trainer, "find_and_set_lr", options, optimizer)
        result.apply(optimizer)
        _log_result(trainer.is_global_zero, result)


def _set_lr_in_hugging_face(trainer: Any, options: dict[str, Any]) -> None:
    if trainer.lr_scheduler is not None:
        raise BindingError(
            "this Trainer already has a scheduler: call find_and_set_lr(trainer) before the first "
            "train(), and leave the scheduler out of Trainer(optimizers=...)"
        )
    if hasattr(trainer, SEARCH_ATTRIBUTE):
        raise BindingError(
            "find_and_set_lr(trainer) was already called: the search runs once, in train(); call "
            "it once, with the options of that search"
        )
    setattr(trainer, SEARCH_ATTRIBUTE, True)
    create_optimizer = trainer.create_optimizer
    finished: list[Optimizer] = []  # the optimizer that has its lr

    def create_optimizer_and_set_lr(*arguments: Any, **keywords: Any) -> Any:
        wrapped = create_optimizer(*arguments, **keywords)
        optimizer = unwrap_optimizer(trainer.optimizer)
        # Only in train(): before it, the Trainer does not know whether the run resumes.
        if trainer.is_in_train and not (finished and finished[0] is optimizer):
            finished[:] = [optimizer]
            _set_lr_of_run(trainer, optimizer, options)
        return wrapped

    trainer.create_optimizer = create_optimizer_and_set_lr


def _set_lr_of_run(trainer: Any, optimizer: Optimizer, options: dict[str, Any]) -> None:
    """Set the lr of a run of a Hugging Face Trainer that has just created its optimizer."""
    history, is_main = trainer.state.log_history, trainer.is_world_process_zero()
    if trainer.state.global_step > 0:
        lrs = (entry[FOUND_LR_KEY] for entry in reversed(history) if FOUND_LR_KEY in entry)
        lr = next(lrs, None)
        if lr is not None:
            set_lr(optimizer, lr)
        _log_resumed(is_main, lr)
        return
    check_without_scheduler(optimizer)
    result = _find(trainer, "find_and_set_lr", options)
    result.apply(optimizer)
    history.append({FOUND_LR_KEY: result.lr, "step": 0})
    _log_result(is_main, result)


def _log_result(is_main: bool, result: LRFinderResult) -> None:
    if is_main:
        # By default, Python shows warnings only, and the run has another lr than its code says.
        log.warning("find_and_set_lr set the learning rate %s", result.verdict())


def _log_resumed(is_main: bool, lr: float | None) -> None:
    if is_main:
        lr_text = "has no learning rate of a search" if lr is None else f"has lr {lr:.3g}"
        log.warning(
            "find_and_set_lr did not search: the run resumes, and its checkpoint %s", lr_text
        )


def _find(
    trainer: Any, caller: str, options: dict[str, Any], optimizer: Optimizer | None = None
) -> LRFinderResult:
    with _run_of(trainer, caller, optimizer) as (facts, arguments):
        return find_lr(**({**arguments, "total_steps": facts.total_steps} | options))


def _wrong_trainer(caller: str, trainer: Any) -> TypeError:
    return TypeError(
        f"{caller}() takes a Lightning or Hugging Face Trainer, not {type(trainer).__name__}"
    )


@contextmanager
def _run_of(
    trainer: Any, caller: str, optimizer: Optimizer | None = None
) -> Iterator[tuple[TrainerFacts, dict[str, Any]]]:
    """Prepare a short run; yield the trainer's facts, and the arguments of a finder.

    ``optimizer`` is one that the Lightning trainer does not have yet.
    """
    run: AbstractContextManager[tuple[TrainerFacts, LossFunction]]
    if is_lightning(trainer):
        run = _lightning_run(trainer, caller, optimizer)
    elif is_hugging_face(trainer):
        run = _hugging_face_run(trainer)
    else:
        raise _wrong_trainer(caller, trainer)
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
def _lightning_run(
    trainer: Any, caller: str, optimizer: Optimizer | None
) -> Iterator[tuple[TrainerFacts, LossFunction]]:
    facts = read_lightning(trainer)
    if optimizer is not None:
        facts = replace(facts, optimizers=(optimizer,))
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
