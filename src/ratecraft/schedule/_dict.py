"""Schedules as plain data, for JSON and YAML: ``from_dict(to_dict(s)) == s``.

A dict has one key, the name of the function or method, and its arguments as the value. Lengths
are ints (steps) or text::

    {"scale": {"by": 0.0003, "of": {"then": [
        {"warmup": {"over": 500}},
        {"cosine": {"start": 1, "end": 0.1}},
    ]}}}
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from ratecraft.errors import ScheduleError

from ._duration import Duration, number_text
from ._leaves import Leaf
from ._nodes import Clip, Over, Product, Repeat, Rescale, Reversed, Scale, Schedule, Sequence
from ._parser import MAX_DEPTH, MAX_PARTS, UNREADABLE, VERBS, WORDS, call, guess, parse_length

LIST_DEPTH: Final = 1  # staircase() takes lists of numbers and lengths; nothing takes more


def to_dict(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as nested dicts, lists, numbers and strings.

    Args:
        schedule: the schedule.

    Raises:
        ScheduleError: the schedule contains a Python function.

    >>> from ratecraft import cosine, to_dict, warmup
    >>> to_dict(warmup(500).then(cosine(1, 0.1)))
    {'then': [{'warmup': {'over': 500}}, {'cosine': {'start': 1, 'end': 0.1}}]}
    """
    match schedule:
        case Sequence(parts):
            return {"then": [to_dict(part) for part in parts]}
        case Scale(factor, body):
            return {"scale": {"by": _plain(factor), "of": to_dict(body)}}
        case Product(left, right):
            return {"product": [to_dict(left), to_dict(right)]}
        case Repeat(body, n, grow, decay):
            changed = {
                "n": n,
                "grow": grow if grow != 1 else None,
                "decay": decay if decay != 1 else None,
            }
            return {"repeat": {"of": to_dict(body)} | _without_none(changed)}
        case Clip(body, low, high):
            return {"clip": {"of": to_dict(body)} | _without_none({"low": low, "high": high})}
        case Rescale(body, low, high):
            return {"rescale": {"of": to_dict(body), "low": _plain(low), "high": _plain(high)}}
        case Over(body, length):
            return {"over": {"of": to_dict(body), "length": _plain(length)}}
        case Reversed(body):
            return {"reversed": {"of": to_dict(body)}}
    assert isinstance(schedule, Leaf)  # noqa: S101 - all other nodes are handled above
    word, args, kwargs = schedule.call()
    if word in UNREADABLE:
        raise ScheduleError(f"{schedule!r} contains a Python function, which has no plain form")
    if schedule.over_ is not None:
        kwargs = kwargs | {"over": schedule.over_}
    names = list(inspect.signature(WORDS[word]).parameters)
    return {word: _without_none(dict(zip(names, args, strict=False)) | kwargs)}


def from_dict(data: Mapping[str, Any]) -> Schedule:
    """Return the schedule of a dict from `to_dict` or from a config file.

    Args:
        data: a dict with one key; lengths are ints (steps) or text.

    Raises:
        ScheduleError: the data is not a valid schedule; the message has the path to the error.

    >>> from ratecraft import from_dict
    >>> from_dict({"then": [{"warmup": {"over": "epochs(1)"}}, {"cosine": {"end": 0.1}}]})
    warmup(epochs(1)).then(cosine(1, 0.1))
    """
    return _Builder().build(data, "schedule", 0)


def _without_none(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in arguments.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Duration):
        text = str(value)
        return int(text) if text.isdigit() else text
    if isinstance(value, float):
        return int(value) if number_text(value).lstrip("-").isdigit() else value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


class _Builder:
    def __init__(self) -> None:
        self.parts = 0

    def build(self, data: Any, path: str, depth: int) -> Schedule:
        """Return the schedule of one dict; ``path`` is its position in the whole data."""
        self.parts += 1
        if depth > MAX_DEPTH or self.parts > MAX_PARTS:
            raise ScheduleError(
                f"{path}: too large; at most {MAX_PARTS:,} parts, {MAX_DEPTH} levels deep"
            )
        if not isinstance(data, Mapping) or len(data) != 1:
            raise ScheduleError(
                f"{path}: expected a dict with one key, such as {{'warmup': {{'over': 500}}}}, "
                f"not {_short(data)}"
            )
        ((word, content),) = data.items()
        if not isinstance(word, str):
            raise ScheduleError(f"{path}: expected a word of the notation, not {_short(word)}")
        path = f"{path}.{word}"
        if word in ("then", "product"):
            return self._build_joined(word, content, path, depth)
        if not isinstance(content, Mapping):
            raise ScheduleError(f"{path}: expected a dict of arguments, not {_short(content)}")
        arguments = {str(name): value for name, value in content.items()}
        if word == "scale" or word in VERBS:
            if "of" not in arguments:
                raise ScheduleError(f"{path}: 'of' is missing, the schedule to apply it to")
            body = self.build(arguments.pop("of"), f"{path}.of", depth + 1)

            def scale(by: float) -> Schedule:
                return by * body

            method = scale if word == "scale" else getattr(body, word)
            return self._build_call(word, method, arguments, path)
        if word not in WORDS:
            raise ScheduleError(
                f"{path}: {word!r} is not a word of the notation{guess(word, WORDS)}"
            )
        return self._build_call(word, WORDS[word], arguments, path)

    def _build_joined(self, word: str, content: Any, path: str, depth: int) -> Schedule:
        if not isinstance(content, list | tuple) or not content:
            raise ScheduleError(f"{path}: expected a list of schedules, not {_short(content)}")
        parts = [self.build(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(content)]
        if word == "product":
            if len(parts) != 2:
                raise ScheduleError(f"{path}: expected two schedules, not {len(parts)}")
            return parts[0] * parts[1]
        try:
            return parts[0].then(*parts[1:])
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None

    def _build_call(
        self, name: str, function: Callable[..., Any], arguments: dict[str, Any], path: str
    ) -> Schedule:
        parameters = inspect.signature(function).parameters
        # Arguments annotated with Length may be given as text, also inside a list.
        lengths = {n for n, p in parameters.items() if "Length" in str(p.annotation)}
        try:
            values = {n: _argument(v, n in lengths, 0) for n, v in arguments.items()}
            schedule = call(name, function, [], values)
        except (TypeError, ScheduleError) as error:
            raise ScheduleError(f"{path}: {error}") from None
        if not isinstance(schedule, Schedule):
            raise ScheduleError(f"{path}: expected a schedule, not a length")
        return schedule


def _argument(value: Any, is_length: bool, depth: int) -> Any:
    if isinstance(value, Mapping) or depth > LIST_DEPTH:
        raise ScheduleError(f"expected a number, a length or a list of them, not {_short(value)}")
    if isinstance(value, list | tuple):
        return [_argument(item, is_length, depth + 1) for item in value]
    return parse_length(value) if is_length and isinstance(value, str) else value


def _short(value: Any) -> str:
    """Return a text of bounded size and depth for an error message."""
    return _SHORT.repr(value)


_SHORT: Final = reprlib.Repr()
