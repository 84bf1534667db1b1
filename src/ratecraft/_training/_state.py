"""Capture the state of tensors, containers and plain objects, and restore it in place."""

import copy
import math
import random
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from itertools import count
from numbers import Number
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ratecraft.errors import TaskError

Restore = Callable[[], object]
"""A function that restores what was captured; it can be called repeatedly."""

MAX_STATE_ITEMS: Final = 1000  # longer collections in an object's attributes are data, not state
MIN_DISK_BYTES: Final = 2**20  # smaller tensors stay in memory
SPARSE_LAYOUTS: Final = frozenset(
    (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
)
IMMUTABLE: Final = (
    *(NoneType, Number, str, bytes, range, slice, Enum, PurePath),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
TRAINED: Final = (nn.Module, torch.optim.Optimizer)
FUNCTIONS: Final = (type, FunctionType, BuiltinFunctionType, MethodType)
# Attributes that are captured separately, or that training never changes.
TORCH_ATTRIBUTES: Final = frozenset(
    ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "state", "param_groups")
)


class Limits(NamedTuple):
    """The largest sizes that are state; anything larger is data, which training never changes."""

    items: float = MAX_STATE_ITEMS  # of a container
    elements: float = math.inf  # of a tensor or an array


class Snapshot:
    """Copies of what a short run may change, restored in place; each object is captured once."""

    def __init__(self, folder: Path | None = None) -> None:
        self.restorers: list[Restore] = []
        self._captured: dict[int, Any] = {}  # by id, kept alive, so that no id is used again
        self._parameters: set[int] = set()  # ids of those with their gradients
        self._folder, self._numbers = folder, count()

    def add(self, value: Any, limits: Limits | None = None) -> None:
        """Add a value with all that it holds; without limits, refuse what cannot be restored."""
        pending = [value]
        while pending:
            item = pending.pop()
            if id(item) in self._captured or _is_immutable(item) or isinstance(item, FUNCTIONS):
                continue
            if isinstance(item, TRAINED):
                if limits is not None and math.isfinite(limits.elements):
                    continue  # that of a dataset is data
                if isinstance(item, nn.Module):
                    self.add_modules(item.modules())
                else:
                    self.add_optimizer(item)
                continue
            if not _is_state(item, limits or Limits(math.inf)):
                if limits is None and not callable(item):
                    raise TaskError(
                        f"the state of the optimizer holds a {type(item).__name__}, which cannot "
                        "be restored: expected tensors, arrays, numbers, text, containers of "
                        "them, or objects with only such attributes"
                    )
                continue
            self._captured[id(item)] = item
            if isinstance(item, torch.Tensor):
                pending += self._add_tensor(item)
                continue
            restore = _generator_restorer(item) if _is_generator(item) else _content_restorer(item)
            self.restorers += [] if restore is None else [restore]
            pending += _contents(item) or ()

    def add_modules(self, modules: Iterable[nn.Module]) -> None:
        """Add modules without their submodules: parameters with gradients, buffers, attributes."""
        parameters: list[nn.Parameter] = []
        for module in dict.fromkeys(modules):
            if id(module) in self._captured:
                continue
            self._captured[id(module)] = module
            parameters += module.parameters(recurse=False)
            if isinstance(module, torch.jit.ScriptModule):  # it creates its dicts on every access
                self.add(list(module.buffers(recurse=False)))
                self.add_attribute(module, "training")
                continue
            self.add(module._parameters)
            self.add(module._buffers)
            self.add_attributes(module)
        self.add_parameters(parameters)

    def add_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Add an optimizer and those inside it, such as ZeroRedundancyOptimizer's."""
        if id(optimizer) in self._captured:
            return
        self._captured[id(optimizer)] = optimizer
        self.add(optimizer.state)
        self.add(optimizer.param_groups)
        self.add_attributes(optimizer)
        self.add_parameters(p for group in optimizer.param_groups for p in group["params"])
        for value in list(vars(optimizer).values()):
            if isinstance(value, torch.optim.Optimizer):
                self.add_optimizer(value)

    def add_parameters(self, parameters: Iterable[torch.Tensor]) -> None:
        for parameter in parameters:
            if id(parameter) not in self._parameters:
                self._parameters.add(id(parameter))
                self.add(parameter)
                self.add_attribute(parameter, "grad")
                self.add_attribute(parameter, "requires_grad")

    def add_attribute(self, owner: Any, name: str) -> None:
        """Add an attribute; of a tensor also its contents."""
        value = getattr(owner, name)
        if isinstance(value, torch.Tensor):
            self.add(value)
        self.restorers.append(lambda: setattr(owner, name, value))

    def add_attributes(self, owner: Any, limits: Limits | None = None) -> None:
        """Add the attributes that are state, with all that they hold."""
        limits = limits or Limits()
        attributes = vars(owner)
        is_torch = isinstance(owner, nn.Module | torch.optim.Optimizer)
        excluded = TORCH_ATTRIBUTES if is_torch else frozenset()

        def is_state(name: str) -> bool:
            if name in excluded or name.endswith("_hooks") or name.startswith("_ratecraft"):
                return False
            return _is_state(attributes[name], limits)

        names = set(attributes)
        values = {name: attributes[name] for name in attributes if is_state(name)}
        for value in values.values():
            self.add(value, limits)

        def restore() -> None:
            for name in [name for name in attributes if name not in names and is_state(name)]:
                del attributes[name]
            attributes.update(values)

        self.restorers.append(restore)

    def _add_tensor(self, value: torch.Tensor) -> list[torch.Tensor]:
        """Add the elements of a tensor; return the tensors that a tensor subclass consists of."""
        if is_traceable_wrapper_subclass(value):
            parts = [getattr(value, name) for name in value.__tensor_flatten__()[0]]
            return [part for part in parts if isinstance(part, torch.Tensor)]  # a mesh is none
        if value.layout in SPARSE_LAYOUTS:
            elements = value.detach().clone()
            self.restorers.append(lambda: _restore_sparse_tensor(value, elements))
            return []
        if value.layout is not torch.strided:
            raise TaskError(f"a tensor of layout {value.layout} cannot be restored")
        view = value.detach()  # refers to this memory even if value.data is replaced
        if self._folder is None or value.numel() * value.element_size() < MIN_DISK_BYTES:
            content = view.clone()
            self.restorers.append(lambda: _restore_tensor(value, view, content))
            return []
        file = self._folder / f"{next(self._numbers)}.pt"
        torch.save(value.detach().clone(memory_format=torch.preserve_format), file)
        self.restorers.append(
            lambda: _restore_tensor(
                value, view, torch.load(file, map_location="cpu", weights_only=True)
            )
        )
        return []


def restore_all(restorers: list[Restore]) -> None:
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


def _restore_tensor(tensor: torch.Tensor, view: torch.Tensor, content: torch.Tensor) -> None:
    """Point a tensor to its former memory and write its former content there."""
    moved = tensor.data_ptr() != view.data_ptr() or tensor.dtype != view.dtype
    if moved or tensor.shape != view.shape or tensor.stride() != view.stride():
        tensor.data = view
    # The elements of an expanded tensor share memory; each storage element is written once.
    index = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in view.stride())
    view[index].copy_(content[index])


