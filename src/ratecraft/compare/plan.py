"""What is to be trained: trials, each with an identity that does not change."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import ratecraft
from ratecraft.compare.task import BUILT_IN, Task, reference

__all__ = ["Trial", "source_of"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run to be made.

    Attributes:
        task: the name by which a worker finds the task.
        source: what the task's code was, as a hash; other code is another trial.
        schedule: the text of the schedule.
        rate: what the schedule multiplies.
        optimizer: an optimizer in place of the task's own, or None.
        seed: of initial weights and data order.
        total: length of the run, as text.
    """

    task: str
    source: str
    schedule: str
    rate: float
    optimizer: str | None
    seed: int
    total: str

    @property
    def key(self) -> str:
        """What this trial is known by: a hash of all that decides its result."""
        told = {name: value for name, value in asdict(self).items() if name != "task"}
        # A task may be named by a relative path, or from another folder; its code is what counts.
        told["task"] = self.task.rpartition("/")[2]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def source_of(task: str | Callable[[], Task]) -> str:
    """Return a hash of the code that a task is made by: its file, or this package's version.

    What that file imports is not in it.
    """
    name = task if isinstance(task, str) else reference(task)
    if name in BUILT_IN:
        return f"ratecraft {ratecraft.__version__}"
    place = name.rpartition(":")[0]
    if not place.endswith(".py"):
        module = importlib.util.find_spec(place)
        place = "" if module is None else module.origin or ""
    file = Path(place)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""
