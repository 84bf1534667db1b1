"""Task: a model, a loss and data, built by a plain function in a user's own file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ratecraft.errors import TaskError
from ratecraft.torch._optimizers import optimizer_named

from ._source import BUILT_IN_TASKS, call_function, load_function

BatchFunction = Callable[[nn.Module, Any], torch.Tensor]
"""A loss or metric: (model, batch) -> tensor of one element."""


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
            if isinstance(value, Iterator) or not isinstance(value, Iterable):
                raise TaskError(
                    f"Task({name}=...) must be batches that can be iterated more than once, "
                    f"not {type(value).__name__}; pass a DataLoader or a list"
                )
            if not isinstance(value, Sized) or len(value) == 0:
                raise TaskError(
                    f"Task({name}=...) must have a length of at least 1, the number of its "
                    f"batches; this {type(value).__name__} has "
                    + ("length 0" if isinstance(value, Sized) else "no length")
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


def with_optimizer(task: Task, name: str) -> Task:
    """Return a copy of a task with another optimizer, as `optimizer_named` finds it."""
    build = optimizer_named(name)
    return replace(task, optimizer=lambda model: build(model.parameters()))
