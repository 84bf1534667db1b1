"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ratecraft.compare.task import Task
from ratecraft.errors import TaskError
from ratecraft.finder.preserve import preserved_rng, seed_everything
from ratecraft.finder.testbed import switch, wants_closure
from ratecraft.records import Evaluation, Run
from ratecraft.schedule import Duration, Schedule, epochs
from ratecraft.torch import ScheduleLR

__all__ = ["train"]


def train(
    task: Task,
    schedule: Schedule,
    *,
    rate: float = 1.0,
    seed: int = 0,
    total: int | Duration | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Train a task once from a fresh start and return what happened.

    Every random number follows ``seed``; the random state of the caller is left as it was.
    Validation metrics are measured after each epoch and at the end, in evaluation mode.

    Args:
        task: what to train.
        schedule: the schedule; ``rate`` times it is the learning rate.
        rate: what the schedule multiplies.
        seed: seed of initial weights and data order.
        total: length of the run, in updates or ``epochs(n)``; default ``epochs(10)``.
        progress: called with (updates done, updates planned) after each update.

    Raises:
        TaskError: the task's functions return something unexpected.
        ScheduleError: the schedule does not resolve over the run.

    >>> from torch.nn import functional as F
    >>> from ratecraft import cosine
    >>> x = torch.linspace(-1, 1, 64)[:, None]
    >>> line = Task(
    ...     model=lambda: nn.Linear(1, 1),
    ...     loss=lambda model, batch: F.mse_loss(model(batch), 2 * batch),
    ...     train=x.split(8),
    ...     val=[x],
    ... )
    >>> run = train(line, cosine(1, 0), rate=0.1, total=200)
    >>> run.final() < 0.001
    True
    """
    curve = (rate * schedule).resolve(epochs(10) if total is None else total, epoch=task.epoch)
    planned, started = len(curve), time.perf_counter()
    losses: list[float] = []
    evaluations: list[Evaluation] = []
    diverged = None
    with preserved_rng():
        seed_everything(seed)
        model, optimizer = start(task)
        ScheduleLR(optimizer, rate=rate * schedule, total=planned, epoch=task.epoch)
        model.train()
        switch(optimizer, "train")
        closes = wants_closure(optimizer)
        while len(losses) < planned and diverged is None:
            before = len(losses)
            for batch in task.train:
                optimizer.zero_grad(set_to_none=True)
                loss = task.loss(model, batch)
                _check_number(loss)
                value = float(loss.detach())
                losses.append(value)
                if not math.isfinite(value):
                    diverged = len(losses) - 1
                    break
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                if closes:
                    optimizer.step(_closure(task, model, optimizer, batch))
                else:
                    optimizer.step()
                if progress:
                    progress(len(losses), planned)
                if len(losses) % task.epoch == 0 or len(losses) == planned:
                    switch(optimizer, "eval")
                    evaluations.append(Evaluation(len(losses), _evaluate(task, model)))
                    switch(optimizer, "train")
                if len(losses) == planned:
                    break
            if len(losses) == before:
                raise TaskError(
                    "the training data gave no batch when it was iterated again; "
                    "give a DataLoader or a list"
                )
    if diverged is None and not math.isfinite(evaluations[-1].metrics["loss"]):
        diverged = planned
    return Run(
        schedule=repr(schedule),
        rate=rate,
        seed=seed,
        total=planned,
        epoch=task.epoch,
        losses=tuple(losses),
        evaluations=tuple(evaluations),
        diverged=diverged,
        seconds=time.perf_counter() - started,
    )


def start(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a task's fresh model and its optimizer, or say what it returned instead."""
    model = task.model()
    if not isinstance(model, nn.Module):
        raise TaskError(f"Task.model() returned {type(model).__name__}; expected a torch Module")
    optimizer = task.optimizer(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TaskError(
            f"Task.optimizer(model) returned {type(optimizer).__name__}; expected a torch "
            "optimizer, for example torch.optim.AdamW(model.parameters())"
        )
    return model, optimizer


def _closure(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
) -> Callable[[], float]:
    """Return what computes the loss of a batch and its gradients anew."""

    def closure() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return float(loss.detach())

    return closure


@torch.no_grad()
def _evaluate(task: Task, model: nn.Module) -> dict[str, float]:
    """Return each metric's mean over the validation data, batches weighted by their rows."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    totals = dict.fromkeys(("loss", *task.metrics), 0.0)
    rows = 0
    for batch in task.val:
        size = _rows(batch)
        rows += size
        for name, metric in (("loss", task.loss), *task.metrics.items()):
            value = metric(model, batch)
            _check_number(value, "loss" if name == "loss" else f"the metric {name}")
            totals[name] += size * float(value)
    for module, mode in modes.items():
        module.training = mode
    return {name: total / rows for name, total in totals.items()}


def _rows(batch: Any) -> int:
    """Return the number of samples in a batch: the length of the first tensor in it."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else 0
    inner: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        inner = batch.values()
    elif isinstance(batch, list | tuple):
        inner = batch
    sizes = (
        _rows(item) for item in inner if isinstance(item, torch.Tensor | Mapping | list | tuple)
    )
    return next((size for size in sizes if size), 1)


def _check_number(value: object, name: str = "loss") -> None:
    """Raise TaskError unless a loss or a metric returned a tensor of one element."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return
    what = type(value).__name__
    if isinstance(value, torch.Tensor):
        what = f"a tensor of shape {tuple(value.shape)}"
    raise TaskError(f"{name}(model, batch) returned {what}; expected a tensor of one element")
