"""Capture and restore everything that a short run touches, bit for bit and in place."""

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
from typing import Any, Final, TypeVar, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ratecraft.errors import TaskError

T = TypeVar("T")

Batches = Iterable[Any] | Callable[[], Iterable[Any]]
"""Batches that can be iterated repeatedly, or a function that returns a new iterable of them."""

Restore = Callable[[], Any]
"""A function that restores what was captured and returns it; it can be called repeatedly."""

MAX_STATE_ITEMS: Final = 1000  # longer collections in an object's attributes are data, not state
MAX_STATE_DEPTH: Final = 5  # more deeply nested collections are data, too
TRANSFORM_ATTRIBUTES: Final = {"transform", "transforms", "target_transform", "collate_fn"}
MIN_DISK_BYTES: Final = 2**20  # smaller tensors stay in memory
# Attributes that are captured separately, or that training never changes.
TORCH_ATTRIBUTES: Final = frozenset(
    ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "state", "param_groups")
)


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
    plain attributes (such as a position) and persistent workers. Tensors are restored in place:
    the same objects in the same memory. Step post-hooks of the optimizer (used by ratecraft's
    schedulers) are disabled inside the block; step pre-hooks still run.

    Args:
        model: the model, or several.
        optimizer: its optimizer, or several.
        loader: an iterable that can be iterated repeatedly, or a function that returns a new one.
        scaler: the GradScaler, if there is one.
        on_disk: ``True`` or a folder: write the copies of large tensors to a temporary folder
            (in that folder), which is deleted at the end. Default: copy in memory.

    Raises:
        TaskError: the loader can be iterated only once, so that it cannot be restored, or the
            model has lazy modules without weights.

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
    tensors = [t for each in models for t in (*each.parameters(), *each.buffers())]
    if any(map(nn.parameter.is_lazy, tensors)):
        raise TaskError("a lazy module has no weights yet; run one batch through the model first")
    with ExitStack() as stack:
        folder = None
        if on_disk:
            parent = None if on_disk is True else on_disk
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))
        snapshot, owners = _Snapshot(folder), _loader_parts(loader)
        snapshot.add_training(models, optimizers)
        if scaler is not None:
            snapshot.add(vars(scaler))
        snapshot.add_loader(owners)
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
            _restore_all(snapshot.restorers)


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
    snapshot = _Snapshot()
    snapshot.add_loader(_loader_parts(loader))
    return lambda: _restore_all(snapshot.restorers)


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


def _restore_all(restorers: list[Restore]) -> None:
    """Call every restorer, also after errors, then raise the first error."""
    first: BaseException | None = None
    with torch.no_grad():
        for restore in restorers:
            while True:
                try:
                    restore()
                except KeyboardInterrupt as interrupt:
                    first = first or interrupt
                    continue  # again, which is safe: calls can be repeated
                except Exception as error:
                    first = first or error
                break
    if first is not None:
        raise first


