"""One hyperparameter of one param group: its value, its checks; names of groups in messages."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import torch
from torch.optim import Optimizer

from ratecraft.errors import BindingError

T = TypeVar("T")

HYPERPARAM_PATTERN: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")
FLOAT32_REL_TOL: Final = 1e-6  # what an lr may lose in a float32 tensor


class Hyperparam:
    """A number in every param group: the value of a key, or an item of it such as ``betas[0]``."""

    __slots__ = ("index", "key", "name")

    def __init__(self, name: str) -> None:
        parts = HYPERPARAM_PATTERN.fullmatch(name)
        self.name = name
        self.key = parts[1] if parts else name
        self.index = int(parts[2]) if parts and parts[2] else None

    def read(self, group: dict[str, Any]) -> Any:
        """Return the value: a number, or a tensor that holds one."""
        return group[self.key] if self.index is None else group[self.key][self.index]

    def values(self, groups: list[dict[str, Any]]) -> list[float]:
        """Return what each group holds, as floats."""
        return [float(self.read(group)) for group in groups]

    def write(self, group: dict[str, Any], value: float) -> None:
        """Set the value; a tensor is filled in place, since a compiled step refers to it."""
        current = self.read(group)
        if isinstance(current, torch.Tensor):
            current.fill_(value)
        elif self.index is None:
            group[self.key] = value
        else:
            items = list(group[self.key])
            items[self.index] = value
            group[self.key] = type(group[self.key])(items)

    def check(self, group: dict[str, Any], i: int) -> None:
        """Refuse a group that does not have the hyperparameter."""
        value: Any = group.get(self.key)
        if self.index is not None:
            has_item = isinstance(value, tuple | list) and self.index < len(value)
            value = value[self.index] if has_item else None
        if _is_number(value):
            return
        names = [name for name, content in group.items() if _is_number(content)]
        for name, content in group.items():
            if isinstance(content, tuple):
                names += [f"{name}[{j}]" for j in range(len(content))]
        raise BindingError(
            f"{group_name(group, i)} has no number {self.name!r} to schedule; "
            f"it has {', '.join(names)}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | torch.Tensor) and not isinstance(value, bool)


def version(value: Any) -> int:
    """Return a number that changes when a tensor is changed in place; -1 for a plain number."""
    return value._version if isinstance(value, torch.Tensor) else -1


def rounded(number: float, current: Any) -> float:
    """Return a number rounded to the dtype of a tensor, without reading from its device."""
    if not isinstance(current, torch.Tensor):
        return number
    return torch.tensor(number, dtype=current.dtype, device="cpu").item()


def copied(values: Iterable[Any]) -> list[Any]:
    """Return the values, with tensors copied."""
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in values]


def is_same_lr(a: float, b: float) -> bool:
    """Return whether two lrs are equal, up to what one loses in a float32 tensor."""
    return math.isclose(a, b, rel_tol=FLOAT32_REL_TOL)


def group_name(group: dict[str, Any], i: int) -> str:
    """Return a param group's name for messages: its ``"name"``, or its index."""
    return repr(group["name"]) if "name" in group else f"group {i}"


def group_keys(groups: list[dict[str, Any]]) -> list[int]:
    """Return what identifies param groups: their first parameters, which a loaded state keeps."""
    return [id(group["params"][0]) if group["params"] else id(group) for group in groups]


def group_names(groups: list[dict[str, Any]]) -> list[str]:
    """Return the names of param groups, by which schedules address them: the index if unnamed."""
    return [str(group.get("name", i)) for i, group in enumerate(groups)]


def by_group(groups: list[dict[str, Any]], values: list[T]) -> T | dict[str, T]:
    """Return the value that all groups have, or a dict with each group's value by name."""
    if all(value == values[0] for value in values):
        return values[0]
    return dict(zip(group_names(groups), values, strict=True))


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Return whether torch calls the step hooks of an optimizer; a wrapper may lack them."""
    is_wrapped = getattr(type(optimizer).step, "hooked", False)  # by Optimizer.__init__
    return is_wrapped and "_optimizer_step_post_hooks" in vars(optimizer)


def has_load_hooks(optimizer: Optimizer) -> bool:
    """Return whether ``load_state_dict`` has hooks; a wrapper may lack them."""
    return "_optimizer_load_state_dict_pre_hooks" in vars(optimizer)


def innermost_optimizer(optimizer: Optimizer, *, counted: bool = False) -> Optimizer:
    """Return the optimizer that makes the step, inside wrappers such as Accelerate's."""
    inner: Optimizer | None = optimizer
    with_step_hooks = []
    while inner is not None:
        if has_step_hooks(inner):
            with_step_hooks.append(inner)
            if has_load_hooks(inner):
                return inner
        inner = next((item for item in vars(inner).values() if isinstance(item, Optimizer)), None)
    if not with_step_hooks and counted:
        raise BindingError(
            f"{type(optimizer).__name__} has no step hooks, so its steps cannot be counted; "
            'pass clock="step" and call step() after each step'
        )
    return with_step_hooks[0] if with_step_hooks else optimizer
