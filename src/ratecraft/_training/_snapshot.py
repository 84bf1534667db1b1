"""Capture and restore everything that a short run touches, bit for bit and in place."""

import copy
import os
import random
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ratecraft.errors import TaskError

from ._processes import reshard
from ._state import MAX_STATE_ITEMS, Limits, Restore, Snapshot, restore_all

T = TypeVar("T")

Batches = Iterable[Any] | Callable[[], Iterable[Any]]
"""Batches that can be iterated repeatedly, or a function that returns a new iterable of them."""

TRANSFORM_ATTRIBUTES: Final = {"transform", "transforms", "target_transform", "collate_fn"}
LOADER_LIMITS: Final = Limits(MAX_STATE_ITEMS, MAX_STATE_ITEMS)


@contextmanager
def preserve_state(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches = (),
    *,
    scaler: Any = None,
    on_disk: bool | str | os.PathLike[str] = False,
) -> Iterator[None]:
    """Restore model, optimizer, loader and random state at the end of a ``with`` block.

    The state is also restored after an exception and after Ctrl-C. It covers parameters, all
    buffers, gradients, ``requires_grad``, the training flag and plain attributes of every module,
    the optimizer's state and param groups, the GradScaler, and the random state of torch (CPU and
    CUDA), numpy and `random`. Of the loader, its samplers and its datasets it covers generators,
    plain attributes (such as a position) and persistent workers. Plain attributes are numbers,
    text, tensors, arrays, generators, containers of at most 1,000 items, and objects that hold
    only such values. Everything is restored in place: the same objects, and for tensors the same
    memory. Step post-hooks of the optimizer (used by ratecraft's schedulers) are disabled inside
    the block; step pre-hooks still run.

    Args:
        model: the model, or several.
        optimizer: its optimizer, or several.
        loader: an iterable that can be iterated repeatedly, or a function that returns a new one.
        scaler: the GradScaler, if there is one.
        on_disk: ``True`` or a folder: write the copies of large tensors to a temporary folder
            (in that folder), which is deleted at the end. Default: copy in memory.

    Raises:
        TaskError: the loader can be iterated only once, so that it cannot be restored, the
            model has lazy modules without weights, or the optimizer's state holds an object that
            cannot be restored. Nothing has changed then.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 1)
    >>> before = layer.weight.clone()
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    >>> with preserve_state(layer, optimizer):
    ...     layer(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> torch.equal(layer.weight, before), layer.weight.grad
    (True, None)
    """
    refuse_stream(loader)
    models, optimizers = as_list(model, nn.Module), as_list(optimizer, torch.optim.Optimizer)
    reshard(models)
    tensors = [t for each in models for t in (*each.parameters(), *each.buffers())]
    if any(map(nn.parameter.is_lazy, tensors)):
        raise TaskError("a lazy module has no weights yet; run one batch through the model first")
    with ExitStack() as stack:
        folder = None
        if on_disk:
            parent = None if on_disk is True else on_disk
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))
        snapshot, owners = Snapshot(folder), _loader_parts(loader)
        snapshot.add_modules(module for each in models for module in each.modules())
        for each in optimizers:
            snapshot.add_optimizer(each)
        if scaler is not None:
            snapshot.add(vars(scaler), Limits())
        _add_loader(snapshot, owners)
        stack.enter_context(preserve_rng())
        try:
            # The block's own changes begin here; each is captured first.
            for hooked in optimizers:
                snapshot.add_attribute(hooked, "_optimizer_step_post_hooks")
                hooked._optimizer_step_post_hooks = OrderedDict()
            for owner in owners:
                if isinstance(owner, DataLoader):  # its persistent workers stay untouched
                    snapshot.add_attribute(owner, "_iterator")
                    owner._iterator = None
            yield
        finally:
            restore_all([lambda: reshard(models), *snapshot.restorers])


def as_list(value: T | Iterable[T], item_class: type[T]) -> list[T]:
    return [value] if isinstance(value, item_class) else list(cast(Iterable[T], value))


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore the random state of torch (CPU and CUDA), numpy and `random` at the block's end."""
    restore = capture_random_state()
    try:
        yield
    finally:
        restore()


def capture_random_state() -> Callable[[], None]:
    cpu, python = torch.get_rng_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    numpy = sys.modules.get("numpy")
    array = numpy.random.get_state() if numpy else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        random.setstate(python)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if numpy:
            numpy.random.set_state(array)

    return restore


def capture_loader_state(loader: Batches) -> Callable[[], None]:
    """Return a function that restores the state of a loader, its samplers and its datasets."""
    refuse_stream(loader)
    snapshot = Snapshot()
    _add_loader(snapshot, _loader_parts(loader))
    return lambda: restore_all(snapshot.restorers)


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def refuse_stream(loader: Batches) -> None:
    dataset = getattr(loader, "dataset", None)
    stream = dataset if isinstance(dataset, IterableDataset) else loader
    if isinstance(stream, Iterator):
        raise TaskError(
            f"the loader can be iterated only once ({type(stream).__name__}), so it cannot be "
            "restored; give a list of batches, a DataLoader, or a function that opens the stream "
            "again: lambda: stream()"
        )


def _add_loader(snapshot: Snapshot, owners: list[Any]) -> None:
    for owner in owners:
        if type(owner) is DataLoader:
            snapshot.add(owner.generator, LOADER_LIMITS)
        elif hasattr(owner, "__dict__"):
            snapshot.add_attributes(owner, LOADER_LIMITS)
        if hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict"):
            snapshot.restorers += _capture_state_dict(owner)


def _loader_parts(loader: Any) -> list[Any]:
    if isinstance(loader, list | tuple) or (callable(loader) and not hasattr(loader, "__iter__")):
        return []
    parts = [loader]
    for owner in parts:  # grows while it is iterated
        for name, value in getattr(owner, "__dict__", {}).items():
            several = isinstance(value, list | tuple) and len(value) <= MAX_STATE_ITEMS
            is_transform = name.strip("_") in TRANSFORM_ATTRIBUTES
            for inner in value if several else (value,):
                fits = isinstance(inner, Dataset | Sampler | DataLoader) or (
                    is_transform and hasattr(inner, "__dict__")
                )
                if fits and not any(inner is part for part in parts):
                    parts.append(inner)
    return parts


def _capture_state_dict(loader: Any) -> list[Restore]:
    try:
        state = copy.deepcopy(loader.state_dict())
    except AttributeError:  # Accelerate's loaders have the method, but mostly no state
        return []
    return [lambda: loader.load_state_dict(copy.deepcopy(state))]
