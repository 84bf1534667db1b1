"""What is trained: a model, a loss, data; built by a plain function in a user's own file."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from ratecraft.errors import TaskError
from ratecraft.finder.preserve import preserved_rng, seed_everything
from ratecraft.torch.optimizers import optimizer_named

__all__ = ["Loss", "Task", "build_task", "load_task", "reference", "told", "with_optimizer"]

Loss = Callable[[nn.Module, Any], torch.Tensor]

BUILT_IN: Final[Mapping[str, str]] = {
    "digits": "ratecraft.compare.data:digits",
    "stdlib-text": "ratecraft.compare.data:stdlib_text",
}
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
        optimizer: ``optimizer(model)`` returns the optimizer; default AdamW. Its rates are
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
    def epoch(self) -> int:
        """Updates in an epoch: the number of training batches."""
        return len(self.train)  # type: ignore[arg-type]  # checked on construction


def load_task(name: str) -> Task:
    """Return the task that a name stands for.

    Args:
        name: ``digits``, ``stdlib-text``, ``path/to/file.py:function`` or ``module:function``,
            where calling the function returns a `Task`.

    Raises:
        TaskError: there is no such file, function or built-in task, or it returns no `Task`.
    """
    target = BUILT_IN.get(name, name)
    if not all(target.rpartition(":")):
        close = difflib.get_close_matches(name, BUILT_IN, n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise TaskError(
            f"no task is named {name!r}{guess}\nbuilt in are {', '.join(BUILT_IN)}; your own is "
            "written file.py:function, where the function returns a ratecraft.compare.Task"
        )
    return build_task(load_function(target), name)


def load_function(name: str) -> Callable[[], Any]:
    """Return the function that ``path/to/file.py:function`` or ``module:function`` names.

    Raises:
        TaskError: there is no such file or function.
    """
    place, _, function = name.rpartition(":")
    if not place or not function:
        raise TaskError(f"{name!r} names no function: expected file.py:function")
    module = _module(place)
    build = getattr(module, function, None)
    if not callable(build):
        there = [n for n, f in vars(module).items() if inspect.isfunction(f) and n[0] != "_"]
        raise TaskError(
            f"{place} has no function {function!r}; "
            + (f"it has {', '.join(there)}" if there else "it defines no function at all")
        )
    return build  # type: ignore[no-any-return]  # a user's


def build_task(build: Callable[[], Task], name: str) -> Task:
    """Call a user's function and check that it returns a `Task`."""
    task = called(build, name)
    if not isinstance(task, Task):
        raise TaskError(
            f"{name} returned {type(task).__name__}, where a ratecraft.compare.Task was expected; "
            f"end the function with: {EXAMPLE}"
        )
    return task


def with_optimizer(task: Task, name: str) -> Task:
    """Return a task with another optimizer, by its short name or its class's path.

    Raises:
        SettingError: there is no such optimizer; see `ratecraft.torch.optimizers`.
    """
    build = optimizer_named(name)
    return replace(task, optimizer=lambda model: build(model.parameters()))


def called(build: Callable[[], Any], name: str) -> Any:
    """Call a user's function with random numbers of its own; what it raises is told in a line."""
    try:
        with _the_same_every_time():
            return build()
    except TaskError:
        raise
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise TaskError(f"{name} failed: {told(error)}") from error


@contextmanager
def _the_same_every_time() -> Iterator[None]:
    """Fix the random numbers while a task is built, and leave the caller's as they were.

    Every run builds its task anew; what the task draws, such as a random split, must not differ
    from run to run, or schedules would be compared on different data.
    """
    with preserved_rng():
        seed_everything(0)
        yield


def reference(task: str | Callable[[], Task]) -> str:
    """Return a name by which a worker process finds a task again.

    Raises:
        TaskError: a function that only exists in this process, such as a lambda.
    """
    if isinstance(task, str):
        return task
    name, module = getattr(task, "__qualname__", ""), getattr(task, "__module__", "")
    if not name.isidentifier():
        raise TaskError(
            f"worker processes cannot find {name or task!r}; define the function at the top of a "
            "file, or pass workers=0 to train in this process"
        )
    if module != "__main__":
        return f"{module}:{name}"
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None or not Path(file).is_file():  # a notebook, or Python that reads its input
        raise TaskError(
            f"worker processes cannot find {name}, which was typed into a session; put it into a "
            "file, or pass workers=0 to train in this process"
        )
    return f"{Path(file).resolve()}:{name}"


@cache
def _module(place: str) -> Any:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise TaskError(
                f"cannot import {place!r}: {error}; a file is written {place}.py"
            ) from error
        except Exception as error:  # a user's module can raise anything
            raise TaskError(f"importing {place} failed: {told(error)}") from error
    path = Path(place)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.py"))[:8] if path.parent.is_dir() else []
        there = f"; that folder has {', '.join(near)}" if near else ""
        raise TaskError(f"there is no file {place}{there}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{place} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # as `python file.py` does, so that it can import its neighbours
        sys.path.insert(0, folder)
    sys.modules.setdefault(path.stem, module)
    try:
        with _the_same_every_time():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise TaskError(f"loading {place} failed: {told(error)}") from error
    return module


def told(error: BaseException) -> str:
    """Return an error in one line, with the place in the user's own file."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})" if frame else ""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}{place}"
