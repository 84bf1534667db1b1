"""What is trained: a model, a loss, data; built by a plain function in a user's own file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import nn

from ratecraft.errors import TaskError
from ratecraft.torch._optimizers import optimizer_named

from ._source import BUILT_IN, called, load_function

Loss = Callable[[nn.Module, Any], torch.Tensor]

EXAMPLE: Final = "return Task(model=..., loss=..., train=..., val=...)"


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters())


@dataclass(frozen=True, slots=True)
class Task:
    """Something to train, from a fresh start each time.

    Attributes:
        model: ``model()`` returns a new model; its weights follow torch's seed.
        loss: ``loss(model, batch)`` returns the training loss, a tensor of one element.
        train: the training batches: a DataLoader, a list, anything that can be iterated again.
        val: the validation batches, likewise.
        optimizer: ``optimizer(model)`` returns the optimizer; default AdamW. Its lrs are
            overwritten.
        metrics: more validation metrics by name, each ``metric(model, batch)``, a mean over the
            batch; ``loss`` is always measured.
        name: what is trained, in words.

    >>> from torch.nn import functional as F
    >>> x = torch.randn(64, 3)
    >>> task = Task(
    ...     model=lambda: nn.Linear(3, 1),
    ...     loss=lambda model, batch: F.mse_loss(model(batch), batch.sum(1, keepdim=True)),
    ...     train=x.split(16),
    ...     val=x.split(64),
    ... )
    >>> len(task.train)
    4
    """

    model: Callable[[], nn.Module]
    loss: Loss
    train: Iterable[Any]
    val: Iterable[Any]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = _adamw
    metrics: Mapping[str, Loss] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        for name in ("model", "loss", "optimizer"):
            if not callable(value := getattr(self, name)) or isinstance(value, torch.Tensor):
                raise TaskError(f"Task({name}=...) must be a function, not {type(value).__name__}")
        if isinstance(self.model, nn.Module):
            raise TaskError(
                "Task(model=...) is a model, where a function that makes one was expected, since "
                "each run starts afresh; write model=lambda: MyModel(...)"
            )
        if not isinstance(self.metrics, Mapping) or not all(map(callable, self.metrics.values())):
            raise TaskError("Task(metrics=...) must be functions by name: {'accuracy': accuracy}")
        if "loss" in self.metrics:
            raise TaskError("Task(metrics=...): the loss is always measured; leave 'loss' out")
        for name in ("train", "val"):
            value = getattr(self, name)
            if isinstance(value, Iterator) or not isinstance(value, Iterable):
                raise TaskError(
                    f"Task({name}=...) must be batches that can be iterated again and again, "
                    f"not {type(value).__name__}; give a DataLoader or a list"
                )
            if not isinstance(value, Sized) or len(value) == 0:
                raise TaskError(
                    f"Task({name}=...) must have a length, at least 1, since an epoch is that "
                    f"many batches; this {type(value).__name__} has "
                    + ("none" if isinstance(value, Sized) else "no length")
                )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch: the number of training batches."""
        return len(self.train)  # type: ignore[arg-type]  # checked on construction


def load_task(name: str) -> Task:
    """Return the task that a name stands for.

    Args:
        name: ``digits``, ``stdlib-text``, ``path/to/file.py:function`` or ``module:function``,
            where calling the function returns a `Task`.

    Raises:
        TaskError: there is no such file, function or built-in task, or it returns no `Task`.

    >>> task = load_task("digits")
    >>> task.epoch, list(task.metrics)
    (45, ['accuracy'])
    """
    return task_as_it_was(name, "")


def task_as_it_was(name: str, code: str) -> Task:
    """Return the task of a name, as long as its code is what it was; "" for any code.

    Raises:
        TaskError: as `load_task`, or the code has changed.
    """
    target = BUILT_IN.get(name, name)
    code = "" if name in BUILT_IN else code  # a version of this package
    if not all(target.rpartition(":")):
        close = difflib.get_close_matches(name, BUILT_IN, n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise TaskError(
            f"no task is named {name!r}{guess}\nbuilt in are {', '.join(BUILT_IN)}; your own is "
            "written file.py:function, where the function returns a ratecraft.Task"
        )
    return build_task(load_function(target, code), name)


def build_task(build: Callable[[], Task], name: str) -> Task:
    """Call a user's function and check that it returns a `Task`."""
    task = called(build, name)
    if not isinstance(task, Task):
        raise TaskError(
            f"{name} returned {type(task).__name__}, where a ratecraft.Task was expected; "
            f"end the function with: {EXAMPLE}"
        )
    return task


def with_optimizer(task: Task, name: str) -> Task:
    """Return a task with another optimizer, by its short name or its class's path.

    Raises:
        SettingError: there is no such optimizer; see `ratecraft.torch._optimizers`.
    """
    build = optimizer_named(name)
    return replace(task, optimizer=lambda model: build(model.parameters()))
