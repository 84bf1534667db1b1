"""compare: every schedule with every seed, as one record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy
import torch

import ratecraft
from ratecraft.compare.engines import LocalEngine, cores
from ratecraft.compare.loop import start, train
from ratecraft.compare.task import Task, build_task, load_task, reference, with_optimizer
from ratecraft.errors import RunFailed, ScheduleError
from ratecraft.finder.preserve import preserved_rng
from ratecraft.records import Comparison, Run
from ratecraft.schedule import Duration, Schedule, epochs, parse, parse_length

__all__ = ["compare"]


def compare(
    task: str | Callable[[], Task],
    schedules: Mapping[str, Schedule] | Sequence[Schedule],
    *,
    rate: float,
    seeds: int | Sequence[int] = 3,
    total: int | Duration | None = None,
    optimizer: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, int, Run], None] | None = None,
) -> Comparison:
    """Train every schedule with every seed and return the runs side by side.

    Runs of one seed share their initial weights and data order, whatever their schedule.

    Args:
        task: a task's name (see `load_task`) or a function that returns a `Task`.
        schedules: by name, or a list whose texts are the names.
        rate: what each schedule multiplies; 1 if the schedules are rates themselves.
        seeds: how many (0, 1, ...), or which.
        total: length of each run, in updates or ``epochs(n)``; default ``epochs(10)``.
        optimizer: short name or class of one to train with in place of the task's, such as
            "adamw" or "torch.optim.AdamW".
        workers: worker processes; default one a core. 0 trains in this process.
        progress: called with (runs done, runs planned, run) as each run ends.

    Raises:
        TaskError, ScheduleError, SettingError: before anything is trained.
        RunFailed: a worker process died.

    >>> from ratecraft import constant, cosine
    >>> result = compare(
    ...     "digits", [constant(1), cosine(1, 0)], rate=0.05, seeds=1, total=20, workers=0
    ... )
    >>> [summary.seeds for summary in result.summaries()]
    [1, 1]
    """
    named = _named(schedules)
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    if not named or not chosen:
        raise ScheduleError("compare needs at least one schedule and one seed")
    length = epochs(10) if total is None else total
    first = load_task(task) if isinstance(task, str) else build_task(task, repr(task))
    for schedule in named.values():
        (rate * schedule).resolve(length, epoch=first.epoch)  # refuse before training
    if optimizer is not None:
        with preserved_rng():
            start(with_optimizer(first, optimizer))  # refuse before training
    source = task if workers == 0 else reference(task)
    trials = [(text, seed) for text in map(repr, named.values()) for seed in chosen]
    runs: dict[tuple[str, int], Run] = {}
    arguments = [(source, text, rate, seed, str(length), optimizer) for text, seed in trials]
    for trial, run in _trained(trials, arguments, cores() if workers is None else workers):
        runs[trial] = run
        if progress:
            progress(len(runs), len(trials), run)
    return Comparison(
        task=first.name or (task if isinstance(task, str) else task.__name__),
        schedules={name: repr(schedule) for name, schedule in named.items()},
        runs=tuple(runs[trial] for trial in trials),
        environment={
            "ratecraft": ratecraft.__version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    )


def _named(schedules: Mapping[str, Schedule] | Sequence[Schedule]) -> dict[str, Schedule]:
    named = dict(schedules) if isinstance(schedules, Mapping) else {repr(s): s for s in schedules}
    for name, schedule in named.items():
        if not isinstance(schedule, Schedule):
            raise TypeError(f"{name}: a Schedule was expected, not {schedule!r}")
        # The text is how a worker gets the schedule, so it must read back.
        if parse(repr(schedule)) != schedule:
            raise ScheduleError(f"{name}: {schedule!r} cannot be sent to a worker as text")
    if len(set(named.values())) < len(named):
        raise ScheduleError("the same schedule is given twice")
    return named


def _trained(
    trials: list[tuple[str, int]], arguments: list[tuple[Any, ...]], workers: int
) -> Iterator[tuple[tuple[str, int], Run]]:
    """Yield every trial with its run, as they end."""
    if workers == 0:
        for trial, given in zip(trials, arguments, strict=True):
            yield trial, _train(*given)
        return
    with LocalEngine(min(workers, len(trials))) as engine:
        futures: dict[Future[Run], tuple[str, int]] = {
            engine.submit(_train, *given): trial
            for trial, given in zip(trials, arguments, strict=True)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise RunFailed(
                "a worker process died while training (out of memory, or killed); "
                "try fewer workers, or workers=0 to see it fail here"
            ) from None


def _train(
    source: str | Callable[[], Task],
    text: str,
    rate: float,
    seed: int,
    total: str,
    optimizer: str | None,
) -> Run:
    # The task is built anew for each run, so that no run depends on one before it.
    task = load_task(source) if isinstance(source, str) else build_task(source, repr(source))
    if optimizer is not None:
        task = with_optimizer(task, optimizer)
    return train(task, parse(text), rate=rate, seed=seed, total=parse_length(total))
