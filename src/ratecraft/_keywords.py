"""TypeErrors that say what to write instead of an argument that a function does not have."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Names of the same argument in torch, transformers and earlier versions of ratecraft.
OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "rate": ("lr", "lrs"),
    "learning_rate": ("lr", "lrs"),
    "max_lr": ("lr", "high", "lrs"),
    "base_lr": ("lr", "low", "lrs"),
    "peak_lr": ("lr", "lrs"),
    "schedule": ("lr", "schedules"),
    "rates": ("lrs",),
    "lr": ("lrs",),
    "lrs": ("lr",),
    "total": ("total_steps", "steps"),
    "T_max": ("total_steps", "steps"),
    "total_iters": ("total_steps", "steps"),
    "num_training_steps": ("total_steps", "steps"),
    "max_steps": ("total_steps", "budget_steps", "steps"),
    "decay_steps": ("total_steps", "steps"),
    "updates": ("budget_steps", "steps", "total_steps"),
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
    "warm": ("warmup_steps",),
    "num_warmup_steps": ("warmup_steps",),
}
LR_HINT: Final = (
    "the learning rate is part of the schedule or of the optimizer: write 3e-4 * cosine(1, 0), or "
    "Adam(parameters, lr=3e-4)"
)
WARMUP_HINT: Final = "a warm-up is part of the schedule: write warmup(500).then(cosine(1, 0))"
MINIMUM_HINT: Final = "the end value is part of the schedule: write cosine(1, 0.1)"
FIRST_STEP_HINT: Final = "the first step is 0; to start later write ScheduleLR(..., initial_step=)"
# Arguments elsewhere that are part of the schedule here, or an argument of ScheduleLR.
HINTS: Final[Mapping[str, str]] = {
    "lr": LR_HINT,
    "rate": LR_HINT,
    "learning_rate": LR_HINT,
    "max_lr": LR_HINT,
    "base_lr": LR_HINT,
    "peak_lr": LR_HINT,
    "num_warmup_steps": WARMUP_HINT,
    "warmup_steps": WARMUP_HINT,
    "warmup_epochs": WARMUP_HINT,
    "warmup_ratio": WARMUP_HINT,
    "warmup": WARMUP_HINT,
    "eta_min": MINIMUM_HINT,
    "min_lr": MINIMUM_HINT,
    "floor": MINIMUM_HINT,
    "last_epoch": FIRST_STEP_HINT,
    "start": FIRST_STEP_HINT,
}


def explain_arguments(
    hint: str = "", *, options: Iterable[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that explains an unknown or a surplus argument in a TypeError.

    Args:
        hint: the message for too many positional arguments; "" leaves Python's own.
        options: the names that the function accepts as ``**kwargs``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        spec = inspect.getfullargspec(function)
        names = {*spec.args, *spec.kwonlyargs, *options}

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if len(args) > len(spec.args) and hint:
                raise TypeError(hint)
            unknown = [name for name in kwargs if name not in names]
            if unknown:
                title = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
                advice = _advice(unknown[0], names)
                raise TypeError(f"{title}() has no argument {unknown[0]!r}; {advice}")
            return function(*args, **kwargs)

        return call

    return decorate


def _advice(name: str, names: set[str]) -> str:
    for other in OTHER_NAMES.get(name, ()):
        if other in names:
            return f"write {other}="
    if name in HINTS:
        return HINTS[name]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it has {', '.join(sorted(names - {'self'}))}"
