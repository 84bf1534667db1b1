"""Execution of a plan by an engine, with a Progress for each event; runs are stored."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from ratecraft.errors import RunFailed
from ratecraft.results import Run

from ._engines import Engine
from ._jobs import TrialFailure, run_job
from ._store import Store
from ._task import Task
from ._trials import Job, Trial, TrialPlan

MAX_JOB_ATTEMPTS: Final = 3  # of a job whose worker dies
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
        values = asdict(replace(self, run=None))
        fields = {name: value for name, value in values.items() if value is not None}
        if self.run is not None:
            names = ("schedule", "lr", "optimizer", "seed", "diverged", "stopped")
            fields |= {name: getattr(self.run, name) for name in names}
            last = self.run.evaluations[-1].metrics if self.run.evaluations else {}
            fields["steps"] = len(self.run.losses)
            fields["took"] = round(self.run.seconds, 3)
            fields["metrics"] = {
                name: value if math.isfinite(value) else None for name, value in last.items()
            }
        return fields


class Execution:
    """The trials of a plan: complete, failed, or still missing."""

    def __init__(
        self,
        plan: TrialPlan,
        store: Store | None,
        source: str | Callable[[], Task],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._plan, self._store, self._source = plan, store, source
        self._progress, self._start = progress, time.monotonic()
        self._counts = Counter[Event]()
        self._best, self._best_loss = "", math.inf
        self.done = {} if store is None else store.runs(plan.trials)
        self.failed: dict[Trial, TrialFailure] = {}
        for trial in self.done:
            self._report("resumed", trial)
        self.missing = [job for job in plan.jobs if self._trials_of(job)]

    def _trials_of(self, job: Job) -> list[Trial]:
        """Return the trials of a job that are not complete."""
        return [trial for trial in job if trial not in self.done]

    def run(self, engine: Engine) -> None:
        """Run all jobs; one whose worker dies is tried again, up to three times in all."""
        waiting, attempts = deque(self.missing), Counter[Job]()
        running: dict[Future[Any], Job] = {}
        while waiting or running:
            while waiting and len(running) < engine.slots:
                job = waiting.popleft()
                attempts[job] += 1
                for trial in self._trials_of(job):
                    self._report("started", trial)
                running[engine.submit(run_job, self._source, job)] = job
            # The timeout lets Windows handle Ctrl-C.
            ended, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in ended:
                job = running.pop(future)
                if not isinstance(future.exception(), BrokenExecutor):
                    self._finish(job, future.result())
                    continue
                if attempts[job] == MAX_JOB_ATTEMPTS:
                    raise RunFailed(
                        f"a worker process died {MAX_JOB_ATTEMPTS} times while training one run "
                        "(out of memory, or killed); try fewer workers, or workers=0 to see the "
                        "error in this process"
                    )
                for trial in self._trials_of(job):
                    self._report("restarted", trial)
                waiting.appendleft(job)

    def _finish(self, job: Job, outcomes: Sequence[Run | TrialFailure]) -> None:
        for trial, outcome in zip(job, outcomes, strict=True):
            if trial in self.done:
                continue
            if isinstance(outcome, Run):
                if self._store is not None:
                    self._store.save(trial, outcome)
                self.done[trial] = outcome
                self._report("done", trial)
            else:
                self.failed[trial] = outcome
                self._report("failed", trial)

    def _report(self, event: Event, trial: Trial) -> None:
        counts, name, run = self._counts, self._plan.trials[trial], self.done.get(trial)
        counts[event] += 1
        if run is not None and run.final() < self._best_loss:
            self._best, self._best_loss = name, run.final()
        if self._progress is None:
            return
        seconds = time.monotonic() - self._start
        trained = counts["done"] + counts["failed"]
        done, planned = counts["resumed"] + counts["done"], len(self._plan.trials)
        rest = planned - done - counts["failed"]
        self._progress(
            Progress(
                event,
                name,
                done=done,
                failed=counts["failed"],
                running=counts["started"] - counts["restarted"] - trained,
                planned=planned,
                seconds=round(seconds, 3),
                left=round(seconds / trained * rest, 3) if trained else None,
                best=self._best,
                best_loss=self._best_loss if self._best else None,
                run=run,
                error=self.failed[trial].line if event == "failed" else "",
            )
        )
