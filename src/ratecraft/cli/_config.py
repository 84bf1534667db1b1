"""The configuration of compare, from options and a TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import Duration, Schedule, parse_length
from ratecraft.schedule._nodes import schedules_by_name

from ._options import Reports, Save, TotalSteps

if TYPE_CHECKING:
    from ratecraft.experiments._script import Script


@Parameter(name="*")
@dataclass(kw_only=True)
class CompareOptions:
    """Options of compare that a TOML file may have, too; ``None`` or ``()`` if not given.

    Attributes:
        lrs: Learning rate that every schedule multiplies, several separated by commas, or "find"
            to search for it first (the default). Write 1 if the schedules are learning rates.
        optimizers: Optimizer to use instead of the task's, or several separated by commas;
            `ratecraft find --help` lists the names.
        seeds: Number of seeds for each candidate. Default: 3.
        total_steps: Length of each run: a number of steps, or a duration such as "epochs(10)"
            (the default), or several separated by commas.
        workers: Number of worker processes; 0 trains in this process. Default: one for each CPU
            core.
        engine: Where to train: "local" (worker processes, the default) or "ray".
        address: Address of a Ray cluster, such as "auto". Default: start Ray on this machine.
        cpus: CPU cores for each Ray worker. Default: 1.
        gpus: GPUs for each trial; with 0.25, four share one. Default: all of them, with Ray none.
        launch: Command in front of a script, such as "torchrun --standalone --nproc-per-node 2".
        metric: Logged loss by which the runs of a script are compared. Default: a validation loss,
            such as val_loss.
        timeout: Seconds after which a trial of a script is stopped.
        arguments: Arguments of a script; on the command line, write them after `--`.
        store: SQLite file in which to save finished runs.
        halving: Stop the worse half of each schedule's learning rates after a quarter and after
            half of the run. Stopped runs have no final loss.
        branches: Train the common beginning of runs only once, for example that of cooldowns of
            several lengths.
        shard: Train only part i of n, written i/n, for job arrays; `ratecraft merge` combines the
            stores.
        forecast: Forecast saved by `ratecraft forecast`, to show next to the results.
        quiet: Do not show progress.
    """

    lrs: Annotated[str | None, Parameter(alias="--lr")] = None
    optimizers: Annotated[str | None, Parameter(alias="--optimizer")] = None
    seeds: int | None = None
    total_steps: TotalSteps = None
    workers: int | None = None
    engine: str | None = None
    address: str | None = None
    cpus: float | None = None
    gpus: Annotated[float | None, Parameter(alias="--gpus-per-trial")] = None
    launch: str | None = None
    metric: str | None = None
    timeout: float | None = None
    arguments: tuple[str, ...] = ()
    store: Path | None = None
    halving: bool | None = None
    branches: bool | None = None
    shard: str | None = None
    forecast: Path | None = None
    save: Save = None
    output: Reports = ()
    quiet: bool | None = None


@dataclass(kw_only=True)
class CompareConfig(CompareOptions):
    """The whole configuration of a comparison."""

    task: str
    schedules: Sequence[str] | Mapping[str, str] = ()

    @classmethod
    def load(
        cls, task: str, schedules: Sequence[str], options: CompareOptions | None
    ) -> CompareConfig:
        """Return the configuration of a command line, which overrides that of a .toml file."""
        values = _read_toml(Path(task)) if task.endswith(".toml") else {"task": task}
        typed = {"schedules": tuple(schedules), **vars(options or CompareOptions())}
        values |= {name: value for name, value in typed.items() if value not in (None, ())}
        return cls(**values)

    def script(self) -> Script | None:
        """Return the script that the task is, or None if it is a task."""
        from ratecraft.experiments._script import Script, is_script

        options = {name: getattr(self, name) for name in ("launch", "metric", "timeout")}
        given_options = {name: value for name, value in options.items() if value is not None}
        if not is_script(self.task):
            unused = [f"--{name}" for name in given_options] + ["arguments after --"] * bool(
                self.arguments
            )
            if unused:
                raise SettingError(
                    f"{' and '.join(unused)}: only for a script, such as train.py, not for a task"
                )
            return None
        return Script(self.task, self.arguments, **given_options)

    def candidates(self, script: Script | None = None) -> Any:
        """Return the schedules by name; for a script their texts, or none if it has its own."""
        from ratecraft.experiments._plateau import Plateau, parse_candidate

        if script is not None and script.takes("schedule"):
            return self.schedules
        if script is not None and not self.schedules:
            return ()
        if not self.schedules:
            raise ScheduleError(
                'compare needs schedules, for example: ratecraft compare digits "cosine(1, 0)"'
            )
        if isinstance(self.schedules, Mapping):
            return {name: parse_candidate(text) for name, text in self.schedules.items()}
        return schedules_by_name(map(parse_candidate, self.schedules), (Schedule, Plateau))

    def lr_values(self) -> list[float]:
        """Return the learning rates; empty if the learning rate is to be found."""
        if self.lrs is None or self.lrs == "find":
            return []
        return [_parse_lr(text) for text in _split(self.lrs)]

    def optimizer_names(self) -> list[str] | None:
        """Return the names of the optimizers, or None to use the task's."""
        return None if self.optimizers is None else _split(self.optimizers)

    def lengths(self) -> list[int | Duration]:
        """Return the lengths of the runs."""
        text = "epochs(10)" if self.total_steps is None else self.total_steps
        return [parse_length(part) for part in _split(text)]

    def shard_index(self) -> tuple[int, int]:
        """Return the shard to train as (i, n): the i-th of n, counted from 1."""
        if self.shard is None:
            return 1, 1
        index, _, count = self.shard.partition("/")
        if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
            raise SettingError(f"--shard {self.shard}: expected i/n, such as 1/8 up to 8/8")
        if int(count) > 1 and self.store is None:
            raise SettingError("--shard needs its own --store; ratecraft merge combines the stores")
        if int(count) > 1 and not self.lr_values():
            raise SettingError(
                "--shard needs lrs, such as --lrs 0.001,0.01: every shard would find a different lr"
            )
        return int(index), int(count)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _parse_lr(text: str) -> float:
    with suppress(ValueError):
        if (lr := float(text)) >= 0:
            return lr
    raise SettingError(f'--lrs {text!r}: expected a number >= 0, or "find"')


