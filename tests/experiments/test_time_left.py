"""The estimate of the time that a comparison still takes."""

import heapq

import pytest

from ratecraft.experiments._time_left import TimeLeft


def test_no_step_gives_no_estimate() -> None:
    estimate = TimeLeft({"a": 100, "b": 100})
    assert estimate.seconds(2) is None
    estimate.start("a")
    estimate.report("a", 1, 0.0)  # the first step has no time
    assert estimate.seconds(2) is None


def test_running_and_waiting_jobs_take_the_mean_time_of_a_step() -> None:
    estimate = TimeLeft({"a": 101, "b": 101, "c": 101})
    estimate.start("a")
    estimate.start("b")
    estimate.report("a", 51, 5.0)
    estimate.report("b", 51, 10.0)
    # 0.15 s a step, 50 steps of each running job, and then 101 of the third.
    assert estimate.seconds(2) == pytest.approx(0.15 * (50 + 101))
    assert estimate.seconds(3) == pytest.approx(0.15 * 101)
    assert estimate.done_steps == 102
    assert estimate.planned_steps == 303


def test_a_job_that_ended_early_counts_as_done_but_not_as_fast() -> None:
    estimate = TimeLeft({"a": 100, "b": 100})
    estimate.start("a")
    estimate.end("a", steps=10, seconds=1.0, overhead=0.0)  # it diverged
    assert estimate.done_steps == 100
    assert estimate.seconds(1) == pytest.approx(10.0)


def test_a_job_whose_worker_died_starts_again() -> None:
    estimate = TimeLeft({"a": 100})
    estimate.start("a")
    estimate.report("a", 61, 6.0)
    estimate.start("a")
    assert estimate.done_steps == 0
    assert estimate.seconds(1) is None


def test_time_to_start_a_job_counts_once_every_slot_has_started_two() -> None:
    estimate = TimeLeft({"a": 10, "b": 10, "c": 10})
    for job, overhead in (("a", 5.0), ("b", 0.5)):
        estimate.start(job)
        assert estimate.seconds(1) in (None, pytest.approx(2.0))
        estimate.end(job, steps=10, seconds=1.0, overhead=overhead)
    assert estimate.seconds(1) == pytest.approx(1.5)


def test_nothing_is_left_after_the_last_job() -> None:
    estimate = TimeLeft({"a": 10})
    estimate.start("a")
    estimate.end("a", steps=0, seconds=0.0, overhead=0.0)  # it failed
    assert estimate.seconds(1) == 0.0
    assert TimeLeft({}).seconds(1) == 0.0


@pytest.mark.parametrize("slots", [1, 2, 5, 40])
@pytest.mark.parametrize("jobs", [1, 3, 12, 40])
def test_every_estimate_is_within_half_of_the_truth(slots: int, jobs: int) -> None:
    # In a simulated comparison, workers start in 4 s and jobs in half a second. A job has 500
    # steps of 9 to 11 ms, and reports twice a second.
    events: list[tuple[float, str, int]] = []
    free, step_seconds = [4.0] * slots, [0.009 + 0.001 * (job % 3) for job in range(jobs)]
    for job in range(jobs):
        start = heapq.heappop(free)
        first_step, end = start + 0.5, start + 0.5 + 500 * step_seconds[job]
        heapq.heappush(free, end)
        times = [first_step + 0.5 * i for i in range(1, 10) if first_step + 0.5 * i < end]
        events += [(start, "start", job), (end, "end", job)]
        events += [(time, "report", job) for time in times]
    estimate, begin = TimeLeft(dict.fromkeys(range(jobs), 500)), dict[int, float]()
    for time, event, job in sorted(events, key=lambda event: (event[0], event[1])):
        if event == "start":
            begin[job] = time + 0.5
            estimate.start(job)
        elif event == "report":
            seconds = time - begin[job]
            estimate.report(job, 1 + round(seconds / step_seconds[job]), seconds)
            truth = max(free) - time
            assert truth / 1.5 < estimate.seconds(slots) < truth * 1.5
        else:
            overhead = 0.5 + (4.0 if job < slots else 0.0)
            estimate.end(job, 500, 500 * step_seconds[job], overhead)
    assert estimate.done_steps == 500 * jobs
