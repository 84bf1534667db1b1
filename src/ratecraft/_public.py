"""The public path of a public object: the package that lists it, not the private module."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any


def set_public_module(package: dict[str, Any], *, later: Sequence[str] = ()) -> None:
    """Set ``__module__`` of a package's public functions and classes, and its ``__all__``.

    So reprs, tracebacks and pickles name ``ratecraft.torch.ScheduleLR``, wherever it is defined,
    and a star import gives the public names only. A package passes its ``globals()``, and the names
    that it loads when they are first used.
    """
    names = [
        name
        for name, value in package.items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    for name in names:
        module = getattr(package[name], "__module__", None) or ""
        if module.startswith("ratecraft.") and module.rpartition(".")[2].startswith("_"):
            package[name].__module__ = package["__name__"]
    package["__all__"] = [*names, *later]
