"""The configuration of compare, from options and a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import Duration, parse_length

from ._console import parse_number
from ._renamed import renamed_key

if TYPE_CHECKING:
    from ratecraft.experiments._plateau import Candidate


PATH_KEYS: Final = ("store", "save", "forecast")


@dataclass(slots=True)
class CompareConfig:
    """The configuration of a comparison; the fields are the options of compare."""

    task: str
    schedules: Sequence[str] | Mapping[str, str] = ()
    lrs: Any = "find"
    optimizers: Any = None
    seeds: int = 3
    total_steps: Any = "epochs(10)"
    workers: int | None = None
    engine: str = "local"
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    store: Path | None = None
    forecast: Path | None = None
    halving: bool = False
    branches: bool = False
    shard: str = "1/1"
    save: Path | None = None
    output: tuple[Path, ...] = ()
    quiet: bool = False

    @classmethod
    def load(cls, task: str, options: Mapping[str, Any]) -> CompareConfig:
        """Return the configuration of options, and of a .toml file if the task is one.

        Options override the file. Paths in the file are relative to its folder.

        Args:
            task: a task's name, or the path of a .toml file.
            options: options by name; ``None`` and ``()`` stand for options that were not given.

        Raises:
            SettingError: the file cannot be read, or has an unknown key or a value of the wrong
                type.
        """
        given = {name: value for name, value in options.items() if value not in (None, ())}
        if not task.endswith(".toml"):
            return cls(task, **given)
        path = Path(task)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingError(f"{path}: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingError(f"{path} is not a valid TOML file: {error}") from None
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise SettingError(f"{path}: {_unknown_key(name, known)}")
            values[name] = _convert(path, name, values[name])
        if "task" not in values:
            raise SettingError(f'{path}: task is missing; write task = "my_task.py:task"')
        return cls(**values | given)

    def candidates(self) -> dict[str, Candidate]:
        """Return the schedules by name.

        Raises:
            ScheduleError: there are no schedules, or a schedule is invalid or given twice.
        """
        from ratecraft.experiments._plateau import parse_candidate

        texts = self.schedules
        by_name = texts if isinstance(texts, Mapping) else {text: text for text in texts}
        if len(by_name) < len(texts):
            raise ScheduleError("the same schedule is given twice")
        if not by_name:
            raise ScheduleError(
                'compare needs schedules, for example: ratecraft compare digits "cosine(1, 0)"'
            )
        return {name: parse_candidate(text) for name, text in by_name.items()}

    def lr_values(self) -> list[float]:
        """Return the learning rates; empty if the learning rate is to be found.

        Raises:
            SettingError: a learning rate is negative or not a number.
        """
        if self.lrs == "find":
            return []
        lrs = [parse_number(str(value), "--lrs") for value in _split(self.lrs)]
        if any(lr < 0 for lr in lrs):
            raise SettingError(f"--lrs {self.lrs}: an lr must be >= 0")
        return lrs

    def optimizer_names(self) -> list[str] | None:
        """Return the names of the optimizers, or None to use the task's."""
        return None if self.optimizers is None else [str(name) for name in _split(self.optimizers)]

    def lengths(self) -> list[int | Duration]:
        """Return the lengths of the runs.

        Raises:
            ScheduleError: a length is invalid.
        """
        return [parse_length(str(value)) for value in _split(self.total_steps)]

    def shard_index(self) -> tuple[int, int]:
        """Return the shard to train as (i, n): the i-th of n, counted from 1.

        Raises:
            SettingError: the shard is not written i/n.
        """
        index, _, count = self.shard.partition("/")
        if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
            raise SettingError(f"--shard {self.shard}: expected i/n, such as 1/8 up to 8/8")
        return int(index), int(count)


def _split(value: Any) -> list[Any]:
    """Return the values of a list, or of a text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


def _unknown_key(name: str, known: Sequence[str]) -> str:
    """Return the message about an unknown key, with the key that was probably meant."""
    if new_name := renamed_key(name):
        return f"unknown key: {name} is {new_name}"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
    return f"unknown key {name!r}; {hint}"


def _convert(path: Path, name: str, value: Any) -> Any:
    """Return a value of a TOML file as the field of a CompareConfig.

    Raises:
        SettingError: the value has the wrong type.
    """
    expected, is_valid = VALUE_TYPES.get(name, ("a string", _is_text))
    if not is_valid(value):
        raise SettingError(f"{path}: {name} = {value!r}; expected {expected}")
    if name == "schedules" and isinstance(value, str):
        return [value]
    folder = path.parent
    if name in PATH_KEYS:
        return folder / value
    if name == "output":
        return tuple(folder / output for output in ([value] if isinstance(value, str) else value))
    if name == "task" and value.rpartition(":")[0].endswith(".py"):
        return str(folder / value)
    return value


def _is_a(value: Any, types: Any) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _are_all(value: Any, types: Any) -> bool:
    """Whether a value, or every value of a list that is not empty, is of a type."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(_is_a(item, types) for item in values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return _are_all(value, str)


def _are_schedules(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(text, str) for text in value.values())
    return _are_texts(value)


def _is_integer(value: Any) -> bool:
    return _is_a(value, int)


def _is_number(value: Any) -> bool:
    return _is_a(value, int | float)


def _are_lrs(value: Any) -> bool:
    return isinstance(value, str) or _are_all(value, int | float)


def _are_lengths(value: Any) -> bool:
    return _are_all(value, int | str)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


VALUE_TYPES: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "schedules": ("strings, or a table of strings", _are_schedules),
    "lrs": ('numbers, or "find"', _are_lrs),
    "optimizers": ("strings", _are_texts),
    "total_steps": ("numbers of steps or durations", _are_lengths),
    "output": ("file names", _are_texts),
    **dict.fromkeys(PATH_KEYS, ("a file name", _is_text)),
    **dict.fromkeys(("seeds", "workers"), ("an integer", _is_integer)),
    **dict.fromkeys(("cpus", "gpus"), ("a number", _is_number)),
    **dict.fromkeys(("halving", "branches", "quiet"), ("true or false", _is_boolean)),
}
"""Key -> (the value in words, whether a value is valid); every other key is a string."""
