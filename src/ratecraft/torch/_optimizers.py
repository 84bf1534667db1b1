"""Optimizers by name: torch's, those of two other packages, and any class by its import path."""

import difflib
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch.optim import Optimizer

from ratecraft.errors import SettingError

TORCH_CLASSES: Final = (
    *("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax"),
    *("LBFGS", "Muon"),
)
OPTIMIZERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **{name.lower(): (f"torch.optim.{name}", {}) for name in TORCH_CLASSES},
    "momentum": ("torch.optim.SGD", {"momentum": 0.9}),
    "nesterov": ("torch.optim.SGD", {"momentum": 0.9, "nesterov": True}),
    "schedulefree-sgd": ("schedulefree.SGDScheduleFree", {}),
    "schedulefree-adamw": ("schedulefree.AdamWScheduleFree", {}),
    "schedulefree-radam": ("schedulefree.RAdamScheduleFree", {}),
    "prodigy": ("prodigyopt.Prodigy", {}),
}
"""Short names: the path of a class, and its arguments besides the parameters."""
OPTIONAL_PACKAGES: Final = {"schedulefree", "prodigyopt"}


def optimizer_named(name: str) -> Callable[..., Optimizer]:
    """Return a function that builds an optimizer: ``build(parameters, **settings)``.

    Args:
        name: a short name in `OPTIMIZERS`, or the path of a class, ``torch.optim.AdamW``.

    Raises:
        SettingError: no such optimizer, or its package is not installed.

    >>> import torch
    >>> build = optimizer_named("momentum")
    >>> build([torch.nn.Parameter(torch.zeros(1))], lr=0.1).defaults["momentum"]
    0.9
    """
    path, settings = OPTIMIZERS.get(name.lower(), (name, {}))
    module, _, class_name = path.rpartition(".")
    cls: Any = None
    try:
        if module:
            cls = getattr(importlib.import_module(module), class_name, None)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing in OPTIONAL_PACKAGES:
            raise SettingError(f"{name!r} needs another package: pip install {missing}") from None
        if missing != module.partition(".")[0]:  # the module exists, but not what it imports
            raise SettingError(f"{name!r} cannot be imported: {error}") from None
    if not inspect.isclass(cls) or not issubclass(cls, Optimizer):
        if name.lower() in OPTIMIZERS:
            raise SettingError(f"{name!r}: torch {torch.__version__} has no {path}")
        near = difflib.get_close_matches(name.lower(), OPTIMIZERS, 1)
        meant = f"did you mean {near[0]}? Or " if near else ""
        raise SettingError(
            f"{name!r} is not an optimizer class; {meant}write a short name "
            f"({', '.join(OPTIMIZERS)}) or a path such as torch.optim.AdamW"
        )
    lr = inspect.signature(cls).parameters.get("lr")
    if lr is not None and lr.default is inspect.Parameter.empty:
        settings = {"lr": 1e-3} | settings
    return partial(cls, **settings)
