"""Task: a model, a loss and data, built by a plain function in a user's own file."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal, overload

import torch
from torch import nn

from ratecraft._training._snapshot import Batches, refuse_stream
from ratecraft._training._steps import Clip, check_clip, move_batch
from ratecraft.errors import TaskError
from ratecraft.torch._optimizers import optimizer_named

from ._hugging_face_task import HuggingFaceTask
from ._lightning_task import LightningTask
from ._source import BUILT_IN_TASKS, call_function, load_function
from ._trainer_task import TrainerTask

BatchFunction = Callable[[nn.Module, Any], torch.Tensor]  # a loss or metric of (model, batch)


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters())


@dataclass(frozen=True, slots=True)
class Task:
    """What to train, from a new model each time.

    Attributes:
        model: ``model()`` returns a new model; its initial weights depend on torch's seed.
        loss: ``loss(model, batch)`` returns the training loss, a tensor of one element. Use
            ``autocast`` inside it for mixed precision.
        train: the training batches: a DataLoader, a list, another iterable that can be iterated
            more than once, or a function that returns a new one, such as a stream.
        val: the validation batches, likewise; they must end.
        optimizer: ``optimizer(model)`` returns the optimizer; default AdamW. Its learning rates
            are overwritten.
        metrics: further validation metrics by name, each ``metric(model, batch)``, a mean over
            the batch; ``loss`` is always measured.
        accumulate: batches per step, whose gradients and losses are averaged. A step may take
            batches from two passes over the data.
        clip: the largest norm of the gradients, or a function that clips the parameters it gets.
        scaler: ``scaler()`` returns a new GradScaler. A step that it skips has a loss, but does not
            advance the schedule.
        device: where the model and the batches are moved; default: they stay where they are.
        steps_per_epoch: number of steps between two evaluations, for training batches without a
            length; otherwise it is ``len(train) // accumulate``.
        name: description of the task.

    Raises:
        TaskError, SettingError: an argument has the wrong type or is out of its range.

    >>> import torch
    >>> from torch import nn
    >>> from torch.nn import functional as F
    >>> from ratecraft.experiments import Task
    >>> x = torch.randn(64, 3)
    >>> task = Task(
    ...     model=lambda: nn.Linear(3, 1),
    ...     loss=lambda model, batch: F.mse_loss(model(batch), batch.sum(1, keepdim=True)),
    ...     train=x.split(16),
    ...     val=x.split(64),
    ... )
    >>> task.steps_per_epoch
    4
    """

    model: Callable[[], nn.Module]
    loss: BatchFunction
    train: Batches
    val: Batches
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = _adamw
    metrics: Mapping[str, BatchFunction] = field(default_factory=dict)
    name: str = ""
    _: KW_ONLY
    accumulate: int = 1
    clip: Clip | None = None
    scaler: Callable[[], Any] | None = None
    device: torch.device | str | None = None
    steps_per_epoch: int = 0

    def __post_init__(self) -> None:
        if hasattr(self.scaler, "scale"):
            raise TaskError(
                "Task(scaler=...) is a GradScaler; expected a function that creates one, since "
                "each run needs a new one: write scaler=lambda: torch.amp.GradScaler()"
            )
        for name in ("model", "loss", "optimizer", "scaler"):
            if name == "scaler" and self.scaler is None:
                continue
            if not callable(value := getattr(self, name)) or isinstance(value, torch.Tensor):
                raise TaskError(f"Task({name}=...) must be a function, not {type(value).__name__}")
        if isinstance(self.model, nn.Module):
            raise TaskError(
                "Task(model=...) is a model; expected a function that creates one, since each run "
                "trains a new model: write model=lambda: MyModel(...)"
            )
        if not isinstance(self.metrics, Mapping) or not all(map(callable, self.metrics.values())):
            raise TaskError("Task(metrics=...) must be a dict of functions: {'accuracy': accuracy}")
        if "loss" in self.metrics:
            raise TaskError("Task(metrics=...): the loss is always measured; leave 'loss' out")
        self._check_settings()
        lengths = [_check_batches(name, getattr(self, name)) for name in ("train", "val")]
        object.__setattr__(self, "steps_per_epoch", self._epoch_length(lengths[0]))

    def _check_settings(self) -> None:
        check_clip(self.clip)
        for name, smallest in (("accumulate", 1), ("steps_per_epoch", 0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < smallest:
                raise TaskError(f"Task({name}={number!r}): expected a whole number >= 1")
        try:
            self.device is None or torch.device(self.device)
        except (RuntimeError, TypeError):
            raise TaskError(
                f"Task(device={self.device!r}): expected a device of torch, such as 'cuda' or 'cpu'"
            ) from None

    def _epoch_length(self, batches: int | None) -> int:
        """Return steps_per_epoch, where ``batches`` is the length of the training data or None."""
        given = self.steps_per_epoch
        if batches is None:
            if not given:
                raise TaskError(
                    "Task(train=...) has no length: write steps_per_epoch=, the number of steps "
                    "between two evaluations"
                )
            return given
        steps = max(batches // self.accumulate, 1)
        if given not in (0, steps):
            raise TaskError(
                f"Task(steps_per_epoch={given}): train= has {batches} batches, which are {steps} "
                f"steps; leave steps_per_epoch= out, which is for data without a length"
            )
        return steps

    @staticmethod
    def from_lightning(
        make_module: Callable[[], Any],
        make_data: Callable[[], Any],
        make_trainer: Callable[[], Any] | None = None,
        *,
        steps_per_epoch: int | None = None,
        name: str = "",
    ) -> TrainerTask:
        """Return a task that a Lightning Trainer trains in its own loop.

        Each run seeds the random numbers, and then calls these functions. It sets the trainer's
        ``max_steps``. The learning rates of the optimizer follow the schedule, and param groups
        keep their ratios. Validation metrics are what the module logs with the prefix ``val``:
        ``val_loss`` is required, and is measured whenever the trainer validates and at the end.

        Args:
            make_module: ``make_module()`` returns a new LightningModule; its
                ``configure_optimizers`` returns one optimizer and no scheduler.
            make_data: ``make_data()`` returns a LightningDataModule, or the loaders of the training
                and the validation data: ``(train, val)``.
            make_trainer: ``make_trainer()`` returns a new Trainer on one device, with its own
                precision, clipping, accumulation, loggers and callbacks. Default: one that writes
                no files, logs or progress.
            steps_per_epoch: number of steps in an epoch, if the training data has no length.
            name: description of the task.

        Example::

            def task():
                return Task.from_lightning(
                    Module,
                    DataModule,
                    lambda: lightning.Trainer(devices=1, gradient_clip_val=1.0, logger=False),
                )
        """
        return LightningTask(name, steps_per_epoch, make_module, make_data, make_trainer)

    @staticmethod
    def from_trainer(
        make_trainer: Callable[[], Any], *, steps_per_epoch: int | None = None, name: str = ""
    ) -> TrainerTask:
        """Return a task that a Hugging Face ``Trainer`` trains in its own loop.

        Each run seeds the random numbers, calls ``make_trainer``, and sets ``seed`` and
        ``max_steps`` in the trainer's arguments. The learning rates of its optimizer follow the
        schedule. Validation metrics are those of ``trainer.evaluate()``, whenever the trainer
        evaluates and at the end.

        Args:
            make_trainer: ``make_trainer()`` returns a new Trainer of a new model, with an
                ``eval_dataset``; its arguments set precision, clipping, accumulation, logging and
                checkpoints.
            steps_per_epoch: number of steps in an epoch, if the training data has no length.
            name: description of the task.

        Example::

            def task():
                arguments = TrainingArguments(output_dir, save_strategy="no", max_grad_norm=1.0)
                return Task.from_trainer(
                    lambda: Trainer(make_model(), arguments, train_dataset=..., eval_dataset=...)
                )
        """
        return HuggingFaceTask(name, steps_per_epoch, make_trainer)


AnyTask = Task | TrainerTask


def _check_batches(name: str, batches: Any) -> int | None:
    """Return the number of batches, or None if it is unknown; raise TaskError for other values."""
    repeatable = isinstance(batches, Iterable) and not isinstance(batches, Iterator)
    if not (repeatable or callable(batches)):
        raise TaskError(
            f"Task({name}=...) must be batches that can be iterated more than once, not "
            f"{type(batches).__name__}; pass a DataLoader, a list, or a function that opens the "
            "data: lambda: stream()"
        )
    refuse_stream(batches)
    length: int | None = None
    if isinstance(batches, Sized):
        with suppress(TypeError):  # a DataLoader over a stream
            length = len(batches)
    if length == 0:
        raise TaskError(f"Task({name}=...) has a length of 0; expected at least one batch")
    return length


@overload
def load_task(name: Literal["digits", "stdlib-text"]) -> Task: ...
@overload
def load_task(name: str) -> AnyTask: ...
def load_task(name: str) -> AnyTask:
    """Return the task with a name.

    Args:
        name: ``digits``, ``stdlib-text``, ``path/to/file.py:function`` or ``module:function``,
            where the function returns a `Task`.

    Raises:
        TaskError: the file, function or built-in task does not exist, or returns no `Task`.

    >>> from ratecraft.experiments import load_task
    >>> task = load_task("digits")
    >>> task.steps_per_epoch, list(task.metrics)
    (45, ['accuracy'])
    """
    return load_task_version(name, "")


def load_task_version(name: str, source_hash: str) -> AnyTask:
    """Return the task with a name, provided that `identify` still gives ``source_hash``."""
    target = BUILT_IN_TASKS.get(name, name)
    source_hash = "" if name in BUILT_IN_TASKS else source_hash  # for these, a package version
    if not all(target.rpartition(":")):
        matches = difflib.get_close_matches(name, BUILT_IN_TASKS, n=1)
        hint = f"; did you mean {matches[0]!r}?" if matches else ""
        if name.endswith(".py"):
            hint = "; a script without a function can only be given to compare"
        raise TaskError(
            f"there is no task {name!r}{hint}\nthe built-in tasks are {', '.join(BUILT_IN_TASKS)}; "
            "for your own write file.py:function, where the function returns a ratecraft.Task"
        )
    return build_task(load_function(target, source_hash), name)


def build_task(build: Callable[[], AnyTask], name: str) -> AnyTask:
    """Call a user's function and check that it returns a `Task`."""
    task = call_function(build, name)
    if not isinstance(task, AnyTask):
        raise TaskError(
            f"{name} returned {type(task).__name__}; expected a ratecraft.Task: end the function "
            "with return Task(model=..., loss=..., train=..., val=...)"
        )
    return task


