"""Put back everything that a trial run touches, bit for bit and in place."""

from __future__ import annotations

import copy
import math
import os
import random
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ratecraft.errors import TaskError

Batches = Iterable[Any] | Callable[[], Iterable[Any]]
"""Batches that can be iterated again and again, or a function that begins anew each time."""

SMALL: Final = 1000  # longer lists and dicts of an object are data, not state
DEPTH: Final = 5  # lists in lists; deeper ones are data, too
HELPERS: Final = {"transform", "transforms", "target_transform", "collate_fn"}
LARGE: Final = 2**20  # bytes: smaller tensors stay in memory


@contextmanager
def preserve_state(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches = (),
    *,
    scaler: Any = None,
    on_disk: bool | str | os.PathLike[str] = False,
) -> Iterator[None]:
    """Restore model, optimizer, loader and random numbers when the block ends, however it ends.

    Restored: parameters, all buffers (non-persistent ones too), gradients, ``requires_grad``,
    every module's training flag and plain attributes, the optimizer's state and param groups,
    the GradScaler, the random state of torch (CPU and CUDA), numpy and `random`, and of the
    loader, its samplers and datasets their generators, plain attributes (a position, a count)
    and persistent workers. Tensors are restored in place: the same objects in the same memory.
    Hooks that follow the optimizer's steps, as schedulers have, are off in the block; those
    before a step run.

    Args:
        model: the model that is tried out, or several.
        optimizer: its optimizer, or several.
        loader: where batches come from: something that can be iterated again and again, or a
            function that returns such a thing anew.
        scaler: the GradScaler, if there is one.
        on_disk: keep the copies of large tensors in a temporary folder, here or in the one that
            is named, and not in memory; nothing stays there.

    Raises:
        TaskError: the loader is a one-way stream, which cannot be put back, or the model is lazy
            and has no weights yet.

    >>> layer = nn.Linear(2, 1)
    >>> before = layer.weight.clone()
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    >>> with preserve_state(layer, optimizer):
    ...     layer(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> torch.equal(layer.weight, before), layer.weight.grad
    (True, None)
    """
    refuse_stream(loader)
    models = [model] if isinstance(model, nn.Module) else list(model)
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    with ExitStack() as stack:
        folder = None
        if on_disk:
            place = None if on_disk is True else on_disk
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        keeper = _Keeper(folder)
        undo: list[Callable[[], object]] = []
        _refuse_lazy(models)
        modules = list(dict.fromkeys(module for one in models for module in one.modules()))
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):  # its dicts are made anew when read
                undo += [keeper.keep(buffer) for buffer in module.buffers(recurse=False)]
                undo.append(_attribute(module, "training"))
                continue
            undo.append(keeper.keep(module._parameters))
            undo.append(keeper.keep(module._buffers))
            undo.append(_attributes(module, keeper))
        for parameter in _parameters(modules, optimizers):
            undo.append(keeper.keep(parameter))
            undo.append(_gradient(parameter, keeper))
            undo.append(_attribute(parameter, "requires_grad"))
        for one in optimizers:
            undo.append(keeper.keep(one.state))
            undo.append(keeper.keep(one.param_groups))
            undo.append(_attributes(one, keeper))
        if scaler is not None:
            undo.append(keeper.keep(vars(scaler)))
        owners = _owners(loader)
        undo += _of_loader(owners, keeper)
        stack.enter_context(preserve_rng())
        try:
            # From here on things change, and of each the way back is known before.
            for one in optimizers:
                undo.append(_attribute(one, "_optimizer_step_post_hooks"))
                one._optimizer_step_post_hooks = OrderedDict()
            for owner in owners:
                if isinstance(owner, DataLoader):  # others are started in place of its workers
                    undo.append(_attribute(owner, "_iterator"))
                    owner._iterator = None
            yield
        finally:
            _restore_all(undo)


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore the random state of torch (CPU and CUDA), numpy and `random` at the block's end."""
    restore = random_state()
    try:
        yield
    finally:
        restore()


def random_state() -> Callable[[], None]:
    """Return what restores the random state of torch (CPU and CUDA), numpy and `random`."""
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


def loader_state(loader: Batches) -> Callable[[], None]:
    """Return what restores a loader, its samplers and its datasets, as far as they have a state.

    Raises:
        TaskError: the loader is a one-way stream.
    """
    refuse_stream(loader)
    undo = _of_loader(_owners(loader), _Keeper())
    return lambda: _restore_all(undo)


def seed_everything(seed: int) -> None:
    """Seed torch, `random`, and numpy if it is loaded."""
    torch.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def refuse_stream(loader: Batches) -> None:
    """Raise TaskError if the loader can be iterated only once."""
    inner = getattr(loader, "dataset", None)
    one_way = inner if isinstance(inner, IterableDataset) else loader
    if isinstance(one_way, Iterator):
        raise TaskError(
            f"the batches come from a one-way stream ({type(one_way).__name__}), which cannot be "
            "put back; give a list of batches, a DataLoader, or a function that opens the stream "
            "anew: lambda: stream()"
        )


