"""The parser of the notation: ``parse(repr(s)) == s``.

It walks Python's syntax tree and accepts only calls of the functions in ``WORDS`` and of the
schedule methods in ``VERBS``, with literals as arguments. It evaluates and imports nothing else,
and an error message marks the part of the text that it rejects.
"""

import ast
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

MAX_CHARACTERS: Final = 500_000  # 5,000 levels with a length each, all of 17 digits, are 320,000
MAX_DEPTH: Final = 50  # levels of brackets or of nested schedules
MAX_PARTS: Final = 50_000  # nodes of the syntax tree

SHAPES: Final = (
    *("constant", "linear", "cosine", "exponential", "polynomial", "one_minus_sqrt", "sqrt"),
    *("square", "tanh", "rex", "decay", "exp_decay", "inverse_sqrt", "power_law", "staircase"),
    *("warmup", "cooldown", "untuned_warmup"),
)
RECIPES: Final = (
    *("wsd", "trapezoid", "knee", "linear_to_zero", "one_cycle", "restarts", "triangular"),
    *("triangular2", "exp_range", "noam", "power_scheduler"),
)
LENGTHS: Final = ("steps", "epochs", "percent", "samples", "tokens")
VERBS: Final = ("then", "repeat", "clip", "rescale", "over", "reversed")

WORDS: Final[Mapping[str, Callable[..., Any]]] = {
    name: getattr(module, name)
    for module, names in ((shapes, SHAPES), (recipes, RECIPES), (duration, LENGTHS))
    for name in names
}
UNREADABLE: Final = ("custom", "multiplicative")  # their argument is a Python function
RENAMED_WORDS: Final = {
    "levels": "staircase(values, lengths=...)",
    "between": ".rescale(low, high)",
}
REFUSED: Final = re.compile(r"[^\w\s.,()\[\]*+=\"'<>|/-]", re.ASCII)
OPERATORS: Final = {
    ast.RShift: ">>", ast.BitOr: "|", ast.Div: "/", ast.Pow: "**", ast.Add: "+", ast.Sub: "-",
}  # fmt: skip


def parse(text: str) -> Schedule:
    """Return the schedule of a text; the inverse of ``repr`` and of ``str``.

    Args:
        text: the notation, e.g. ``"3e-4 * warmup(500).then(cosine(1, 0.1))"``; at most 500,000
            characters, 50,000 parts and 50 levels deep. Line breaks are allowed.

    Raises:
        ScheduleError: the text is not a valid schedule; the message marks the error and says
            what to write instead.
        TypeError: ``text`` is not a string.

    >>> parse("3e-4 * warmup(500).then(cosine(1, 0.1))")
    0.0003 * warmup(500).then(cosine(1, 0.1))
    """
    value = _Reader(text).read()
    if isinstance(value, Schedule):
        return value
    actual = "a length" if isinstance(value, Duration) else "not a schedule"
    if isinstance(value, int | float) and not isinstance(value, bool):
        actual = f"a number; write constant({value!r}) for a constant lr"
    raise ScheduleError(f"expected a schedule, but {text.strip()!r} is {actual}")


