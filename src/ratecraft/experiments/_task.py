"""Task: a model, a loss and data, built by a plain function in a user's own file."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ratecraft.errors import TaskError
from ratecraft.torch._optimizers import optimizer_named

from ._source import BUILT_IN_TASKS, call_function, load_function

BatchFunction = Callable[[nn.Module, Any], torch.Tensor]  # a loss or metric of (model, batch)


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters())


@dataclass(frozen=True, slots=True)
class Task:
    """What to train, from a new model each time.

    Attributes:
        model: ``model()`` returns a new model; its initial weights depend on torch's seed.
        loss: ``loss(model, batch)`` returns the training loss, a tensor of one element.
        train: the training batches: a DataLoader, a list, or any iterable with a length that can
            be iterated more than once.
        val: the validation batches, likewise.
        optimizer: ``optimizer(model)`` returns the optimizer; default AdamW. Its learning rates
            are overwritten.
        metrics: further validation metrics by name, each ``metric(model, batch)``, a mean over
            the batch; ``loss`` is always measured.
        name: description of the task.

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
    train: Iterable[Any]
    val: Iterable[Any]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = _adamw
    metrics: Mapping[str, BatchFunction] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        for name in ("model", "loss", "optimizer"):
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
        for name in ("train", "val"):
            value = getattr(self, name)
            repeatable = isinstance(value, Iterable) and not isinstance(value, Iterator)
            if not repeatable or not isinstance(value, Sized) or not len(value):
                raise TaskError(
                    f"Task({name}=...) must be batches that can be iterated more than once, not "
                    f"{type(value).__name__}, with a length of at least 1, the number of batches; "
                    "pass a DataLoader or a list"
                )

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch: the number of training batches."""
        return len(self.train)  # type: ignore[arg-type]  # checked on construction


def load_task(name: str) -> Task:
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


def load_task_version(name: str, source_hash: str) -> Task:
    """Return the task with a name, provided that `identify` still gives ``source_hash``."""
    target = BUILT_IN_TASKS.get(name, name)
    source_hash = "" if name in BUILT_IN_TASKS else source_hash  # for these, a package version
    if not all(target.rpartition(":")):
        matches = difflib.get_close_matches(name, BUILT_IN_TASKS, n=1)
        hint = f"; did you mean {matches[0]!r}?" if matches else ""
        raise TaskError(
            f"there is no task {name!r}{hint}\nthe built-in tasks are {', '.join(BUILT_IN_TASKS)}; "
            "for your own write file.py:function, where the function returns a ratecraft.Task"
        )
    return build_task(load_function(target, source_hash), name)


def build_task(build: Callable[[], Task], name: str) -> Task:
    """Call a user's function and check that it returns a `Task`."""
    task = call_function(build, name)
    if not isinstance(task, Task):
        raise TaskError(
            f"{name} returned {type(task).__name__}; expected a ratecraft.Task: end the function "
            "with return Task(model=..., loss=..., train=..., val=...)"
        )
    return task


def with_optimizer(task: Task, name: str | None) -> Task:
    """Return a task with the optimizer that `optimizer_named` finds, or with its own for None."""
    if name is None:
        return task
    build = optimizer_named(name)
    return replace(task, optimizer=lambda model: build(model.parameters()))


@torch.no_grad()
def mean_metrics(task: Task, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Return the mean of each metric over some batches, weighted by their number of rows."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    metrics = {"loss": task.loss, **task.metrics}
    sums, total_rows = dict.fromkeys(metrics, 0.0), 0
    for batch in batches:
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
