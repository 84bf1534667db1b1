"""A clear TypeError for an argument that a function does not have."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# What other libraries, and ratecraft before its first release, call the same argument.
OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "rate": ("lr",),
    "learning_rate": ("lr",),
    "max_lr": ("lr",),
    "base_lr": ("lr",),
    "peak_lr": ("lr",),
    "schedule": ("lr", "schedules"),
    "rates": ("lrs",),
    "lr": ("lrs",),
    "total": ("total_steps",),
    "T_max": ("total_steps",),
    "total_iters": ("total_steps",),
    "num_training_steps": ("total_steps",),
    "max_steps": ("total_steps", "budget_steps"),
    "decay_steps": ("total_steps",),
    "updates": ("budget_steps", "steps"),
    "num_iter": ("budget_steps", "steps"),
    "epoch": ("steps_per_epoch",),
    "samples": ("samples_per_step",),
    "batch_size": ("samples_per_step",),
    "tokens": ("tokens_per_step",),
    "fields": ("hyperparam_factors",),
    "floor": ("eta_min",),
    "min_lr": ("eta_min", "low"),
    "start_lr": ("low",),
    "end_lr": ("high",),
    "sample": ("midpoint",),
    "start": ("initial_step",),
    "last_epoch": ("initial_step",),
    "on_plan_change": ("on_change",),
    "optimizer": ("optimizers",),
    "seed": ("seeds",),
}
WARMUP_NAMES: Final = (
    "num_warmup_steps",
    "warmup_steps",
    "warmup_epochs",
    "warmup_ratio",
    "warmup",
)


def explain_arguments(hint: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that says what to write instead of an argument that does not exist.

    Args:
        hint: what to write instead of too many positional arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        names = {parameter.name for parameter in parameters}
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        positional = sum(
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters
        )

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if len(args) > positional and hint:
                raise TypeError(hint)
            if not takes_any and not kwargs.keys() <= names:
                name = next(name for name in kwargs if name not in names)
                title = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
                raise TypeError(f"{title}() has no argument {name!r}; {_advice(name, names)}")
            return function(*args, **kwargs)

        return call

    return decorate


def _advice(name: str, names: set[str]) -> str:
    for other in OTHER_NAMES.get(name, ()):
        if other in names:
            return f"write {other}="
    if name in WARMUP_NAMES:
        return "a warmup is part of the schedule: write warmup(500).then(cosine(1, 0))"
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it has {', '.join(sorted(names - {'self'}))}"
