"""Node: what a part of a schedule's tree tells the others, and its two texts; texts of calls."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from numbers import Real
from typing import ClassVar, Final, NoReturn, Self

from ._duration import Horizon, number_text
from ._pieces import Piece
from ._value import Value

MAX_CHAINED: Final = 700  # parts written .then(a).then(b); a long chain is too deep for Python


class Node(Value):
    """A node of the tree."""

    # The text that the structure has lost: that of a recipe, or of a .then() that flattened one.
    _written: ClassVar[str | None] = None  # set on an instance, and no field

    __array_ufunc__ = None  # so that numpy.float64(3) * schedule calls __rmul__
    _binds_tighter: ClassVar[bool] = True  # than `*` and `.`: its text needs no brackets

    def _children(self) -> tuple[Node, ...]:
        return ()

    def _is_open(self) -> bool:
        """Return whether a part has no length and fills the rest of its span."""
        return any(child._is_open() for child in self._children())

    def _names_percent(self) -> bool:
        """Return whether this schedule has a ``percent`` of the enclosing scope."""
        return any(child._names_percent() for child in self._children())

    def _build(self, horizon: Horizon, scope: float, room: float) -> Piece:
        raise NotImplementedError

    def _format(self, text: Text) -> str:
        """Return the text of this node; its children are formatted with ``text``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._format(repr)

    def __str__(self) -> str:
        return self._written or self._format(str)

    def _operand(self, text: Text) -> str:
        """Return the text before a dot or after ``*``, in brackets where it needs them."""
        is_call = text is str and self._written
        return text(self) if self._binds_tighter or is_call else f"({text(self)})"

    def _with_text(self, text: str) -> Self:
        """Return an equal node with that ``str``."""
        node = copy.copy(self)
        vars(node).update(_written=text)
        return node

    def _no_operator(self, _: object) -> NoReturn:
        raise TypeError(
            "schedules have no operator but '*': to join them write a.then(b); to multiply use "
            "'*', to limit or shift values .clip() or .rescale()"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __truediv__ = __rshift__ = __rrshift__ = _no_operator
    __or__ = __ror__ = __and__ = __matmul__ = _no_operator


Text = Callable[[Node], str]  # repr or str


def join_text(parts: tuple[Node, ...], text: Text) -> str:
    """Return the text of parts joined by ``.then()``."""
    first, *later = parts
    separator = ").then(" if len(parts) <= MAX_CHAINED else ", "
    return f"{first._operand(text)}.then({separator.join(map(text, later))})"


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