LIST_KEYS: Final = ("schedules", "lrs", "optimizers", "total_steps", "output", "arguments")
FILE_KEYS: Final = ("store", "save", "forecast")
VALUE_TYPES: Final[dict[str, tuple[str, tuple[type, ...]]]] = {
    "task": ("a string", (str,)),
    "schedules": ("strings, or a table of strings", (str,)),
    "lrs": ('numbers, or "find"', (int, float, str)),
    "optimizers": ("strings", (str,)),
    "total_steps": ("numbers of steps or durations", (int, str)),
    "output": ("file names", (str,)),
    **dict.fromkeys(("seeds", "workers"), ("an integer", (int,))),
    "arguments": ("strings", (str,)),
    **dict.fromkeys(("cpus", "gpus", "timeout"), ("a number", (int, float))),
    **dict.fromkeys(("engine", "address", "shard", "launch", "metric"), ("a string", (str,))),
    **dict.fromkeys(FILE_KEYS, ("a file name", (str,))),
    **dict.fromkeys(("halving", "branches", "quiet"), ("true or false", (bool,))),
}
"""Key -> what its value, or each item of a list, must be, and the types of that."""


def _read_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file as options; paths are relative to the folder of the file."""
    import difflib
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not a valid TOML file: {error}") from None
    except RecursionError:
        raise SettingError(f"{path} is not a valid TOML file: it is nested too deeply") from None
    for name, value in values.items():
        if name not in VALUE_TYPES:
            close = difflib.get_close_matches(name, VALUE_TYPES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(VALUE_TYPES)}"
            raise SettingError(f"{path}: unknown key {name!r}; {hint}")
        values[name] = _option_value(path, name, value)
    if "task" not in values:
        raise SettingError(f'{path}: task is missing; write task = "my_task.py:task"')
    return values


def _option_value(path: Path, name: str, value: Any) -> Any:
    expected, types = VALUE_TYPES[name]
    if name == "schedules" and isinstance(value, dict):
        items = list(value.values())
    elif name in LIST_KEYS and isinstance(value, list):
        items = value
    else:
        items = [value]
    # bool is a subclass of int.
    if not items or any(type(item) not in types for item in items):
        raise SettingError(f"{path}: {name} = {value!r}; expected {expected}")
    folder = path.parent
    if name == "schedules":
        return value if isinstance(value, dict) else items
    if name == "output":
        return tuple(folder / item for item in items)
    if name == "arguments":
        return tuple(items)
    if name in LIST_KEYS:
        return ",".join(map(str, items))  # as on the command line
    if name in FILE_KEYS:
        return folder / value
    if name == "task" and (value.rpartition(":")[0] or value).endswith(".py"):
        return str(folder / value)
    return value
