"""The public path of a public object: the package that lists it, not the private module."""

from __future__ import annotations

from typing import Any


def set_public_module(package: dict[str, Any]) -> None:
    """Set ``__module__`` of every public function and class to the package that lists it.

    So reprs, tracebacks and pickles name ``ratecraft.torch.ScheduleLR``, wherever it is defined.

    Args:
        package: the package's ``globals()``, at the end of its ``__init__``.
    """
    for name, value in package.items():
        module = getattr(value, "__module__", None)
        if name.startswith("_") or not isinstance(module, str):
            continue
        if module.startswith("ratecraft.") and module.rpartition(".")[2].startswith("_"):
            value.__module__ = package["__name__"]
