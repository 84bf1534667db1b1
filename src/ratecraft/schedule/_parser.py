"""One notation: ``parse(repr(s)) == s``, by a whitelist walk over Python's own syntax tree.

Nothing is evaluated or imported: names are looked up in a table of words, calls are made to
those words and to the verbs of a schedule, and everything else is refused with its place.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from ratecraft.errors import ScheduleError

from . import _duration as duration
from . import _recipes as recipes
from . import _shapes as shapes
from ._duration import Duration
from ._nodes import Schedule

MAX_LENGTH: Final = 20_000
MAX_DEPTH: Final = 50
MAX_PARTS: Final = 2_000

UNREADABLE: Final = ("custom", "multiplicative")  # they hold Python functions
WORDS: Final[Mapping[str, Callable[..., Any]]] = {
    word.__name__: word
    for word in (
        shapes.constant,
        shapes.cooldown,
        shapes.cosine,
        shapes.decay,
        shapes.exp_decay,
        shapes.exponential,
        shapes.inverse_sqrt,
        shapes.levels,
        shapes.linear,
        shapes.one_minus_sqrt,
        shapes.polynomial,
        shapes.power_law,
        shapes.rex,
        shapes.sqrt,
        shapes.square,
        shapes.staircase,
        shapes.tanh,
        shapes.untuned_warmup,
        shapes.warmup,
        recipes.exp_range,
        recipes.knee,
        recipes.linear_to_zero,
        recipes.noam,
        recipes.one_cycle,
        recipes.power_scheduler,
        recipes.restarts,
        recipes.trapezoid,
        recipes.triangular,
        recipes.triangular2,
        recipes.wsd,
        duration.steps,
        duration.epochs,
        duration.percent,
        duration.samples,
        duration.tokens,
    )
}
VERBS: Final = ("then", "repeat", "clip", "rescale", "over", "reversed")
ALLOWED: Final = re.compile(r"[\w\s.,()\[\]*+=\"'<>|/-]*", re.ASCII)
OPERATORS: Final = {
    ast.RShift: ">>", ast.BitOr: "|", ast.Div: "/", ast.Pow: "**", ast.Add: "+", ast.Sub: "-",
}  # fmt: skip


def parse(text: str) -> Schedule:
    """Return the schedule that a text names; the inverse of ``repr``.

    Args:
        text: the notation, e.g. ``"3e-4 * warmup(500).then(cosine(1, 0.1))"``; at most 20,000
            characters, 2,000 parts and 50 levels deep. Line breaks are allowed.

    Raises:
        ScheduleError: the text is no schedule; the message shows the place and the remedy.
        TypeError: ``text`` is not a string.

    >>> parse("3e-4 * warmup(500).then(cosine(1, 0.1))")
    0.0003 * warmup(500).then(cosine(1, 0.1))
    """
    value = _Reader(text).read()
    if isinstance(value, Schedule):
        return value
    kind = "a length" if isinstance(value, Duration) else "no schedule"
    if isinstance(value, int | float) and not isinstance(value, bool):
        kind = f"a number; a fixed lr is written constant({value!r})"
    raise ScheduleError(f"{text.strip()!r} is {kind}, where a schedule was expected")


def parse_length(text: str) -> Duration:
    """Return the length that a text names: ``"10000"``, ``"epochs(3)"``, ``"tokens(3e9)"``.

    Args:
        text: an int (steps), ``epochs(n)`` and the like, or a sum or difference of these.

    Raises:
        ScheduleError: the text is no length.
        TypeError: ``text`` is not a string.

    >>> parse_length("epochs(1) + 100")
    epochs(1) + 100
    """
    value = _Reader(text).read()
    try:
        return duration.as_duration(value, "the length")
    except TypeError as error:
        raise ScheduleError(str(error)) from None


class _Reader:
    """One text being read: the tree walk, its limits, and messages that show the place."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a schedule's text must be a string, not {text!r}")
        self.text = text.strip().replace("\r\n", "\n").replace("\r", "\n")
        self.parts = 0

    def read(self) -> Any:
        text = self.text
        if not text:
            raise ScheduleError('the text is empty; write for example "warmup(500).then(cosine())"')
        if len(text) > MAX_LENGTH:
            raise ScheduleError(
                f"the text has {len(text):,} characters; at most {MAX_LENGTH:,} are read"
            )
        for word in UNREADABLE:
            if f"{word}(<" in text:
                raise ScheduleError(
                    f"a {word}() function cannot be read back from text; build it in Python: "
                    f"{word}(function)"
                )
        odd = ALLOWED.match(text)
        if odd is None or odd.end() < len(text):
            at = odd.end() if odd else 0
            self._fail_at(at, 1, f"{text[at]!r} has no meaning in a schedule")
        depth = deepest = 0
        for at, character in enumerate(text):
            depth += (character in "([") - (character in ")]")
            if depth < 0:
                self._fail_at(at, 1, f"{character!r} closes a bracket that was never opened")
            deepest = max(deepest, depth)
        if deepest > MAX_DEPTH:
            raise ScheduleError(f"brackets {deepest} deep; at most {MAX_DEPTH} levels are read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
                # The brackets let a text run over several lines.
                tree = ast.parse(f"({text}\n)", mode="eval").body
        except SyntaxError as error:
            at = self._offset(error.lineno or 1, (error.offset or 1) - 1)
            self._fail_at(at, 1, f"this is not the notation: {error.msg}")
        except (MemoryError, RecursionError, ValueError) as error:
            raise ScheduleError(
                f"the text cannot be read: {error or type(error).__name__}"
            ) from None
        return self._value(tree, 0)

    # Reading ------------------------------------------------------------------------------

    def _value(self, node: ast.expr, depth: int) -> Any:
        self.parts += 1
        if depth > 4 * MAX_DEPTH or self.parts > MAX_PARTS:
            self._fail(node, f"too large; at most {MAX_PARTS:,} parts are read")
        match node:
            case ast.Constant(value=value):
                if type(value) not in (int, float, str, bool, type(None)):
                    self._fail(node, f"{value!r} is no part of a schedule")
                return value
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                value = self._value(operand, depth + 1)
                if isinstance(value, bool) or not isinstance(value, int | float):
                    self._fail(node, "only a number can have a sign; write -1 * schedule")
                return -value if isinstance(sign, ast.USub) else value
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item, depth + 1) for item in items]
            case ast.BinOp():
                return self._operation(node, depth)
            case ast.Call(func=ast.Name(id=word)):
                return self._call(node, word, self._word(node.func, word), [], depth)
            case ast.Call(func=ast.Attribute()):
                return self._chain(node, depth)
            case ast.Name(id=word):
                self._word(node, word)
                self._fail(node, f"{word} is a word that is called: write {word}(...)")
            case _:
                self._fail(node, "this is no part of the notation")

    def _chain(self, node: ast.Call, depth: int) -> Any:
        """Read ``a.then(b).then(c)...`` from the left: a long chain is not a deep one."""
        links: list[tuple[ast.Call, ast.Attribute]] = []
        of: ast.expr = node
        while isinstance(of, ast.Call) and isinstance(of.func, ast.Attribute):
            links.append((of, of.func))
            of = of.func.value
        self.parts += len(links) - 1
        # `then` makes a sequence longer, every other verb makes it a level deeper.
        subject = self._value(of, depth + 1 + sum(f.attr != "then" for _, f in links))
        for call, function in reversed(links):
            verb = function.attr
            if not isinstance(subject, Schedule):
                self._fail(function.value, f"only a schedule has .{verb}(), and this is none")
            if verb not in VERBS:
                place = (function.end_col_offset or 0) - len(verb)
                at = self._offset(function.end_lineno or 1, place)
                close = guess(verb, VERBS)
                self._fail_at(at, len(verb), f"a schedule has no .{verb}(){close}")
            subject = self._call(call, f".{verb}", getattr(subject, verb), [], depth)
        return subject

    def _operation(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self._value(node.left, depth + 1), self._value(node.right, depth + 1)
        lengths = isinstance(left, Duration) or isinstance(right, Duration)
        schedules = isinstance(left, Schedule) or isinstance(right, Schedule)
        match node.op:
            case ast.Mult() if schedules:
                return self._made(node, lambda: left * right)
            case ast.Add() if lengths:
                return self._made(node, lambda: left + right)
            case ast.Sub() if lengths:
                return self._made(node, lambda: left - right)
        sign = OPERATORS.get(type(node.op), "this operator")
        if schedules:
            self._fail(
                node.right, f"{sign} does not join schedules; write a.then(b), or a * b to multiply"
            )
        self._fail(node, f"{sign} is not calculated here; write the result")

    def _word(self, node: ast.expr, word: str) -> Callable[..., Any]:
        if word in WORDS:
            return WORDS[word]
        if word in UNREADABLE:
            self._fail(node, f"{word}() needs a Python function and has no text")
        close = guess(word, WORDS) or f"; the words are {', '.join(sorted(WORDS))}"
        self._fail(node, f"{word!r} is not a word of the notation{close}")

    def _call(
        self, node: ast.Call, name: str, function: Callable[..., Any], values: list[Any], depth: int
    ) -> Any:
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                self._fail(argument, "* is not read here; write the arguments out")
            values.append(self._value(argument, depth + 1))
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                self._fail(keyword.value, "** is not read here; write the arguments out")
            named[keyword.arg] = self._value(keyword.value, depth + 1)
        return self._made(node, lambda: call(name, function, values, named))

    def _made(self, node: ast.expr, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except (TypeError, ScheduleError) as error:
            self._fail(node, str(error))

    # Saying where ------------------------------------------------------------------------

    def _offset(self, line: int, column: int) -> int:
        """Return the place in the text of a line and column of the bracketed text."""
        lines = self.text.split("\n")
        before = sum(len(earlier) + 1 for earlier in lines[: line - 1])
        return min(max(before + column - (line == 1), 0), len(self.text))

    def _fail(self, node: ast.expr, message: str) -> NoReturn:
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
        self._fail_at(start, end - start, message)

    def _fail_at(self, start: int, width: int, message: str) -> NoReturn:
        line_start = self.text.rfind("\n", 0, start) + 1
        line_end = self.text.find("\n", start)
        line = self.text[line_start : line_end if line_end >= 0 else len(self.text)]
        column = start - line_start
        first = max(0, column - 50)  # a window, so that the mark stays on the screen
        shown = line[first : first + 76]
        marks = "^" * max(1, min(width, len(shown) - (column - first)))
        raise ScheduleError(f"{message}\n  {shown}\n  {' ' * (column - first)}{marks}") from None


def call(
    name: str, function: Callable[..., Any], values: list[Any], named: Mapping[str, Any]
) -> Any:
    """Call a word or a verb; wrong arguments are told by the name that the user wrote.

    Raises:
        TypeError: an argument is unknown, missing or given twice, or of the wrong type.
        ScheduleError: the values make no schedule.
    """
    signature = inspect.signature(function)
    shown = ", ".join(str(p).split(":")[0] for p in signature.parameters.values())
    unknown = [key for key in named if key not in signature.parameters]
    if unknown:
        close = guess(unknown[0], signature.parameters)
        raise TypeError(f"{name}() has no {unknown[0]}={close}; it takes ({shown})")
    try:
        signature.bind(*values, **named)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}; it takes ({shown})") from None
    return function(*values, **named)


def guess(word: str, known: Any) -> str:
    """Return "; did you mean ...?" if a known word is close to this one."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