def _restore_sparse_tensor(tensor: torch.Tensor, content: torch.Tensor) -> None:
    if tensor.layout is torch.sparse_coo:
        tensor.data = content.clone()
        return
    if tensor._nnz() != content._nnz():
        tensor.resize_as_sparse_(content)
    tensor.copy_(content)  # a new .data would have no effect


def _content_restorer(value: Any) -> Restore | None:
    """Return a function that refills a container, an array or slots in place."""
    if isinstance(value, dict):
        pairs = list(value.items())
        return lambda: _refill_dict(value, pairs)
    if isinstance(value, list | bytearray | array):
        entries: Any = value[:]
        return lambda: value.__setitem__(slice(None), entries)
    if isinstance(value, set | deque):
        items = list(value)
        refill = value.update if isinstance(value, set) else value.extend
        return lambda: (value.clear(), refill(items))
    if _is_array(value):
        content = value.copy()
        return lambda: value.__setitem__(..., content) if value.flags.writeable else None
    slots = _slots(value)
    return (lambda: _refill_slots(value, slots)) if slots else None


def _refill_dict(mapping: dict[Any, Any], pairs: list[tuple[Any, Any]]) -> None:
    mapping.clear()  # also restores the order
    for key, item in pairs:
        mapping.__setitem__(key, item)  # the update() of a Counter would count


def _refill_slots(owner: Any, slots: dict[str, Any]) -> None:
    for name in _slots(owner).keys() - slots.keys():
        object.__delattr__(owner, name)
    for name, value in slots.items():
        object.__setattr__(owner, name, value)


def _slots(value: object) -> dict[str, Any]:
    state = object.__getstate__(value)
    return state[1] if isinstance(state, tuple) else {}


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_state(value: Any, limits: Limits) -> bool:
    """Return whether a value is plain, and small enough to be state rather than data.

    An object is plain if all that it holds is: then nothing of its state is hidden.
    """
    if isinstance(value, torch.Tensor):
        return value.numel() <= limits.elements
    if _is_array(value):
        return bool(value.size <= limits.elements)
    if _is_immutable(value) or _is_generator(value):
        return True
    if isinstance(value, dict | list | tuple | set | frozenset | deque | array | bytearray):
        return len(value) <= limits.items
    return not isinstance(value, FUNCTIONS + TRAINED) and _is_plain_object(value, limits.items)


def _is_plain_object(value: Any, max_items: float) -> bool:
    visited: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        leaf = isinstance(item, (*FUNCTIONS, *TRAINED, torch.Tensor))
        if leaf or id(item) in visited or _is_immutable(item) or _is_generator(item):
            continue
        visited.add(id(item))
        contents = _contents(item)
        if contents is None or max(len(contents), len(visited)) > max_items:
            return False
        pending += contents
    return True


def _contents(value: Any) -> list[Any] | None:
    """Return what a container or an object holds; None if Python cannot list it."""
    contents: list[Any] | None = None
    if isinstance(value, dict):
        contents = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset | deque):
        contents = list(value)
    elif isinstance(value, array | bytearray):
        contents = []
    elif _is_array(value):
        contents = value.ravel().tolist() if value.dtype == object else []
    attributes, slots = getattr(value, "__dict__", None), _slots(value)
    if isinstance(attributes, dict):
        contents = [*(contents or ()), attributes]
    if slots:
        contents = [*(contents or ()), *slots.values()]
    return contents


def _is_immutable(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return isinstance(value, IMMUTABLE) or (numpy is not None and isinstance(value, numpy.generic))


def _is_generator(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    others = (numpy.random.Generator, numpy.random.RandomState) if numpy else ()
    return isinstance(value, (torch.Generator, random.Random, *others))


def _generator_restorer(value: Any) -> Restore:
    """Return a function that restores a generator of torch, numpy or `random`."""
    if isinstance(value, random.Random):
        python_state = value.getstate()
        return lambda: value.setstate(python_state)
    if hasattr(value, "bit_generator"):
        bits = copy.deepcopy(value.bit_generator.state)
        return lambda: setattr(value.bit_generator, "state", bits)
    state = value.get_state()
    return lambda: value.set_state(state)
