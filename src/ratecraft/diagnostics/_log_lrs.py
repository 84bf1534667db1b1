"""log_lrs: write the learning rate of each param group to TensorBoard, W&B, MLflow and others."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ratecraft.errors import BindingError, SettingError
from ratecraft.torch._hyperparam import group_names


def log_lrs(scheduler: Any, logger: Any, *, step: int | None = None, prefix: str = "lr") -> None:
    """Log the current learning rate of each param group: the one that the next step uses.

    The name is ``lr`` if there is one param group; otherwise ``lr/`` and the group's name, or its
    index if it has none. Reading a learning rate from an accelerator waits for the device.

    The logger has one of these methods, or is a function of (name, value, step)::

        add_scalar(name, value, step)      TensorBoard's SummaryWriter
        log_metrics(metrics, step=step)    the module mlflow, a Logger of Lightning
        log(metrics, step=step)            a run of W&B, an Accelerator

    Args:
        scheduler: a `ScheduleLR` or another scheduler; or an optimizer, which needs ``step``.
        logger: an object with one of the methods, or the function.
        step: number of finished steps; default: the scheduler's ``last_epoch``, which counts
            epochs if the scheduler is stepped once per epoch.
        prefix: what the names begin with.

    Raises:
        BindingError: ``scheduler`` has no param groups, or two of them have the same name.
        SettingError: ``logger`` has none of the methods and is not a function; or ``step`` is
            needed.

    >>> import torch
    >>> from ratecraft import ScheduleLR, cosine
    >>> model = torch.nn.Linear(2, 1)
    >>> groups = [{"params": [model.weight], "name": "weight"}, {"params": [model.bias], "lr": 1}]
    >>> optimizer = torch.optim.SGD(groups, lr=0.1)
    >>> scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=4)
    >>> for _ in range(2):
    ...     log_lrs(scheduler, lambda name, value, step: print(step, name, round(value, 4)))
    ...     optimizer.step()
    0 lr/weight 0.1
    0 lr/1 1.0
    1 lr/weight 0.0854
    1 lr/1 0.8536
    """
    inner = scheduler
    while hasattr(inner, "scheduler"):  # as a PlateauLR has, and a scheduler of Accelerate's
        inner = inner.scheduler
    groups = getattr(getattr(inner, "optimizer", inner), "param_groups", None)
    if groups is None:
        raise BindingError(
            f"log_lrs takes a scheduler or an optimizer, not {type(scheduler).__name__}"
        )
    step = getattr(inner, "last_epoch", None) if step is None else step
    if step is None:
        raise SettingError(
            f"{type(scheduler).__name__} does not count steps; "
            "write log_lrs(..., step=number of finished steps)"
        )
    names = [f"{prefix}/{name}" for name in group_names(groups)] if len(groups) > 1 else [prefix]
    if len(set(names)) < len(names):
        raise BindingError(f"two param groups have the same name: {', '.join(names)}")
    lrs = [float(group["lr"]) for group in groups]
    metrics_writer(logger)(dict(zip(names, lrs, strict=True)), step)


def metrics_writer(logger: Any) -> Callable[[Mapping[str, float], int], object]:
    """Return the function that writes metrics by name, and their step, to a logger.

    Raises:
        SettingError: ``logger`` has no method that is known, and is not a function.
    """
    for method in ("log_metrics", "log"):
        write = getattr(logger, method, None)
        if write is not None and _takes_metrics(write):
            return lambda metrics, step: write(dict(metrics), step=step)
    # A LightningModule can be called, for another purpose.
    function = None if hasattr(logger, "log") else logger
    add = getattr(logger, "add_scalar", function)
    if not callable(add):
        raise SettingError(
            f"{type(logger).__name__} has no add_scalar(name, value, step), "
            "log_metrics(metrics, step=) or log(metrics, step=), "
            "and is not a function of (name, value, step)"
        )
    return lambda metrics, step: [add(name, value, step) for name, value in metrics.items()]


def _takes_metrics(function: Callable[..., object]) -> bool:
    """Return whether a function can be called with (metrics, step=); LightningModule.log cannot."""
    try:
        inspect.signature(function, follow_wrapped=False).bind({}, step=0)
    except (TypeError, ValueError):  # ValueError: a builtin without a signature
        return False
    return True
