"""Script: a training script of the user's own, which `compare` runs once for each trial."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from ratecraft.errors import SettingError, TaskError
from ratecraft.results._run import SCRIPT_SCHEDULE

from ._trials import Trial


class ScriptSchedule(str):
    """A schedule that a script has of its own, by the name that the script gives it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{SCRIPT_SCHEDULE}{self}"


@dataclass(frozen=True, slots=True)
class Script:
    """A training script, which `compare` runs once for each trial, in a process of its own.

    The script calls `ratecraft.trial` for the lr, schedule and seed, and logs with
    `ScriptTrial.log`; see there. A script without these lines gets the values as arguments: in
    them, ``{lr}``, ``{seed}``, ``{schedule}``, ``{optimizer}``, ``{total_steps}`` and
    ``{directory}`` stand for the values of the trial. Its log may then be a file that
    `ratecraft.forecasting.read_logs` reads, in the directory of the trial, or its output.

    A trial is known by the script, what it imports from its own folder, its arguments and the files
    that these name: if one of them has changed, it is run again. A trial has one CPU thread unless
    ``OMP_NUM_THREADS`` is set, so that all engines give the same numbers.

    Each trial has a directory, which is kept when the trial is started again: a script that loads
    its own checkpoint from there continues. It has the log, the output and the script's files.

    Args:
        file: the Python file.
        arguments: its arguments.
        launch: command in front of the file, such as "torchrun --standalone --nproc-per-node 2";
            Python if empty.
        metric: name of the logged loss by which runs are compared; default a validation loss
            (``val_loss``, ``eval_loss``, ...).
        timeout: seconds after which a trial is stopped; default none.
        directory: folder for the directories of the trials; default ``<store>.trials``, or a
            temporary folder if there is no store.

    Raises:
        TaskError: there is no such file.
        SettingError: ``arguments`` is no list, or ``timeout`` is not positive.
    """

    file: str
    arguments: tuple[str, ...] = ()
    launch: str = ""
    metric: str = ""
    timeout: float | None = None
    directory: str = ""
    source_hash: str = field(default="", init=False, repr=False)
    uses_ratecraft: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.arguments, str) or not isinstance(self.arguments, Sequence):
            raise SettingError(
                f'Script(arguments={self.arguments!r}): expected a list, such as ["--lr", "{{lr}}"]'
            )
        if os.name != "posix":
            raise TaskError("a script is run as a trial on Linux and macOS only")
        if self.timeout is not None and not self.timeout > 0:
            raise SettingError(f"timeout {self.timeout}: expected seconds > 0")
        if not Path(self.file).is_file():
            raise TaskError(f"there is no file {self.file}")
        object.__setattr__(self, "file", str(self.file))
        object.__setattr__(self, "arguments", tuple(map(str, self.arguments)))
        sources = _sources(Path(self.file))
        object.__setattr__(self, "uses_ratecraft", any(b"ratecraft" in x for x in sources))
        settings = [path.read_bytes() for x in self.arguments if (path := Path(x)).is_file()]
        contents = [hashlib.sha256(content).hexdigest() for content in (*sources, *settings)]
        identity = [contents, self.arguments, self.launch, self.metric]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        object.__setattr__(self, "source_hash", digest)

    def __repr__(self) -> str:
        options = {
            "arguments": list(self.arguments),
            "launch": self.launch,
            "metric": self.metric,
            "timeout": self.timeout,
            "directory": self.directory,
        }
        texts = [f"{name}={value!r}" for name, value in options.items() if value]
        return f"Script({', '.join([repr(self.file), *texts])})"

    def __str__(self) -> str:
        """The command, as a shell takes it."""
        return " ".join([*shlex.split(self.launch), self.file, *map(_quoted, self.arguments)])

    def takes(self, name: str) -> bool:
        """Return whether an argument has the placeholder of a name."""
        return any(f"{{{name}}}" in argument for argument in self.arguments)

    def command(self, trial: Trial, directory: Path) -> list[str]:
        """Return the command of a trial."""
        values: Mapping[str, Any] = {
            "lr": repr(trial.lr),
            "seed": trial.seed,
            "schedule": trial.schedule.removeprefix(SCRIPT_SCHEDULE),
            "optimizer": trial.optimizer or "",
            "total_steps": trial.total_steps,
            "directory": directory,
        }
        arguments = list(self.arguments)
        for name, value in values.items():
            arguments = [text.replace(f"{{{name}}}", str(value)) for text in arguments]
        return [*self.launcher(), self.file, *arguments]

    def launcher(self) -> list[str]:
        """Return the command in front of the file, or raise a SettingError if it does not exist."""
        if not self.launch:
            return [sys.executable]
        program, *options = shlex.split(self.launch)
        # An environment that is not activated has its programs next to its Python.
        folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        path = shutil.which(program, path=folders)
        if path is None:
            raise SettingError(f"launch {self.launch!r}: there is no program {program!r}")
        return [path, *options]


def _sources(file: Path) -> list[bytes]:
    """Return the content of a script and of what it imports from its own folder."""
    finder = ModuleFinder(path=[str(file.parent)])
    with suppress(SyntaxError, ValueError, OSError):  # its trial will report the error
        finder.run_script(str(file))
    modules: dict[str, Any] = finder.modules
    paths = {str(module.__file__) for module in modules.values() if module.__file__}
    return [file.read_bytes(), *(Path(path).read_bytes() for path in sorted(paths - {str(file)}))]


def is_script(task: object) -> bool:
    """Return whether a task is the name of a file of a script, not of a function in a file."""
    return isinstance(task, str) and task.endswith(".py")


def _quoted(argument: str) -> str:
    return argument if set(argument) & {"{", "}"} else shlex.quote(argument)
