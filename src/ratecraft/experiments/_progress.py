"""What a comparison tells while it runs, as plain values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ratecraft.results import Run


@dataclass(frozen=True, slots=True)
class Progress:
    """Something that happened in a comparison, and where it stands.

    Attributes:
        what: "kept", a run was in the store already; "started"; "done"; "failed"; "again", its
            worker died and it is tried once more.
        name: the run it happened to: candidate and seed.
        done: runs that are there.
        failed: runs that raised.
        running: runs on their way.
        planned: all of them.
        seconds: since the comparison began.
        left: seconds that the rest will take, if it goes on like this; ``None`` before the first.
        best: the run with the lowest validation loss so far, by name, and
        best_loss: its loss; ``None`` before the first.
        run: the run, if it is there.
        error: why it is not, in one line.
    """

    what: Literal["kept", "started", "done", "failed", "again"]
    name: str
    done: int
    failed: int
    running: int
    planned: int
    seconds: float
    left: float | None = None
    best: str = ""
    best_loss: float | None = None
    run: Run | None = None
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return this as plain data for JSON; of the run its ends alone."""
        names = [name for name in self.__slots__ if name != "run"]
        told = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.run is not None:
            last = self.run.evaluations[-1] if self.run.evaluations else None
            told |= {
                "schedule": self.run.schedule,
                "lr": self.run.lr,
                "optimizer": self.run.optimizer,
                "seed": self.run.seed,
                "steps": len(self.run.losses),
                "diverged": self.run.diverged,
                "stopped": self.run.stopped,
                "took": round(self.run.seconds, 3),
                "metrics": {
                    name: value if math.isfinite(value) else None
                    for name, value in (last.metrics if last else {}).items()
                },
            }
        return told


class ProgressReporter:
    """Counts what happens, and tells it."""

    def __init__(self, planned: int, hear: Callable[[Progress], None] | None) -> None:
        self._planned, self._hear = planned, hear
        self._began = time.monotonic()
        self._done = self._fresh = self._failed = self._running = 0
        self._best, self._loss = "", math.inf

    def kept(self, name: str, run: Run) -> None:
        """A run was there before."""
        self._done += 1
        self._tell("kept", name, run)

    def started(self, name: str) -> None:
        """A run is given to a worker."""
        self._running += 1
        self._tell("started", name)

    def again(self, name: str) -> None:
        """A run's worker died."""
        self._running -= 1
        self._tell("again", name)

    def done(self, name: str, run: Run) -> None:
        """A run ended."""
        self._running -= 1
        self._done += 1
        self._fresh += 1
        self._tell("done", name, run)

    def failed(self, name: str, error: str) -> None:
        """A run raised."""
        self._running -= 1
        self._failed += 1
        self._fresh += 1
        self._tell("failed", name, error=error)

    def _tell(self, what: Any, name: str, run: Run | None = None, error: str = "") -> None:
        if run is not None and run.final() < self._loss:
            self._best, self._loss = name, run.final()
        if self._hear is None:
            return
        seconds = time.monotonic() - self._began
        rest = self._planned - self._done - self._failed
        self._hear(
            Progress(
                what,
                name,
                self._done,
                self._failed,
                self._running,
                self._planned,
                round(seconds, 3),
                round(seconds / self._fresh * rest, 3) if self._fresh else None,
                self._best,
                self._loss if self._best else None,
                run,
                error,
            )
        )
