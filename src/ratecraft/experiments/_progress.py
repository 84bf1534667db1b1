"""Progress events of a comparison, as plain values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ratecraft.results import Run

Event = Literal["resumed", "started", "done", "failed", "restarted"]


@dataclass(frozen=True, slots=True)
class Progress:
    """An event of a comparison, with the state of the comparison after it.

    Attributes:
        event: "resumed", the run was already in the store; "started"; "done"; "failed";
            "restarted", the worker of the run died and the run is tried again.
        name: candidate and seed of the run.
        done: number of complete runs.
        failed: number of runs that raised.
        running: number of runs in progress.
        planned: number of all runs.
        seconds: time since the start of the comparison.
        left: estimated seconds until the end; ``None`` before the first run has ended.
        best: name of the run with the lowest validation loss so far; empty before the first run.
        best_loss: its loss; ``None`` before the first run.
        run: the run, if it is complete.
        error: why the run failed, in one line.
    """

    event: Event
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
        """Return the event as plain data for JSON, with the final metrics of the run."""
        names = [name for name in self.__slots__ if name != "run"]
        fields = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.run is not None:
            last = self.run.evaluations[-1] if self.run.evaluations else None
            fields |= {
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
        return fields


class ProgressReporter:
    """Count the events of a comparison and pass each one to a callback.

    Args:
        planned: number of all runs.
        callback: called with a `Progress` for each event; None for no reports.
    """

    def __init__(self, planned: int, callback: Callable[[Progress], None] | None) -> None:
        self._planned, self._callback = planned, callback
        self._start = time.monotonic()
        self._done = self._trained = self._failed = self._running = 0
        self._best, self._best_loss = "", math.inf

    def resumed(self, name: str, run: Run) -> None:
        """Report a run that was already in the store."""
        self._done += 1
        self._report("resumed", name, run)

    def started(self, name: str) -> None:
        """Report that a worker has started a run."""
        self._running += 1
        self._report("started", name)

    def restarted(self, name: str) -> None:
        """Report that the worker of a run died."""
        self._running -= 1
        self._report("restarted", name)

    def done(self, name: str, run: Run) -> None:
        """Report a complete run."""
        self._running -= 1
        self._done += 1
        self._trained += 1
        self._report("done", name, run)

    def failed(self, name: str, error: str) -> None:
        """Report a run that raised."""
        self._running -= 1
        self._failed += 1
        self._trained += 1
        self._report("failed", name, error=error)

    def _report(self, event: Event, name: str, run: Run | None = None, error: str = "") -> None:
        if run is not None and run.final() < self._best_loss:
            self._best, self._best_loss = name, run.final()
        if self._callback is None:
            return
        seconds = time.monotonic() - self._start
        rest = self._planned - self._done - self._failed
        self._callback(
            Progress(
                event,
                name,
                self._done,
                self._failed,
                self._running,
                self._planned,
                round(seconds, 3),
                round(seconds / self._trained * rest, 3) if self._trained else None,
                self._best,
                self._best_loss if self._best else None,
                run,
                error,
            )
        )
