"""TypeErrors that say what to write instead of an argument that a function does not have."""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Names in torch, transformers and earlier versions of ratecraft -> names here, the best first.
OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("rate", "learning_rate", "peak_lr"), ("lr", "lrs")),
    "max_lr": ("lr", "high", "lrs"),
    "base_lr": ("lr", "low", "lrs"),
    "schedule": ("lr", "schedules"),
    "rates": ("lrs",),
    "lr": ("lrs",),
    "lrs": ("lr",),
    **dict.fromkeys(
        ("total", "T_max", "total_iters", "num_training_steps", "decay_steps", "max_steps"),
        ("total_steps", "steps"),
    ),
    "updates": ("budget_steps", "steps", "total_steps"),
    "num_iter": ("budget_steps", "steps"),
    "epoch": ("steps_per_epoch",),
    **dict.fromkeys(("samples", "batch_size"), ("samples_per_step",)),
    "tokens": ("tokens_per_step",),
    "fields": ("hyperparam_factors",),
    "floor": ("eta_min",),
    "min_lr": ("eta_min", "low"),
    "start_lr": ("low",),
    "end_lr": ("high",),
    "sample": ("midpoint",),
    **dict.fromkeys(("start", "last_epoch"), ("initial_step",)),
    "on_plan_change": ("on_change",),
    "optimizer": ("optimizers",),
    "seed": ("seeds",),
    **dict.fromkeys(("warm", "num_warmup_steps"), ("warmup_steps",)),
}
# Arguments elsewhere that are part of the schedule here, or an argument of ScheduleLR.
HINTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("lr", "rate", "learning_rate", "max_lr", "base_lr", "peak_lr"),
        "the learning rate is part of the schedule or of the optimizer: write "
        "3e-4 * cosine(1, 0), or Adam(parameters, lr=3e-4)",
    ),
    **dict.fromkeys(
        ("num_warmup_steps", "warmup_steps", "warmup_epochs", "warmup_ratio", "warmup"),
        "a warmup is part of the schedule: write warmup(500).then(cosine(1, 0))",
    ),
    **dict.fromkeys(
        ("eta_min", "min_lr", "floor"),
        "the end value is part of the schedule: write cosine(1, 0.1)",
    ),
    **dict.fromkeys(
        ("last_epoch", "start"),
        "the first step is 0; to start later write ScheduleLR(..., initial_step=)",
    ),
}


def explain_arguments(
    hint: str = "", *, options: Iterable[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that explains an unknown or a surplus argument in a TypeError.

    ``hint`` is the message for too many positional arguments, ``options`` what ``**kwargs`` takes.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        code = function.__code__
        count = code.co_argcount
        names = {*code.co_varnames[: count + code.co_kwonlyargcount], *options}

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if len(args) > count and hint:
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
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it has {', '.join(sorted(names - {'self'}))}"
