"""Optimizers by name: torch's, those of two other packages, and any class by its path."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch.optim import Optimizer

from ratecraft.errors import SettingError

OPTIMIZERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "sgd": ("torch.optim.SGD", {}),
    "momentum": ("torch.optim.SGD", {"momentum": 0.9}),
    "nesterov": ("torch.optim.SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("torch.optim.Adagrad", {}),
    "adadelta": ("torch.optim.Adadelta", {}),
    "rmsprop": ("torch.optim.RMSprop", {}),
    "adam": ("torch.optim.Adam", {}),
    "adamw": ("torch.optim.AdamW", {}),
    "nadam": ("torch.optim.NAdam", {}),
    "radam": ("torch.optim.RAdam", {}),
    "adamax": ("torch.optim.Adamax", {}),
    "lbfgs": ("torch.optim.LBFGS", {}),
    "muon": ("torch.optim.Muon", {}),
    "schedulefree-sgd": ("schedulefree.SGDScheduleFree", {}),
    "schedulefree-adamw": ("schedulefree.AdamWScheduleFree", {}),
    "schedulefree-radam": ("schedulefree.RAdamScheduleFree", {}),
    "prodigy": ("prodigyopt.Prodigy", {}),
}
"""The short names: each a class and what it is given beside the parameters."""

PACKAGES: Final = {"schedulefree", "prodigyopt"}


def optimizer_named(name: str) -> Callable[..., Optimizer]:
    """Return what builds an optimizer: ``build(parameters, **settings)``.

    Args:
        name: a short name of `OPTIMIZERS`, or the path of a class, ``torch.optim.AdamW``.

    Raises:
        SettingError: there is no such optimizer, or its package is not installed.

    >>> build = optimizer_named("momentum")
    >>> optimizer = build([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> type(optimizer).__name__, optimizer.defaults["momentum"]
    ('SGD', 0.9)
    """
    path, settings = OPTIMIZERS.get(name.lower(), (name, {}))
    module, _, kind = path.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), kind) if module else None
    except ModuleNotFoundError as error:
        if error.name in PACKAGES:
            raise SettingError(
                f"{name!r} is of another package: pip install {error.name}"
            ) from None
        if error.name != module.partition(".")[0]:  # the module is there; what it needs is not
            raise SettingError(f"{name!r} cannot be imported: {error}") from None
        found = None
    except ImportError as error:
        raise SettingError(f"{name!r} cannot be imported: {error}") from None
    except AttributeError:
        found = None
    if not inspect.isclass(found) or not issubclass(found, Optimizer):
        if name.lower() in OPTIMIZERS:
            raise SettingError(f"{name!r}: torch {torch.__version__} has no {path}")
        near = difflib.get_close_matches(name.lower(), OPTIMIZERS, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise SettingError(
            f"{name!r} is no optimizer class; {meant}Write a short name ({', '.join(OPTIMIZERS)}) "
            "or a path, as in torch.optim.AdamW"
        )
    lr = inspect.signature(found).parameters.get("lr")
    if lr is not None and lr.default is inspect.Parameter.empty:
        settings = {"lr": 1e-3} | settings
    return partial(found, **settings)
