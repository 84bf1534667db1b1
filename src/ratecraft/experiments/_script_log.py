"""What a script has logged in the directory of its trial."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ratecraft._trial import LOG_NAME
from ratecraft.errors import LogError
from ratecraft.forecasting._log_columns import column_key
from ratecraft.forecasting._read_logs import read_columns
from ratecraft.results import Evaluation

from ._run_command import OUTPUT_NAME

VALIDATION_LOSSES: Final = ("val_loss", "eval_loss", "valid_loss", "validation_loss", "test_loss")
TRAINING_LOSSES: Final = ("loss", "train_loss", "training_loss")
VALIDATION_PREFIXES: Final = ("val_", "eval_", "valid_", "validation_", "test_")
TIME_SUFFIXES: Final = ("runtime", "per_second", "time")  # which differ from run to run
LR_NAMES: Final = ("lr", "learning_rate")
LOG_PATTERNS: Final = ("*.jsonl", "*.csv", "*.tsv", "*.json", "*tfevents*")
OWN_FILES: Final = ("trial.json", LOG_NAME, OUTPUT_NAME, "lock")


class ScriptLog:
    """The rows and the events in the log of a trial; `read` adds what is new in the file.

    If the script was started again, rows from the first new step on are those of the last start.

    Attributes:
        rows: the numbers of each step, by name.
        events: what the script has done: "start", and "lr", "schedule", "seed" if it read them.
        schedulers: for each `ScheduleLR`, whether it has the schedule of the trial.
        sizes: "total_steps" and "steps_per_epoch", if a `ScheduleLR` has them.
    """

    def __init__(self, directory: Path) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.events = set[str]()
        self.schedulers: list[bool] = []
        self.sizes: dict[str, float] = {}
        self._path, self._position, self._is_new_start = directory / LOG_NAME, 0, False

    def read(self) -> bool:
        """Read new lines; return whether there were any."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return False
        complete = data[: data.rfind(b"\n") + 1]  # the last line may still be growing
        self._position += len(complete)
        for line in complete.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # its process was killed while it wrote
                continue
            self._add(entry)
        return bool(complete)

    def _add(self, entry: Mapping[str, Any]) -> None:
        event = entry.get("event")
        if event is None:
            step = int(entry["step"])
            if self._is_new_start:
                self._is_new_start = False
                self.rows = {k: row for k, row in self.rows.items() if k < step}
            values = {column_key(name): float(x) for name, x in entry.items() if name != "step"}
            self.rows.setdefault(step, {}).update(values)
            return
        self.events.add(event)
        self._is_new_start = self._is_new_start or event == "start"
        if event == "scheduler":
            self.schedulers.append(bool(entry["used"]))
            sizes = ("total_steps", "steps_per_epoch")
            self.sizes |= {name: entry[name] for name in sizes if entry.get(name)}

    @property
    def last_step(self) -> int:
        """The highest step; 0 if there is no row."""
        return max(self.rows, default=0)

    @property
    def last_loss(self) -> float:
        """The training loss of the last step, or another number of it."""
        row = self.rows[self.last_step]
        name = next((name for name in TRAINING_LOSSES if name in row), next(iter(row)))
        return row[name]


class Measured(NamedTuple):
    """The losses and evaluations in the rows of a log.

    Attributes:
        losses: training losses by step.
        evaluations: in the order of their steps.
        names: all names in the rows.
        total_steps: number of steps.
    """

    losses: Mapping[int, float]
    evaluations: tuple[Evaluation, ...]
    names: tuple[str, ...]
    total_steps: int


def measure(
    rows: Mapping[int, Mapping[str, float]], metric: str, *, foreign: bool = False
) -> Measured:
    """Return the losses and evaluations in rows.

    ``metric`` names the loss that is compared; if it is empty, a validation loss is. Of a foreign
    log, only the metrics of the validation data count.
    """
    names = tuple(dict.fromkeys(name for row in rows.values() for name in row))
    judged = column_key(metric) or next((name for name in VALIDATION_LOSSES if name in names), "")
    training = next((name for name in TRAINING_LOSSES if name in names), "")
    steps = sorted(rows)
    losses = {step: rows[step][training] for step in steps if training in rows[step]}
    left_out = {judged, training, *LR_NAMES}
    evaluations = []
    for step in steps:
        row = rows[step]
        if judged in row:
            others = {
                _metric_name(name): value
                for name, value in row.items()
                if name not in left_out and (not foreign or _is_validation_metric(name))
            }
            lr = [row[name] for name in LR_NAMES if name in row]
            lrs = {"": lr[0]} if lr else {}
            evaluations.append(Evaluation(step, {"loss": row[judged], **others}, lrs=lrs))
    return Measured(losses, tuple(evaluations), names, max([1, *steps]))


def _metric_name(name: str) -> str:
    for prefix in VALIDATION_PREFIXES:
        name = name.removeprefix(prefix)
    return name if name != "loss" else "other_loss"


def _is_validation_metric(name: str) -> bool:
    return name.startswith(VALIDATION_PREFIXES) and not name.endswith(TIME_SUFFIXES)


def first_not_finite(measured: Measured) -> int | None:
    """Return the step of the last loss of each type if it is not finite; else None.

    A loss that was inf once, as with a scaler that then skips the step, is not the last one.
    """
    last = [*list(measured.losses.items())[-1:]]
    last += [(e.step, e.metrics["loss"]) for e in measured.evaluations[-1:]]
    return min((step for step, value in last if not math.isfinite(value)), default=None)


def foreign_rows(directory: Path, metric: str) -> tuple[dict[int, dict[str, float]], str]:
    """Return the rows of a log in another format, or of the output, and what was found if none."""
    read = ""
    expected = {column_key(metric)} if metric else {*VALIDATION_LOSSES}
    for path in _log_files(directory):
        try:
            columns = read_columns(path)
        except LogError:
            continue
        if not expected.isdisjoint(map(column_key, columns)):
            rows: dict[int, dict[str, float]] = {}
            for name, (steps, values) in columns.items():
                for step, value in zip(steps, values, strict=True):
                    if math.isfinite(step):
                        rows.setdefault(int(step), {})[column_key(name)] = value
            return rows, ""
        read = read or f"{path.relative_to(directory)} has {', '.join(columns)}"
    return {}, read


def _log_files(directory: Path) -> Iterator[Path]:
    """Return the files that may be logs, the last changed first, and the output."""
    files = {path for pattern in LOG_PATTERNS for path in directory.rglob(pattern)}
    files = {path for path in files if path.is_file() and path.name not in OWN_FILES}
    yield from sorted(files, key=lambda path: (-path.stat().st_mtime, str(path)))
    if (directory / OUTPUT_NAME).exists():
        yield directory / OUTPUT_NAME
