"""The time that a comparison still takes, from the steps that its jobs have trained."""

import heapq
from collections.abc import Hashable, Mapping


class TimeLeft:
    """Steps of jobs, planned and done, and an estimate of the time for the rest.

    The estimate gives the waiting jobs to the slots in order, each to the first that is free. A
    job takes the mean time of a step so far times its steps, and some time to start: the shortest
    so far, once every slot has started a second job. The first one of a slot also starts the
    worker and imports the task.

    Attributes:
        planned_steps: steps of all jobs.
        ended_steps: planned steps of the jobs that have ended.
    """

    def __init__(self, planned: Mapping[Hashable, int]) -> None:
        self.planned_steps = sum(planned.values())
        self.ended_steps = 0
        self._waiting = dict(planned)
        self._planned, self._running = planned, dict[Hashable, tuple[int, float]]()
        self._steps, self._seconds = 0, 0.0  # trained by the jobs that have ended
        self._overheads: list[float] = []

    @property
    def done_steps(self) -> int:
        """Number of steps that need no more time: trained, or left out by a run that ended."""
        return self.ended_steps + sum(
            min(steps, self._planned[job]) for job, (steps, _) in self._running.items()
        )

    def start(self, job: Hashable) -> None:
        """Start a job, or start it again."""
        self._waiting.pop(job, None)
        self._running[job] = 0, 0.0

    def report(self, job: Hashable, steps: int, seconds: float) -> None:
        """Set the number of steps of a running job, and the seconds for all but the first."""
        self._running[job] = steps, seconds

    def end(self, job: Hashable, steps: int, seconds: float, overhead: float) -> None:
        """End a job, which trained these steps in these seconds, and took others to start."""
        del self._running[job]
        self.ended_steps += self._planned[job]
        self._steps += steps
        self._seconds += seconds
        self._overheads.append(overhead)

    def seconds(self, slots: int) -> float | None:
        """Return the estimated seconds until all jobs have ended, or None before any step."""
        if not self._waiting and not self._running:
            return 0.0
        # The first step of a running job has no time.
        reported = [(steps - 1, seconds) for steps, seconds in self._running.values() if steps > 1]
        steps = self._steps + sum(count for count, _ in reported)
        if not steps:
            return None
        step_seconds = (self._seconds + sum(seconds for _, seconds in reported)) / steps
        overhead = min(self._overheads) if len(self._overheads) > slots else 0.0
        ends = [
            max(self._planned[job] - done, 0) * step_seconds
            for job, (done, _) in self._running.items()
        ]
        ends += [0.0] * (slots - len(ends))
        heapq.heapify(ends)
        for planned in self._waiting.values():
            heapq.heapreplace(ends, ends[0] + overhead + planned * step_seconds)
        return max(ends)
