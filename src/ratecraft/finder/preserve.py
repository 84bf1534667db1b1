"""Put back everything that a trial run touches, bit for bit and in place."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ratecraft.errors import TaskError

__all__ = ["preserved", "preserved_rng", "refuse_stream"]


@contextmanager
def preserved(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Any] = ()
) -> Iterator[None]:
    """Restore model, optimizer, loader and random numbers when the block ends, however it ends.

    Restored: parameters, all buffers (non-persistent ones too), gradients, ``requires_grad``,
    every module's training flag, the optimizer's state and param groups, the random state of
    torch (CPU and CUDA), numpy and `random`, and the loader's own generators. Tensors are
    restored in place: the same objects in the same memory.

    Args:
        model: the model that is tried out.
        optimizer: its optimizer.
        loader: where batches come from; something that can be iterated again and again.

    Raises:
        TaskError: the loader is a one-way stream, which cannot be put back.

    >>> layer = nn.Linear(2, 1)
    >>> before = layer.weight.clone()
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    >>> with preserved(layer, optimizer):
    ...     layer(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> torch.equal(layer.weight, before), layer.weight.grad
    (True, None)
    """
    refuse_stream(loader)
    keeper = _Keeper()
    undo: list[Callable[[], object]] = []
    for module in model.modules():
        undo.append(keeper.keep(module._parameters))
        undo.append(keeper.keep(module._buffers))
        undo.append(_attribute(module, "training"))
    for parameter in _parameters(model, optimizer):
        undo.append(keeper.keep(parameter))
        undo.append(_gradient(parameter, keeper))
        undo.append(_attribute(parameter, "requires_grad"))
    undo.append(keeper.keep(optimizer.state))
    undo.append(keeper.keep(optimizer.param_groups))
    for generator in _generators(loader):
        undo.append(_generator(generator))
    with preserved_rng():
        try:
            yield
        finally:
            _restore_all(undo)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the random state of torch (CPU and CUDA), numpy and `random` at the block's end."""
    cpu, python = torch.get_rng_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    numpy = sys.modules.get("numpy")
    array = numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        random.setstate(python)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if numpy:
            numpy.random.set_state(array)


def seed_everything(seed: int) -> None:
    """Seed torch, `random`, and numpy if it is loaded."""
    torch.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def refuse_stream(loader: Iterable[Any]) -> None:
    """Raise TaskError if the loader can be iterated only once."""
    if isinstance(loader, Iterator):
        raise TaskError(
            f"the batches come from a one-way stream ({type(loader).__name__}), which cannot be "
            "put back; give a list of batches or a DataLoader"
        )


def _restore_all(undo: list[Callable[[], object]]) -> None:
    """Run every restore, whatever happens meanwhile, and raise the first error afterwards.

    Restores may be repeated, so one that a second Ctrl-C cut short is done again.
    """
    first: BaseException | None = None
    with torch.no_grad():
        for restore in undo:
            while True:
                try:
                    restore()
                except KeyboardInterrupt as stop:
                    first = first or stop
                    continue
                except Exception as error:
                    first = first or error
                break
    if first is not None:
        raise first


class _Keeper:
    """Remembers nested dicts, lists and tensors, and restores them in place; each tensor once."""

    def __init__(self) -> None:
        self._seen: dict[int, Callable[[], Any]] = {}

    def keep(self, value: Any) -> Callable[[], Any]:
        """Return a function that restores the contents of ``value`` and returns it."""
        if id(value) in self._seen:
            return self._seen[id(value)]
        restore = self._keep(value)
        if isinstance(value, torch.Tensor | dict | list):
            self._seen[id(value)] = restore
        return restore

    def _keep(self, value: Any) -> Callable[[], Any]:
        if isinstance(value, torch.Tensor):
            content = value.detach().clone()
            return lambda: _copied(value, content)
        if isinstance(value, dict):
            items = {key: self.keep(item) for key, item in value.items()}
            return lambda: _refilled(value, items)
        if isinstance(value, list):
            entries = [self.keep(item) for item in value]
            return lambda: _relisted(value, entries)
        if isinstance(value, tuple):
            parts = [self.keep(item) for item in value]
            return lambda: value if not parts else type(value)(part() for part in parts)
        plain = isinstance(value, bool | int | float | str | None | nn.Module) or callable(value)
        kept = value if plain else copy.deepcopy(value)
        return lambda: kept


def _copied(tensor: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    if tensor.shape != content.shape:
        tensor.detach().resize_(content.shape)
    if 0 in tensor.stride():  # an expanded tensor, whose elements share memory
        if not torch.equal(tensor, content):
            tensor.data = content  # the elements cannot be written one by one
        return tensor
    tensor.detach().copy_(content)
    return tensor


def _refilled(mapping: dict[Any, Any], items: dict[Any, Callable[[], Any]]) -> dict[Any, Any]:
    for key in [key for key in mapping if key not in items]:
        del mapping[key]
    for key, restore in items.items():
        mapping[key] = restore()
    return mapping


def _relisted(entries: list[Any], restores: list[Callable[[], Any]]) -> list[Any]:
    entries[:] = [restore() for restore in restores]
    return entries


def _attribute(owner: Any, name: str) -> Callable[[], object]:
    value = getattr(owner, name)
    return lambda: setattr(owner, name, value)


def _gradient(parameter: torch.Tensor, keeper: _Keeper) -> Callable[[], object]:
    if parameter.grad is None:
        return lambda: setattr(parameter, "grad", None)
    restore = keeper.keep(parameter.grad)
    return lambda: setattr(parameter, "grad", restore())


def _generator(generator: torch.Generator) -> Callable[[], object]:
    state = generator.get_state()
    return lambda: generator.set_state(state)


def _parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    held = [p for group in optimizer.param_groups for p in group["params"]]
    return list({id(p): p for p in (*model.parameters(), *held)}.values())


def _generators(loader: object) -> list[torch.Generator]:
    """Return the generators that a DataLoader and its samplers draw their order from."""
    found: dict[int, torch.Generator] = {}
    waiting = [loader]
    for owner in waiting:
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            found[id(generator)] = generator
        waiting += [
            inner
            for name in ("sampler", "batch_sampler")
            if (inner := getattr(owner, name, None)) is not None
            and all(inner is not known for known in waiting)
        ]
    return list(found.values())