class _Snapshot:
    """Copies of what a short run may change, restored in place; each tensor is copied once."""

    def __init__(self, folder: Path | None = None) -> None:
        self.restorers: list[Restore] = []
        self._captured: dict[int, Restore] = {}
        self._folder, self._numbers = folder, count()

    def add(self, value: Any) -> None:
        self.restorers.append(self.capture(value))

    def add_training(
        self, models: list[nn.Module], optimizers: list[torch.optim.Optimizer]
    ) -> None:
        modules = list(dict.fromkeys(module for model in models for module in model.modules()))
        parameters = [p for module in modules for p in module.parameters(recurse=False)]
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):  # it creates its dicts on every access
                self.add(list(module.buffers(recurse=False)))
                self.add_attribute(module, "training")
                continue
            self.add(module._parameters)
            self.add(module._buffers)
            self.add_attributes(module)
        for optimizer in optimizers:
            parameters += [p for group in optimizer.param_groups for p in group["params"]]
            self.add(optimizer.state)
            self.add(optimizer.param_groups)
            self.add_attributes(optimizer)
        for parameter in {id(p): p for p in parameters}.values():
            self.add(parameter)
            self.add_attribute(parameter, "grad")
            self.add_attribute(parameter, "requires_grad")

    def add_loader(self, owners: list[Any]) -> None:
        for owner in owners:
            if type(owner) is DataLoader:
                self.restorers += filter(None, [_capture_generator(owner.generator)])
            elif hasattr(owner, "__dict__"):
                self.add_attributes(owner, MAX_STATE_ITEMS)
            if hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict"):
                self.restorers += _capture_state_dict(owner)

    def add_attribute(self, owner: Any, name: str) -> None:
        """Add an attribute; of a tensor also its contents."""
        value = getattr(owner, name)
        restore = self.capture(value) if isinstance(value, torch.Tensor) else lambda: value
        self.restorers.append(lambda: setattr(owner, name, restore()))

    def add_attributes(self, owner: Any, max_elements: float = math.inf) -> None:
        """Add plain attributes; tensors with more elements are data, which never changes."""
        attributes = vars(owner)
        is_torch = isinstance(owner, nn.Module | torch.optim.Optimizer)
        excluded = TORCH_ATTRIBUTES if is_torch else frozenset()

        def is_state(name: str) -> bool:
            if name in excluded or name.endswith("_hooks") or name.startswith("_ratecraft"):
                return False
            return _is_state(attributes[name], max_elements)

        names = set(attributes)
        captured = {name: self.capture(attributes[name]) for name in attributes if is_state(name)}

        def restore() -> None:
            for name in [name for name in attributes if name not in names and is_state(name)]:
                del attributes[name]
            for name, restore_value in captured.items():
                attributes[name] = restore_value()

        self.restorers += [restore, *filter(None, map(_capture_generator, attributes.values()))]

    def capture(self, value: Any) -> Restore:
        if id(value) in self._captured:
            return self._captured[id(value)]
        restore = self._capture(value)
        if isinstance(value, torch.Tensor | dict | list):
            self._captured[id(value)] = restore
        return restore

    def _capture(self, value: Any) -> Restore:
        if isinstance(value, torch.Tensor):
            return self._capture_tensor(value)
        if isinstance(value, dict):
            items = {key: self.capture(item) for key, item in value.items()}
            return lambda: _restore_dict(value, items)
        if isinstance(value, list):
            entries = [self.capture(item) for item in value]
            return lambda: _restore_list(value, entries)
        if isinstance(value, tuple):
            parts = [self.capture(item) for item in value]
            build: Any = getattr(type(value), "_make", type(value))  # of a named or a plain tuple
            return lambda: value if not parts else build(part() for part in parts)
        plain = isinstance(value, bool | int | float | str | None | nn.Module) or callable(value)
        copied = value if plain else copy.deepcopy(value)
        return lambda: copied

    def _capture_tensor(self, value: torch.Tensor) -> Restore:
        view = value.detach()  # refers to this memory even if value.data is replaced
        if self._folder is None or value.numel() * value.element_size() < MIN_DISK_BYTES:
            content = view.clone()
            return lambda: _restore_tensor(value, view, content)
        file = self._folder / f"{next(self._numbers)}.pt"
        torch.save(value.detach().clone(memory_format=torch.preserve_format), file)
        return lambda: _restore_tensor(
            value, view, torch.load(file, map_location="cpu", weights_only=True)
        )


def _restore_tensor(
    tensor: torch.Tensor, view: torch.Tensor, content: torch.Tensor
) -> torch.Tensor:
    """Point a tensor to its former memory and write its former content there."""
    moved = tensor.data_ptr() != view.data_ptr() or tensor.dtype != view.dtype
    if moved or tensor.shape != view.shape or tensor.stride() != view.stride():
        tensor.data = view
    # The elements of an expanded tensor share memory; each storage element is written once.
    index = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in view.stride())
    view[index].copy_(content[index])
    return tensor


def _restore_dict(mapping: dict[Any, Any], items: dict[Any, Restore]) -> dict[Any, Any]:
    for key in mapping.keys() - items.keys():
        del mapping[key]
    for key, restore in items.items():
        mapping[key] = restore()
    return mapping


def _restore_list(entries: list[Any], restorers: list[Restore]) -> list[Any]:
    entries[:] = [restore() for restore in restorers]
    return entries


def _is_state(value: Any, max_elements: float, depth: int = 0) -> bool:
    """Return whether an attribute is plain, and small enough to be state rather than data."""
    if isinstance(value, torch.Tensor):
        return value.numel() <= max_elements
    if isinstance(value, dict | list | tuple | set | frozenset):
        if len(value) > MAX_STATE_ITEMS or depth > MAX_STATE_DEPTH:
            return False
        inner = value.values() if isinstance(value, dict) else value
        return all(_is_state(item, max_elements, depth + 1) for item in inner)
    if type(value).__module__ == "numpy":
        return int(getattr(value, "size", MAX_STATE_ITEMS + 1)) <= MAX_STATE_ITEMS
    return isinstance(value, bool | int | float | complex | str | None)


def _capture_generator(value: Any) -> Restore | None:
    """Return a function that restores a generator of torch, numpy or `random`; else None."""
    numpy = sys.modules.get("numpy")
    if numpy and isinstance(value, numpy.random.Generator):
        bits = copy.deepcopy(value.bit_generator.state)
        return lambda: setattr(value.bit_generator, "state", bits)
    if isinstance(value, random.Random):
        python_state = value.getstate()
        return lambda: value.setstate(python_state)
    if isinstance(value, torch.Generator) or (
        numpy and isinstance(value, numpy.random.RandomState)
    ):
        state = value.get_state()
        return lambda: value.set_state(state)
    return None


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
