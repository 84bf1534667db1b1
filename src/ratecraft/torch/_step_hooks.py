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
STATE_DICT_MODULE: Final = "torch.distributed.checkpoint.state_dict"


def add_step_hooks(
    optimizer: Optimizer, *, before: Hook | None = None, after: Hook | None = None
) -> list[Any]:
    """Call hooks, as torch's ``register_step_pre_hook`` takes them, around each step.

    Optimizers inside this one that step the same param groups count too, such as SAM's
    ``base_optimizer``: one of them makes the step if the user calls ``second_step()``. The hooks
    get the optimizer whose step it is. A step that only creates the optimizer's state, as
    torch.distributed.checkpoint makes, does not count. The handles have ``remove()``.
    """
    members = [optimizer, *inner_optimizers(optimizer)]
    may_nest = len(members) > 1 or _overrides_step(type(optimizer))
    refs = tuple(map(weakref.ref, members)) if may_nest else ()
    handles = []
    for member in members:
        for hook, register in (
            (before, member.register_step_pre_hook),
            (after, member.register_step_post_hook),
        ):
            if hook is not None:
                # Without disable() Dynamo would trace into the hook and recompile at every step.
                counted = torch.compiler.disable(_counted(hook, refs))  # type: ignore[no-untyped-call]
                handles.append(register(counted))
    return handles


def _counted(hook: Hook, refs: tuple[weakref.ref[Optimizer], ...]) -> Hook:
    """Return a hook that does nothing in a step that does not count.

    Those are a step that creates the state, and a step inside that of another of the optimizers
    ``refs``, which runs the hook itself.
    """

    def call(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        nested = refs and sum(any(ref() is step for ref in refs) for step in _running_steps()) > 1
        if nested or (STATE_DICT_MODULE in sys.modules and _creates_state()):
            return None
        return hook(optimizer, args, kwargs)

    return call


def _creates_state() -> bool:
    """Return whether torch.distributed.checkpoint makes this step, at lr 0, to create the state.

    ``get_state_dict`` does so for every optimizer without state, as that of plain SGD always is.
    """
    function = getattr(sys.modules[STATE_DICT_MODULE], "_init_optim_state", None)
    return function is not None and any(frame.f_code is function.__code__ for frame in _frames())


def calling_module() -> str:
    """Return the module that called the running step; empty if the step is compiled."""
    frames = _frames()
    for frame in frames:
        if frame.f_code is STEP_WRAPPER_CODE:
            caller = next(frames, None)
            return str(caller.f_globals.get("__name__", "")) if caller is not None else ""
    return ""


def _running_steps() -> Iterator[Any]:
    """Yield the optimizers whose hooked step is running, the innermost first."""
    return (frame.f_locals.get("self") for frame in _frames() if frame.f_code is STEP_WRAPPER_CODE)


def _frames() -> Iterator[FrameType]:
    """Yield the running functions, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
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
