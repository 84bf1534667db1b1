"""Calls before and after each optimizer step, once however many classes' ``step`` it passes."""

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import torch
from torch.optim import Optimizer

from ._hyperparam import has_step_hooks

Hook = Callable[[Optimizer, Any, Any], Any]

# torch wraps the step of each class of optimizers in a function with this code. It calls the hooks,
# so a subclass whose step calls super().step() calls them twice.
STEP_WRAPPER_CODE: Final = Optimizer.profile_hook_step(lambda self: None).__code__


def add_step_hooks(
    optimizer: Optimizer, *, before: Hook | None = None, after: Hook | None = None
) -> list[Any]:
    """Call hooks, as torch's ``register_step_pre_hook`` takes them, around each step.

    Optimizers inside this one that step the same param groups count too, such as SAM's
    ``base_optimizer``: one of them makes the step if the user calls ``second_step()``. The hooks
    get the optimizer whose step it is. The handles have ``remove()``.
    """
    members = [optimizer, *inner_optimizers(optimizer)]
    may_nest = len(members) > 1 or _overrides_step(type(optimizer))
    refs = tuple(map(weakref.ref, members))
    handles = []
    for member in members:
        for hook, register in (
            (before, member.register_step_pre_hook),
            (after, member.register_step_post_hook),
        ):
            if hook is not None:
                # Without disable() Dynamo would trace into the hook and recompile at every step.
                outermost = _outermost(hook, refs) if may_nest else hook
                counted = torch.compiler.disable(outermost)  # type: ignore[no-untyped-call]
                handles.append(register(counted))
    return handles


def _outermost(hook: Hook, refs: tuple[weakref.ref[Optimizer], ...]) -> Hook:
    """Return a hook that does nothing in a step inside another one, which runs the hook itself."""

    def call(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if sum(1 for stepped in _running_steps() if any(ref() is stepped for ref in refs)) < 2:
            return hook(optimizer, args, kwargs)
        return None

    return call


def _running_steps() -> Iterator[Any]:
    """Yield the optimizers whose hooked step is running, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is STEP_WRAPPER_CODE:
            yield frame.f_locals.get("self")
        frame = frame.f_back


def _overrides_step(variant: type[Optimizer]) -> bool:
    """Return whether several classes define the step, so that one may call another's."""
    steps = [vars(c)["step"] for c in variant.__mro__ if c is not Optimizer and "step" in vars(c)]
    return len({inspect.unwrap(step) for step in steps}) > 1


def inner_optimizers(optimizer: Optimizer) -> list[Optimizer]:
    """Return the optimizers that are attributes of an optimizer and step its param groups."""
    return [
        value
        for value in vars(optimizer).values()
        if isinstance(value, Optimizer) and has_step_hooks(value) and steps_same(optimizer, value)
    ]


def steps_same(a: Optimizer, b: Optimizer) -> bool:
    """Return whether two optimizers step a param group in common, as SAM and its base do."""
    groups = {id(group) for group in a.param_groups}
    return any(id(group) in groups for group in b.param_groups)
