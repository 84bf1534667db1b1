"""Execution of a plan by an engine, with a Progress for each event; runs are stored."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from ratecraft.errors import RunFailed
from ratecraft.results import Run

from ._engines import Engine
from ._jobs import run_job
from ._plan import TrialPlan
from ._reports import SCRIPT_STEPS, PrintedLines, PrintedText, Report, StepReport, report_to
from ._script import Script
from ._store import Store
from ._task import AnyTask
from ._time_left import TimeLeft
from ._trials import Job, Trial, TrialFailure

MAX_JOB_ATTEMPTS: Final = 3  # of a job whose worker dies
POLL_SECONDS: Final = 0.25  # between two looks at the reports of workers
ESTIMATE_SECONDS: Final = 0.25  # between two estimates of the time left
Event = Literal["resumed", "started", "step", "done", "failed", "restarted"]


@dataclass(frozen=True, slots=True)
class Progress:
    """An event of a comparison, with the state of the comparison after it.

    Attributes:
        event: "resumed", the run was already in the store; "started"; "step", the run has trained
            more steps, about twice a second; "done"; "failed"; "restarted", the worker of the run
            died and the run is tried again.
        name: candidate and seed of the run.
        done: number of complete runs.
        failed: number of runs that raised.
        running: number of runs in progress.
        planned: number of all runs.
        seconds: time since the start of the comparison.
        done_steps: number of steps trained so far, of all runs.
        planned_steps: number of steps of all runs; each run of a script counts as 1,000, since its
            length is not known before.
        left: estimated seconds until the end, from the steps; ``None`` before the first ones.
        best: name of the run with the lowest validation loss so far; empty before the first run.
        best_loss: its loss; ``None`` before the first run.
        step: number of steps of the run so far, at the event "step".
        total_steps: number of steps of the run, at the event "step"; 0 if it is not known.
        loss: training loss of its last step, at the event "step".
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
    done_steps: int
    planned_steps: int
    left: float | None = None
    best: str = ""
    best_loss: float | None = None
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
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
            fields["steps"] = self.run.trained_steps
            fields["took"] = round(self.run.seconds, 3)
            fields["metrics"] = {
                name: value if math.isfinite(value) else None for name, value in last.items()
            }
        return fields


class Execution:
    """The trials of a plan: complete, failed, or still missing.

    Args:
        plan: what to train.
        planned_steps: number of steps of each job.
        store: for the runs, or None.
        source: the task, its name, or a script.
        progress: called with a `Progress` for each event, or None.
    """

    def __init__(
        self,
        plan: TrialPlan,
        planned_steps: Mapping[Job, int],
        store: Store | None,
        source: str | Callable[[], AnyTask] | Script,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._plan, self._store, self._source = plan, store, source
        self._progress, self._start = progress, time.monotonic()
        self._counts = Counter[Event]()
        self._best, self._best_loss = "", math.inf
        self.done = {} if store is None else store.runs(plan.trials)
        self.failed: dict[Trial, TrialFailure] = {}
        self.missing = [job for job in plan.jobs if self._trials_of(job)]
        self._planned_steps = sum(planned_steps.values())
        self._time_left = TimeLeft({job: planned_steps[job] for job in self.missing})
        self._slots, self._next_estimate = 1, 0.0
        self._left: float | None = None
        self._started: dict[Job, float] = {}  # running jobs, and when they started
        self._trials = {trial.key: (trial, job) for job in self.missing for trial in job}
        self._printed = PrintedLines()
        for trial in self.done:
            self._report("resumed", trial)

    def _trials_of(self, job: Job) -> list[Trial]:
        """Return the trials of a job that are not complete."""
        return [trial for trial in job if trial not in self.done]

    def run(self, engine: Engine) -> None:
        """Run all jobs; one whose worker dies is tried again, up to three times in all."""
        try:
            self._run_jobs(engine)
        finally:  # also the last words of a worker that died
            self._printed.flush()

    def _run_jobs(self, engine: Engine) -> None:
        waiting, attempts = deque(self.missing), Counter[Job]()
        running: dict[Future[Any], Job] = {}
        self._slots = engine.slots
        # An engine of the caller's may send no reports.
        reports: Callable[[], Iterable[Report]] = getattr(engine, "reports", tuple)
        while waiting or running:
            while waiting and len(running) < engine.slots:
                job = waiting.popleft()
                attempts[job] += 1
                self._start_job(job)
                with report_to(self._receive):  # a job may run in this process
                    running[engine.submit(run_job, self._source, job)] = job
            # The timeout also lets Windows handle Ctrl-C.
            ended, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for report in reports():
                self._receive(report)
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
                del self._started[job]
                self._time_left.start(job)  # from its first step
                for trial in self._trials_of(job):
                    self._report("restarted", trial)
                waiting.appendleft(job)

    def _start_job(self, job: Job) -> None:
        self._started[job] = time.monotonic()
        self._time_left.start(job)
        for trial in self._trials_of(job):
            self._report("started", trial)

    def _receive(self, report: Report) -> None:
        """Show what a worker reports; one that comes after its run has ended is too late."""
        if isinstance(report, PrintedText):
            self._printed.add(report)
            return
        trial, job = self._trials.get(report.key, (None, ()))
        if trial is not None and job in self._started:
            self._time_left.report(job, report.job_steps, report.job_seconds)
            if trial not in self.done:
                self._report("step", trial, report)

    def _finish(self, job: Job, outcomes: Sequence[Run | TrialFailure]) -> None:
        runs = [outcome for outcome in outcomes if isinstance(outcome, Run)]
        seconds = sum(run.seconds for run in runs)
        overhead = max(time.monotonic() - self._started.pop(job) - seconds, 0.0)
        steps = sum(run.trained_steps for run in runs)
        if isinstance(self._source, Script):
            steps = SCRIPT_STEPS * len(runs)
        self._time_left.end(job, steps, seconds, overhead)
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

    def _report(self, event: Event, trial: Trial, report: StepReport | None = None) -> None:
        counts, run = self._counts, self.done.get(trial)
        counts[event] += 1
        if run is not None and run.final() < self._best_loss:
            self._best, self._best_loss = self._plan.trials[trial], run.final()
        if self._progress is None:
            return
        trained = counts["done"] + counts["failed"]
        steps_left = self._time_left.planned_steps - self._time_left.done_steps
        progress = Progress(
            event,
            self._plan.trials[trial],
            done=counts["resumed"] + counts["done"],
            failed=counts["failed"],
            running=counts["started"] - counts["restarted"] - trained,
            planned=len(self._plan.trials),
            seconds=round(time.monotonic() - self._start, 3),
            done_steps=self._planned_steps - steps_left,
            planned_steps=self._planned_steps,
            left=self._estimate(),
            best=self._best,
            best_loss=self._best_loss if self._best else None,
            step=report and report.step,
            total_steps=report and report.total_steps,
            loss=report and report.loss,
            run=run,
            error=self.failed[trial].line if event == "failed" else "",
        )
        self._progress(progress)

    def _estimate(self) -> float | None:
        """Return the seconds left; thousands of jobs take too long for an estimate per event."""
        now, jobs = time.monotonic(), self._time_left
        is_over = jobs.done_steps == jobs.planned_steps
        if now >= self._next_estimate or self._left is None or is_over:
            self._next_estimate = now + ESTIMATE_SECONDS
            seconds = jobs.seconds(self._slots)
            self._left = None if seconds is None else round(seconds, 3)
        return self._left
