"""A griffe extension for mkdocstrings: doctests as code blocks, public names of packages."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*\n?)+", re.MULTILINE)


def fenced(text: str) -> str:
    r"""Return a docstring with its doctests as code blocks; in Markdown >>> quotes three times.

    >>> fenced("Add.\n\n>>> 1 + 1\n2")
    'Add.\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    return DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n\n", text).rstrip()


class Docstrings(griffe.Extension):
    """Fences doctests, and lists what a package's ``__init__`` imports as its public names."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of what was just read."""
        if obj.docstring is None:
            return
        if obj.is_module:
            obj.docstring = None
        else:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_module_members(self, *, mod: griffe.Module, **_: Any) -> None:
        """Set the public names of a package."""
        if mod.is_init_module:
            mod.exports = [
                name
                for name, path in mod.imports.items()
                if path.startswith("ratecraft.") and not name.startswith("_")
                if mod.members[name].runtime
            ]
