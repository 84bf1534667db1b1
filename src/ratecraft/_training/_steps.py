"""A training step: gradients of accumulated batches, clipping, GradScaler, optimizer step."""

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ratecraft.errors import SettingError, TaskError

from ._snapshot import Batches

Clip = float | Callable[[list[torch.Tensor]], object]


def check_clip(clip: object) -> None:
    if clip is not None and not callable(clip) and not (isinstance(clip, int | float) and clip > 0):
        raise SettingError(f"clip={clip}: expected a norm above 0, or a function")


def needs_closure(optimizers: Sequence[torch.optim.Optimizer], scaler: Any = None) -> bool:
    """Return whether ``optimizer.step`` requires a closure, as that of LBFGS does.

    Raises:
        TaskError: there are other optimizers, or a GradScaler, which cannot be used with it.
    """
    closures = [inspect.signature(each.step).parameters.get("closure") for each in optimizers]
    if all(c is None or c.default is not inspect.Parameter.empty for c in closures):
        return False
    if scaler is not None or len(optimizers) > 1:
        raise TaskError(
            "an optimizer whose step() needs a closure works only as the single optimizer, "
            "without a GradScaler"
        )
    return True


def trained_parameters(optimizers: Iterable[torch.optim.Optimizer]) -> list[torch.Tensor]:
    """Return the parameters of optimizers that are not frozen; these are clipped."""
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    return [p for group in groups for p in group["params"] if p.requires_grad]


def compute_gradients(
    loss: Callable[[Any], torch.Tensor],
    batches: Sequence[Any],
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: list[torch.Tensor],
    *,
    clip: Clip | None = None,
    scaler: Any = None,
) -> torch.Tensor:
    """Compute and clip the gradients of the mean loss of the batches; return that loss."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    losses = []
    for batch in batches:
        value = loss(batch)
        check_loss(value)
        if value.dim():
            value = value.mean()
        if len(batches) > 1:
            value = value / len(batches)
        scaled = value if scaler is None else scaler.scale(value)
        scaled.backward()
        if value.is_leaf or value._base is not None:  # it may share its memory with a parameter
            value = value.clone()
        losses.append(value.detach())
    if clip is not None and scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    _clip_gradients(clip, parameters)
    return sum(losses[1:], losses[0])


def _clip_gradients(clip: Clip | None, parameters: list[torch.Tensor]) -> None:
    if callable(clip):
        clip(parameters)
    elif clip is not None:
        if any(p.grad is not None and p.grad.is_sparse for p in parameters):
            raise TaskError(
                f"clip={clip:g}: torch cannot compute the norm of sparse gradients; "
                "pass a function that clips them, or leave clip= out"
            )
        nn.utils.clip_grad_norm_(parameters, clip)


def step_optimizers(optimizers: Iterable[torch.optim.Optimizer], scaler: Any = None) -> None:
    """Take a step; a GradScaler skips it if a gradient is not finite."""
    for optimizer in optimizers:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
    if scaler is not None:
        scaler.update()


def check_loss(loss: object, *, needs_grad: bool = True) -> None:
    """Raise TaskError unless a loss is a tensor of numbers that requires grad if it must."""
    if not isinstance(loss, torch.Tensor):
        advice = ""
        if isinstance(loss, float):
            advice = "; leave out .item() or float()"
        elif isinstance(getattr(loss, "loss", None), torch.Tensor):
            advice = "; return its .loss"
        elif isinstance(loss, tuple | list | dict):
            advice = "; return only the loss of it"
        raise TaskError(
            f"loss(model, batch) returned {type(loss).__name__}; expected a tensor of numbers"
            f"{advice}"
        )
    if not loss.numel() or loss.is_complex():
        problem = "a complex tensor" if loss.is_complex() else "an empty tensor"
        raise TaskError(f"loss(model, batch) returned {problem}; expected a tensor of real numbers")
    if needs_grad and not loss.requires_grad:
        raise TaskError(
            "loss(model, batch) returned a tensor that does not require grad; was it detached, "
            "or computed under no_grad, or of a model whose weights are frozen?"
        )


def read_endlessly(
    loader: Batches, start_epoch: Callable[[], object] | None = None
) -> Generator[Any]:
    """Yield the batches of a loader again and again; one that is a function is called each time.

    ``start_epoch`` is called each time before the first batch.
    """
    count, last_stream = 0, None
    while True:
        if start_epoch is not None:
            start_epoch()
        batches, earlier = open_batches(loader), count
        if isinstance(batches, Iterator):
            if batches is last_stream:
                raise TaskError(
                    f"the function returned the same {type(batches).__name__} twice, which can "
                    "be iterated only once: open the stream inside the function"
                )
            last_stream = batches
        for batch in batches:
            count += 1
            yield batch
        if not count:
            raise TaskError("the loader is empty: expected at least one batch")
        if count == earlier:
            raise TaskError(
                "the training data gave no batch when it was iterated again; pass a DataLoader, a "
                "list, or a function that opens the data again"
            )


def open_batches(loader: Batches) -> Iterable[Any]:
    """Return batches to iterate: the loader, or what it returns if it is a function."""
    return loader if isinstance(loader, Iterable) else loader()


def move_batch(batch: Any, device: torch.device | str | None) -> Any:
    """Return a batch with its tensors on a device; None leaves it where it is."""
    if device is None:
        return batch
    if callable(move := getattr(batch, "to", None)):  # a tensor, or a batch of transformers
        return move(device)
    if isinstance(batch, Mapping):
        return {name: move_batch(item, device) for name, item in batch.items()}
    if isinstance(batch, list | tuple):
        items = [move_batch(item, device) for item in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch
