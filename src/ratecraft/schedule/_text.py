"""The text of numbers, arguments and calls in the notation."""

from __future__ import annotations

import operator
from numbers import Real


def number_text(number: float) -> str:
    """Return the shortest text that reads back as ``number``: integral values as an int."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def call_text(word: str, /, *args: object, **kwargs: object) -> str:
    """Return the text of a call; a keyword argument that is None is left out."""
    named = [f"{name}={_argument(v)}" for name, v in kwargs.items() if v is not None]
    return f"{word}({', '.join([*map(_argument, args), *named])})"


def _argument(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return '"' + value + '"'  # not an f-string, which would show the name of an enum's member
    if hasattr(value, "__index__"):  # any kind of int, also a tensor
        return str(operator.index(value))
    if isinstance(value, Real):
        return number_text(float(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_argument, value))}]"
    if callable(value):
        function = value if hasattr(value, "__qualname__") else type(value)
        return f"<{function.__module__}.{function.__qualname__}>"
    return str(value)