def with_optimizer(task: AnyTask, name: str | None) -> AnyTask:
    """Return a task with the optimizer that `optimizer_named` finds, or with its own for None."""
    if name is None:
        return task
    if isinstance(task, TrainerTask):
        raise TaskError(
            f"optimizer {name!r}: {task.trainer_name} creates its own optimizer, so leave other "
            "optimizers out, and write a task for each"
        )
    build = optimizer_named(name)
    return replace(task, optimizer=lambda model: build(model.parameters()))


@torch.no_grad()
def mean_metrics(task: Task, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Return the mean of each metric over some batches, weighted by their number of rows."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    metrics = {"loss": task.loss, **task.metrics}
    sums, total_rows = dict.fromkeys(metrics, 0.0), 0
    for unmoved in batches:
        batch = move_batch(unmoved, task.device)
        rows = _count_rows(batch)
        total_rows += rows
        for name, metric in metrics.items():
            value = metric(model, batch)
            check_scalar(value, "loss" if name == "loss" else f"the metric {name}")
            sums[name] += rows * float(value)
    for module, mode in modes.items():
        module.training = mode
    if not total_rows:
        raise TaskError("the batches of val= have no rows, so nothing can be measured")
    return {name: value / total_rows for name, value in sums.items()}


def _count_rows(batch: Any) -> int:
    """Return the number of samples in a batch: the length of the first tensor in it."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else 0
    items = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, Mapping | list | tuple):
        for item in items:
            if isinstance(item, torch.Tensor | Mapping | list | tuple) and (n := _count_rows(item)):
                return n
    return 1


def check_scalar(value: Any, name: str = "loss") -> None:
    """Raise TaskError unless a loss or a metric returned a tensor of one element."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        is_tensor = isinstance(value, torch.Tensor)
        actual = f"a tensor of shape {tuple(value.shape)}" if is_tensor else type(value).__name__
        raise TaskError(f"{name}(model, batch) returned {actual}; expected a tensor of one element")
