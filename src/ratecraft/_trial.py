"""trial: the lr, schedule and seed of a training script, set by `compare` if it runs it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from operator import index
from pathlib import Path
from typing import Any, Final, SupportsFloat, SupportsIndex

from ratecraft.errors import SettingError
from ratecraft.schedule import Schedule, parse

TRIAL_VARIABLE: Final = "RATECRAFT_TRIAL"
"""Environment variable with the path of the trial's file; `compare` sets it for a script."""
LOG_NAME: Final = "log.jsonl"  # in the directory of a trial
RANK_VARIABLES: Final = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")

_active: list[ScriptTrial] = []  # the trials of this process, the last one first


def trial(
    *,
    lr: float,
    schedule: Schedule | str,
    seed: int = 0,
    log: str | os.PathLike[str] | None = None,
) -> ScriptTrial:
    """Return the learning rate, schedule and seed with which a training script is to run.

    They are the arguments if you run the script yourself. If `ratecraft compare` runs it, they
    are those of the trial, and `ScriptTrial.log` writes to the log that it reads::

        trial = ratecraft.trial(lr=3e-4, schedule=warmup(500).then(cosine()))
        torch.manual_seed(trial.seed)
        scheduler = ScheduleLR(optimizer, lr=trial.lr * trial.schedule, total_steps=n)
        ...
        trial.log(step, loss=loss, val_loss=val_loss)

    Args:
        lr: learning rate that the schedule multiplies.
        schedule: a `Schedule`, or its text, as a factor of ``lr``.
        seed: seed of the random numbers.
        log: file of JSON lines that `ScriptTrial.log` appends to, if you run the script yourself.

    Raises:
        SettingError: ``lr`` is not a number >= 0, or ``seed`` not a whole number.
        ScheduleError: the text is not a schedule.

    >>> from ratecraft import cosine, trial
    >>> trial(lr=3e-4, schedule=cosine())
    trial(lr=0.0003, schedule=cosine(1, 0), seed=0)
    """
    path = os.environ.get(TRIAL_VARIABLE)
    if path is None:
        made = ScriptTrial(lr, schedule, seed, None if log is None else Path(log))
    else:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        log_path = Path(path).with_name(LOG_NAME)
        chosen = values["schedule"] or schedule  # without one, the script's own is used
        made = ScriptTrial(values["lr"], chosen, values["seed"], log_path, managed=True)
    _active.insert(0, made)
    return made


class ScriptTrial:
    """The values of a run of a training script, and its log; made by `trial`.

    Attributes:
        directory: folder for files of this run alone, such as checkpoints. `compare` keeps it when
            it starts the script again; by hand it is the folder of ``log``, or the current one.
    """

    def __init__(
        self,
        lr: float,
        schedule: Schedule | str,
        seed: int,
        log: Path | None,
        *,
        managed: bool = False,
    ) -> None:
        number = float(lr) if isinstance(lr, SupportsFloat) and not isinstance(lr, bool) else -1.0
        if not 0 <= number < math.inf:
            raise SettingError(f"trial(lr={lr!r}): expected a number >= 0")
        if not isinstance(seed, SupportsIndex) or isinstance(seed, bool):
            raise SettingError(f"trial(seed={seed!r}): expected a whole number")
        self._lr, self._seed = number, index(seed)
        self._schedule = parse(schedule) if isinstance(schedule, str) else schedule
        if not isinstance(self._schedule, Schedule):
            raise SettingError(f"trial(schedule={schedule!r}): expected a Schedule or its text")
        self.directory = Path() if log is None else log.parent
        self._log = log if _is_first_rank() else None
        self._is_managed = managed
        self._events = set[str]()
        self._event("start")

    def __repr__(self) -> str:
        return f"trial(lr={self._lr!r}, schedule={self._schedule!r}, seed={self._seed})"

    @property
    def lr(self) -> float:
        """Learning rate that the schedule multiplies."""
        self._event("lr")
        return self._lr

    @property
    def schedule(self) -> Schedule:
        """The schedule, a factor of ``lr``."""
        self._event("schedule")
        return self._schedule

    @property
    def seed(self) -> int:
        """Seed of the random numbers."""
        self._event("seed")
        return self._seed

    def log(self, step: int, /, **metrics: SupportsFloat) -> None:
        """Log numbers of a step, such as ``loss=`` and ``val_loss=``.

        Only the first process of a distributed run logs. Without a log file nothing is done.

        Args:
            step: number of the step.
            metrics: numbers by name. `compare` compares runs by ``val_loss``; ``loss`` is the
                training loss; a name that begins with ``val_`` is a validation metric.

        Raises:
            SettingError: no number, or a value that is not one.
        """
        if not isinstance(step, SupportsIndex) or isinstance(step, bool):
            raise SettingError(f"trial.log({step!r}, ...): expected the number of the step")
        if not metrics:
            raise SettingError("trial.log(step) has no number: write trial.log(step, loss=loss)")
        row: dict[str, float] = {"step": index(step)}
        for name, value in metrics.items():
            try:
                detach = getattr(value, "detach", None)  # a loss has a gradient
                row[name] = float(detach() if callable(detach) else value)
            except (TypeError, ValueError, RuntimeError):
                raise SettingError(
                    f"trial.log({step}, {name}=...) is {type(value).__name__}; expected a number"
                ) from None
        self._write(row)

    def note(self, config: Any) -> None:
        """Log whether a `ScheduleConfig` has the trial's schedule, and the length of its run."""
        if not self._is_managed:
            return
        schedules = config.schedules["lr"]
        values = schedules.values() if isinstance(schedules, Mapping) else [schedules]
        entry: dict[str, Any] = {"event": "scheduler"}
        entry["used"] = any(_contains(value, self._schedule) for value in values)
        length = config.run_length()
        if config.clock_unit == "steps" and math.isfinite(length):
            entry |= {"total_steps": int(length), **config.unit_sizes}
        self._write(entry)

    def _event(self, name: str) -> None:
        if self._is_managed and name not in self._events:
            self._events.add(name)
            self._write({"event": name})

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._log is None:
            return
        line = json.dumps(row) + "\n"
        if row.get("event") == "start":
            line = "\n" + line  # the end of a process that was killed while it wrote
        with self._log.open("a", encoding="utf-8") as file:
            file.write(line)


def _is_first_rank() -> bool:
    values = (os.environ.get(name) for name in RANK_VARIABLES)
    return next((value for value in values if value), "0") == "0"


def note_scheduler(config: Any) -> None:
    """Log in the active trial, if there is one, the ``config`` of a new `ScheduleLR`."""
    if _active:
        _active[0].note(config)


def _contains(value: Any, schedule: Schedule) -> bool:
    """Return whether a schedule is, or is built from, another one."""
    if value == schedule:
        return True
    fields = getattr(value, "_fields", ())
    parts = [getattr(value, name) for name in fields] if fields else value
    return isinstance(parts, list | tuple) and any(_contains(part, schedule) for part in parts)


trial.__module__ = ScriptTrial.__module__ = "ratecraft"  # as users import it