def _refuse_lazy(models: list[nn.Module]) -> None:
    tensors = [t for one in models for t in (*one.parameters(), *one.buffers())]
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise TaskError("a lazy module has no weights yet; run one batch through the model first")


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

    def __init__(self, folder: Path | None = None) -> None:
        self._seen: dict[int, Callable[[], Any]] = {}
        self._folder, self._names = folder, count()

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
            return self._keep_tensor(value)
        if isinstance(value, dict):
            items = {key: self.keep(item) for key, item in value.items()}
            return lambda: _refilled(value, items)
        if isinstance(value, list):
            entries = [self.keep(item) for item in value]
            return lambda: _relisted(value, entries)
        if isinstance(value, tuple):
            parts = [self.keep(item) for item in value]
            build: Any = getattr(type(value), "_make", type(value))  # a named tuple's, or plain
            return lambda: value if not parts else build(part() for part in parts)
        plain = isinstance(value, bool | int | float | str | None | nn.Module) or callable(value)
        kept = value if plain else copy.deepcopy(value)
        return lambda: kept

    def _keep_tensor(self, value: torch.Tensor) -> Callable[[], Any]:
        place = value.detach()  # the same memory, whatever the tensor is made to hold
        if self._folder is None or value.numel() * value.element_size() < LARGE:
            content = place.clone()
            return lambda: _copied(value, place, content)
        file = self._folder / f"{next(self._names)}.pt"
        torch.save(value.detach().clone(memory_format=torch.preserve_format), file)
        return lambda: _copied(
            value, place, torch.load(file, map_location="cpu", weights_only=True)
        )


def _copied(tensor: torch.Tensor, place: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    """Give a tensor its memory and its content again."""
    moved = tensor.data_ptr() != place.data_ptr() or tensor.dtype != place.dtype
    if moved or tensor.shape != place.shape or tensor.stride() != place.stride():
        tensor.data = place
    # Of an expanded tensor, whose elements share memory, each is written once.
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in place.stride())
    place[once].copy_(content[once])
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


def _attributes(owner: Any, keeper: _Keeper, largest: float = math.inf) -> Callable[[], object]:
    """Return what restores an object's plain attributes: numbers, texts, small lists, tensors.

    Tensors of more than ``largest`` elements are taken for data, which nobody changes.
    """
    held = vars(owner)

    own = HELD_BY_TORCH if isinstance(owner, nn.Module | torch.optim.Optimizer) else frozenset()

    def is_state(name: str) -> bool:
        if name in own or name.endswith("_hooks") or name.startswith("_ratecraft"):
            return False
        return _is_state(held[name], largest)

    kept = {name: keeper.keep(value) for name, value in held.items() if is_state(name)}
    generators = [rewind for value in held.values() if (rewind := _generator(value))]
    names = set(held)

    def restore() -> None:
        for name in [name for name in held if name not in names and is_state(name)]:
            del held[name]
        for name, value in kept.items():
            held[name] = value()
        for again in generators:
            again()

    return restore


# Kept for themselves, or never changed by training.
HELD_BY_TORCH: Final = frozenset(
    ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "state", "param_groups")
)


def _is_state(value: Any, largest: float, depth: int = 0) -> bool:
    """Return whether an attribute is plain, and small enough to be state and not data."""
    if isinstance(value, torch.Tensor):
        return value.numel() <= largest
    if isinstance(value, dict | list | tuple | set | frozenset):
        if len(value) > SMALL or depth > DEPTH:
            return False
        inner = value.values() if isinstance(value, dict) else value
        return all(_is_state(item, largest, depth + 1) for item in inner)
    if type(value).__module__ == "numpy":
        return int(getattr(value, "size", SMALL + 1)) <= SMALL
    return isinstance(value, bool | int | float | complex | str | None)


def _gradient(parameter: torch.Tensor, keeper: _Keeper) -> Callable[[], object]:
    if parameter.grad is None:
        return lambda: setattr(parameter, "grad", None)
    restore = keeper.keep(parameter.grad)
    return lambda: setattr(parameter, "grad", restore())


def _generator(value: Any) -> Callable[[], object] | None:
    """Return what restores a generator of torch, numpy or `random`; of nothing else."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        known = value.getstate()
        return lambda: value.setstate(known)
    numpy = sys.modules.get("numpy")
    if numpy and isinstance(value, numpy.random.Generator):
        bits = copy.deepcopy(value.bit_generator.state)
        return lambda: setattr(value.bit_generator, "state", bits)
    if numpy and isinstance(value, numpy.random.RandomState):
        array = value.get_state()
        return lambda: value.set_state(array)
    return None


def _parameters(
    modules: list[nn.Module], optimizers: list[torch.optim.Optimizer]
) -> list[torch.Tensor]:
    own = [p for module in modules for p in module.parameters(recurse=False)]
    held = [p for one in optimizers for group in one.param_groups for p in group["params"]]
    return list({id(p): p for p in (*own, *held)}.values())


def _of_loader(owners: list[Any], keeper: _Keeper) -> list[Callable[[], object]]:
    """Return what restores a loader, its samplers, its datasets and their transforms."""
    undo: list[Callable[[], object]] = []
    for owner in owners:
        if type(owner) is DataLoader:
            if rewind := _generator(owner.generator):
                undo.append(rewind)
        elif hasattr(owner, "__dict__"):
            undo.append(_attributes(owner, keeper, SMALL))
        if hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict"):
            undo += _position(owner)
    return undo


def _owners(loader: Any) -> list[Any]:
    """Return a loader and the samplers, datasets and transforms in it."""
    if isinstance(loader, list | tuple) or (callable(loader) and not hasattr(loader, "__iter__")):
        return []
    found = [loader]
    for owner in found:
        for name, value in vars(owner).items() if hasattr(owner, "__dict__") else ():
            several = isinstance(value, list | tuple) and len(value) <= SMALL
            for inner in value if several else (value,):
                helps = name.strip("_") in HELPERS and hasattr(inner, "__dict__")
                fits = isinstance(inner, Dataset | Sampler | DataLoader) or helps
                if fits and not any(inner is other for other in found):
                    found.append(inner)
    return found


def _position(loader: Any) -> list[Callable[[], object]]:
    """Return what restores a loader that can be told where it was."""
    try:
        state = copy.deepcopy(loader.state_dict())
    except AttributeError:  # Accelerate's loaders have the method, but mostly no state
        return []
    return [lambda: loader.load_state_dict(copy.deepcopy(state))]
