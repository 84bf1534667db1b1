"""Set ``__module__`` of public objects to the package that exports them."""

from __future__ import annotations

from typing import Any


def set_public_module(package: dict[str, Any]) -> None:
    """Set ``__module__`` of every public function and class to the package that exports it.

    Reprs, tracebacks and pickles then name ``ratecraft.torch.ScheduleLR``, not the private module
    that defines it.

    Args:
        package: the package's ``globals()``, at the end of its ``__init__``.
    """
    for name, value in package.items():
        module = getattr(value, "__module__", None)
        if name.startswith("_") or not isinstance(module, str):
            continue
        if module.startswith("ratecraft.") and module.rpartition(".")[2].startswith("_"):
            value.__module__ = package["__name__"]