def parse_length(text: str) -> Duration:
    """Return the length of a text: ``"10000"``, ``"epochs(3)"``, ``"tokens(3e9)"``.

    Args:
        text: an int (steps), a duration such as ``epochs(3)``, or a sum or difference of these.

    Raises:
        ScheduleError: the text is not a valid length.
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
    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a schedule's text must be a string, not {text!r}")
        self.text = text.strip().replace("\r\n", "\n").replace("\r", "\n")
        self.parts = 0

    def read(self) -> Any:
        text = self.text
        if not text:
            raise ScheduleError('the text is empty; write for example "warmup(500).then(cosine())"')
        if len(text) > MAX_CHARACTERS:
            limit = f"the limit is {MAX_CHARACTERS:,}"
            raise ScheduleError(f"the text has {len(text):,} characters; {limit}")
        for word in UNREADABLE:
            if f"{word}(<" in text:
                fix = f"build it in Python: {word}(function)"
                raise ScheduleError(f"a {word}() function cannot be read from text; {fix}")
        if odd := REFUSED.search(text):
            self._fail_at(odd.start(), 1, f"{odd[0]!r} has no meaning in a schedule")
        depth = deepest = 0
        for at, character in enumerate(text):
            depth += (character in "([") - (character in ")]")
            if depth < 0:
                self._fail_at(at, 1, f"{character!r} has no opening bracket")
            deepest = max(deepest, depth)
        if deepest > MAX_DEPTH:
            raise ScheduleError(f"brackets are {deepest} deep; the limit is {MAX_DEPTH}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # As one line, so that line breaks are allowed and a column is an index in the text.
                tree = ast.parse(text.replace("\n", " "), mode="eval").body
        except SyntaxError as error:
            self._fail_at((error.offset or 1) - 1, 1, f"invalid syntax: {error.msg}")
        except (MemoryError, RecursionError, ValueError) as error:
            reason = error or type(error).__name__
            raise ScheduleError(f"the text cannot be parsed: {reason}") from None
        return self._value(tree, 0)

    def _value(self, node: ast.expr, depth: int) -> Any:
        self.parts += 1
        if depth > 4 * MAX_DEPTH or self.parts > MAX_PARTS:
            self._fail(node, f"too large; the limit is {MAX_PARTS:,} parts")
        match node:
            case ast.Constant(value=value):
                if type(value) not in (int, float, str, bool, type(None)):
                    self._fail(node, f"{value!r} is not valid in a schedule")
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
                return self._call(node, word, self._word(node.func, word), depth)
            case ast.Call(func=ast.Attribute()):
                return self._chain(node, depth)
            case ast.Name(id=word):
                self._word(node, word)
                self._fail(node, f"{word} is a function: write {word}(...)")
            case _:
                self._fail(node, "this is not part of the notation")

    def _chain(self, node: ast.Call, depth: int) -> Any:
        """Evaluate ``a.then(b).then(c)...`` from the left, so that a long chain is not deep."""
        links: list[tuple[ast.Call, ast.Attribute]] = []
        of: ast.expr = node
        while isinstance(of, ast.Call) and isinstance(of.func, ast.Attribute):
            links.append((of, of.func))
            of = of.func.value
        self.parts += len(links) - 1
        # `then` makes a sequence longer; every other method adds a level.
        subject = self._value(of, depth + 1 + sum(f.attr != "then" for _, f in links))
        for call, function in reversed(links):
            verb = function.attr
            if not isinstance(subject, Schedule):
                self._fail(function.value, f"only a schedule has .{verb}(); this is not one")
            if verb not in VERBS:
                at = (function.end_col_offset or 0) - len(verb)
                message = f"a schedule has no .{verb}(){_guess(verb, VERBS)}"
                self._fail_at(at, len(verb), message)
            subject = self._call(call, f".{verb}", getattr(subject, verb), depth)
        return subject

    def _operation(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self._value(node.left, depth + 1), self._value(node.right, depth + 1)
        lengths = isinstance(left, Duration) or isinstance(right, Duration)
        schedules = isinstance(left, Schedule) or isinstance(right, Schedule)
        match node.op:
            case ast.Mult() if schedules:
                return self._build(node, lambda: left * right)
            case ast.Add() if lengths:
                return self._build(node, lambda: left + right)
            case ast.Sub() if lengths:
                return self._build(node, lambda: left - right)
        sign = OPERATORS.get(type(node.op), "this operator")
        if schedules:
            message = f"{sign} does not join schedules; write a.then(b), or a * b to multiply"
            self._fail(node.right, message)
        self._fail(node, f"{sign} is not evaluated here; write the result")

    def _word(self, node: ast.expr, word: str) -> Callable[..., Any]:
        if word in WORDS:
            return WORDS[word]
        if word in UNREADABLE:
            self._fail(node, f"{word}() needs a Python function and cannot be read from text")
        close = _guess(word, WORDS) or f"; the words are {', '.join(sorted(WORDS))}"
        self._fail(node, f"{word!r} is not a word of the notation{close}")

    def _call(self, node: ast.Call, name: str, function: Callable[..., Any], depth: int) -> Any:
        values: list[Any] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                self._fail(argument, "* is not allowed here; write out the arguments")
            values.append(self._value(argument, depth + 1))
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                self._fail(keyword.value, "** is not allowed here; write out the arguments")
            if keyword.arg in named:
                self._fail(keyword.value, f"{name}(): keyword argument repeated: {keyword.arg}")
            named[keyword.arg] = self._value(keyword.value, depth + 1)
        import inspect

        signature = inspect.signature(function)
        shown = ", ".join(str(p).split(":")[0] for p in signature.parameters.values())
        for key in named:
            if key not in signature.parameters:
                unknown = f"no {key}={_guess(key, signature.parameters)}"
                self._fail(node, f"{name}() has {unknown}; it takes ({shown})")
        try:
            signature.bind(*values, **named)
        except TypeError as error:
            self._fail(node, f"{name}(): {error}; it takes ({shown})")
        return self._build(node, lambda: function(*values, **named))

    def _build(self, node: ast.expr, build: Callable[[], Any]) -> Any:
        try:
            return build()
        except (TypeError, ScheduleError) as error:
            self._fail(node, str(error))

    def _fail(self, node: ast.expr, message: str) -> NoReturn:
        self._fail_at(node.col_offset, (node.end_col_offset or 0) - node.col_offset, message)

    def _fail_at(self, start: int, width: int, message: str) -> NoReturn:
        line_start = self.text.rfind("\n", 0, start) + 1
        line_end = self.text.find("\n", start)
        line = self.text[line_start : line_end if line_end >= 0 else len(self.text)]
        column = start - line_start
        first = max(0, column - 50)  # show a window around the error
        shown = line[first : first + 76]
        marks = "^" * max(1, min(width, len(shown) - (column - first)))
        raise ScheduleError(f"{message}\n  {shown}\n  {' ' * (column - first)}{marks}") from None


def _guess(word: str, known: Any) -> str:
    """Return "; did you mean ...?" if a known word is similar, the new name of a renamed word."""
    if word in RENAMED_WORDS:
        return f"; write {RENAMED_WORDS[word]}"
    import difflib

    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
