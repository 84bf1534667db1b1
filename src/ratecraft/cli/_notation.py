"""The words of the notation, for the --help of commands that read schedules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ratecraft.schedule._parser import VERBS, WORDS

Command = TypeVar("Command", bound=Callable[..., Any])
NOTATION_HELP: Final = (
    f"Words of the notation: {', '.join(sorted(WORDS))}. "
    f"Methods: {', '.join(f'.{verb}()' for verb in VERBS)}. Multiply with *."
)


def list_words(command: Command) -> Command:
    """Insert the words of the notation into a command's docstring, before its arguments."""
    text = inspect.getdoc(command) or ""
    command.__doc__ = text.replace("\nArgs:\n", f"\n{NOTATION_HELP}\n\nArgs:\n", 1)
    return command
