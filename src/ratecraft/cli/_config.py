"""What compare is told, by options and by a TOML file; the options count first."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import Duration, parse_length

from ._console import number

if TYPE_CHECKING:
    from ratecraft.experiments._plateau import Candidate


PATHS: Final = ("store", "save", "forecast")
WHOLE: Final = ("seeds", "workers")
NUMBERS: Final = ("cpus", "gpus")
FLAGS: Final = ("halving", "branches", "quiet")


@dataclass(slots=True)
class CompareConfig:
    """The settings of a comparison, as they are written in options or in a file."""

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
    def read(cls, task: str, given: Mapping[str, Any]) -> CompareConfig:
        """Return what was given, with the rest from a .toml file, where the task is one.

        Paths in the file are taken from the folder of the file.

        Raises:
            SettingError: the file cannot be read, or says something that is none.
        """
        said = {name: value for name, value in given.items() if value not in (None, ())}
        if not task.endswith(".toml"):
            return cls(task, **said)
        path = Path(task)
        try:
            file = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingError(f"{path}: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingError(f"{path} is no TOML: {error}") from None
        known = [one.name for one in fields(cls)]
        for name in file:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                guess = f"did you mean {close[0]!r}?" if close else f"it may say {', '.join(known)}"
                raise SettingError(f"{path}: {name!r} is none of what a comparison knows; {guess}")
            file[name] = _checked(path, name, file[name])
        if "task" not in file:
            raise SettingError(f'{path}: task is missing; write task = "my_task.py:task"')
        return cls(**file | said)

    def named(self) -> dict[str, Candidate]:
        """Return the schedules by name.

        Raises:
            ScheduleError: there are none, or one is none.
        """
        from ratecraft.experiments._plateau import parse_candidate

        texts = self.schedules
        named = texts if isinstance(texts, Mapping) else {text: text for text in texts}
        if len(named) < len(texts):
            raise ScheduleError("the same schedule is given twice")
        if not named:
            raise ScheduleError(
                'compare needs schedules, for example: ratecraft compare digits "cosine(1, 0)"'
            )
        return {name: parse_candidate(text) for name, text in named.items()}

    def multiples(self) -> list[float]:
        """Return the lrs; none if they are to be found.

        Raises:
            SettingError: one is no lr.
        """
        if self.lrs == "find":
            return []
        lrs = [number(str(one), "--lrs") for one in _list(self.lrs)]
        if any(one < 0 for one in lrs):
            raise SettingError(f"--lrs {self.lrs}: an lr must be >= 0")
        return lrs

    def kinds(self) -> list[str] | None:
        """Return the optimizers, or None for the task's own."""
        return None if self.optimizers is None else [str(one) for one in _list(self.optimizers)]

    def lengths(self) -> list[int | Duration]:
        """Return the lengths of the runs.

        Raises:
            ScheduleError: one is no length.
        """
        return [parse_length(str(one)) for one in _list(self.total_steps)]

    def part(self) -> tuple[int, int]:
        """Return which part of how many is to be done.

        Raises:
            SettingError: it is not written i/n.
        """
        first, _, last = self.shard.partition("/")
        if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
            raise SettingError(f"--shard {self.shard}: expected i/n, such as 1/8 up to 8/8")
        return int(first), int(last)


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


def _checked(path: Path, name: str, value: Any) -> Any:
    """Return a value of a file as the field's, or say what it should have been."""
    texts = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    expected, fits = {
        "schedules": ("texts, or a table of texts by name", texts or _all(value, str)),
        "lrs": ('numbers, or "find"', isinstance(value, str) or _all(value, int | float)),
        "optimizers": ("texts", _all(value, str)),
        "total": ("steps or a length, or several", _all(value, int | str)),
        "output": ("file names", _all(value, str)),
        **{one: ("a file name", isinstance(value, str)) for one in PATHS},
        **{one: ("a whole number", _all(value, int) and not _many(value)) for one in WHOLE},
        **{one: ("a number", _all(value, int | float) and not _many(value)) for one in NUMBERS},
        **{one: ("true or false", isinstance(value, bool)) for one in FLAGS},
    }.get(name, ("a text", isinstance(value, str)))
    if not fits:
        raise SettingError(f"{path}: {name} = {value!r}; expected {expected}")
    if name == "schedules" and isinstance(value, str):
        return [value]
    folder = path.parent
    if name in PATHS:
        return folder / value
    if name == "output":
        return tuple(folder / one for one in ([value] if isinstance(value, str) else value))
    if name == "task" and value.rpartition(":")[0].endswith(".py"):
        return str(folder / value)
    return value


def _many(value: Any) -> bool:
    return isinstance(value, list)


def _all(value: Any, kind: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(
        isinstance(one, kind) and not isinstance(one, bool) for one in values
    )
