"""Mean metrics of a model over batches of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ratecraft.errors import TaskError

from ._task import Task


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


def check_scalar(value: object, name: str = "loss") -> None:
    """Raise TaskError unless a loss or a metric returned a tensor of one element."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return
    description = type(value).__name__
    if isinstance(value, torch.Tensor):
        description = f"a tensor of shape {tuple(value.shape)}"
    raise TaskError(
        f"{name}(model, batch) returned {description}; expected a tensor of one element"
    )
