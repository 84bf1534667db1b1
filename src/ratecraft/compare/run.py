"""compare: every schedule, rate and optimizer with every seed, as one record."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Final

import numpy
import torch

import ratecraft
from ratecraft.compare.engines import Engine, HereEngine, LocalEngine, cores
from ratecraft.compare.loop import start, train
from ratecraft.compare.plan import Trial, source_of
from ratecraft.compare.store import Store
from ratecraft.compare.task import Task, build_task, load_task, reference, with_optimizer
from ratecraft.errors import RatecraftError, RunFailed, ScheduleError, SettingError
from ratecraft.finder.preserve import preserved_rng
from ratecraft.records import Comparison, Run
from ratecraft.schedule import Duration, Schedule, epochs, parse, parse_length

__all__ = ["compare"]

TRIES: Final = 3  # of a trial whose worker dies
BEAT: Final = 10.0  # seconds between signs of life in the store


def compare(
    task: str | Callable[[], Task],
    schedules: Mapping[str, Schedule] | Sequence[Schedule],
    *,
    rate: float | Sequence[float],
    seeds: int | Sequence[int] = 3,
    total: int | Duration | None = None,
    optimizer: str | Sequence[str] | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, Run], None] | None = None,
) -> Comparison:
    """Train every schedule at every rate, with every optimizer and seed; return all side by side.

    Runs of one seed share their initial weights and data order, whatever their schedule. A run
    that diverges is a result; one that raises is told in ``failed``, and the others go on. With a
    ``store`` all that is complete is kept, whatever is killed: the same call does what is missing.

    Args:
        task: a task's name (see `load_task`) or a function that returns a `Task`.
        schedules: by name, or a list whose texts are the names.
        rate: what each schedule multiplies, or several of these; 1 if the schedules are rates
            themselves.
        seeds: how many (0, 1, ...), or which.
        total: length of each run, in updates or ``epochs(n)``; default ``epochs(10)``.
        optimizer: short name or class of one to train with in place of the task's, such as
            "adamw" or "torch.optim.AdamW", or several.
        workers: worker processes; default one a core. 0 trains in this process.
        engine: what runs the trials, in place of workers; it is not closed.
        store: an SQLite file to keep runs in; several comparisons may share it.
        progress: called with (runs done, runs planned, run) as each run ends.

    Raises:
        TaskError, ScheduleError, SettingError: before anything is trained.
        RecordError: the store is none.
        RunFailed: no run gave a result, or a worker process died three times on one.

    >>> from ratecraft import constant, cosine
    >>> result = compare(
    ...     "digits", [constant(1), cosine(1, 0)], rate=0.05, seeds=1, total=20, workers=0
    ... )
    >>> [summary.seeds for summary in result.summaries()]
    [1, 1]
    """
    named = _named(schedules)
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    rates = [rate] if isinstance(rate, int | float) else list(rate)
    kinds = [optimizer] if isinstance(optimizer, str) or optimizer is None else list(optimizer)
    if not named or not chosen or not rates or not kinds:
        raise ScheduleError("compare needs at least one schedule, one rate and one seed")
    for what, given in (("rate", rates), ("optimizer", kinds), ("seed", list(chosen))):
        if len(set(given)) < len(given):
            raise SettingError(f"the same {what} is given twice: {given}")
    length = epochs(10) if total is None else total
    first = load_task(task) if isinstance(task, str) else build_task(task, repr(task))
    for schedule in named.values():
        for one in rates:
            (one * schedule).resolve(length, epoch=first.epoch)  # refuse before training
    for kind in kinds:
        if kind is not None:
            with preserved_rng():
                start(with_optimizer(first, kind))  # refuse before training
    source = task if workers == 0 and engine is None else reference(task)
    # Without a store nobody asks later what a trial was.
    place, code = ("", "") if store is None else (reference(task), source_of(task))
    candidates = _candidates(named, kinds, rates)
    trials = {
        Trial(place, code, text, one, kind, seed, str(length)): f"{label}, seed {seed}"
        for label, (text, one, kind) in candidates.items()
        for seed in chosen
    }
    several = len(rates) > 1 or len(kinds) > 1
    with Store(":memory:" if store is None else store) as kept:
        kept.plan(trials)
        done, failed = _run_all(list(trials), kept, source, engine, workers, progress)
    if not done:
        raise RunFailed(next(iter(failed.values()), "no run gave a result").splitlines()[-1])
    return Comparison(
        task=first.name or (task if isinstance(task, str) else task.__name__),
        schedules={label: text for label, (text, _, _) in candidates.items()},
        runs=tuple(done[trial] for trial in trials if trial in done),
        environment=_environment(),
        settings={
            label: (one, kind or "") for label, (_, one, kind) in candidates.items() if several
        },
        failed={trials[trial]: error for trial, error in failed.items()},
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


def _candidates(
    named: Mapping[str, Schedule], kinds: Sequence[str | None], rates: Sequence[float]
) -> dict[str, tuple[str, float, str | None]]:
    """Return each candidate's schedule as text, rate and optimizer, by what tells it apart."""
    found: dict[str, tuple[str, float, str | None]] = {}
    for (name, schedule), kind, rate in itertools.product(named.items(), kinds, rates):
        parts = [name]
        if kind is not None and len(kinds) > 1:
            parts.append(kind)
        if len(rates) > 1:
            parts.append(f"rate {rate:g}")
        found[", ".join(parts)] = repr(schedule), rate, kind
    if len(found) < len(named) * len(kinds) * len(rates):
        raise SettingError("two candidates would have one name; rates must differ in 6 digits")
    return found


def _run_all(
    trials: Sequence[Trial],
    store: Store,
    source: str | Callable[[], Task],
    engine: Engine | None,
    workers: int | None,
    progress: Callable[[int, int, Run], None] | None,
) -> tuple[dict[Trial, Run], dict[Trial, str]]:
    """Run what the store lacks; return the runs, and why others failed."""
    done, failed = store.runs(trials), {}
    count = len(done)
    for i, run in enumerate(done.values(), 1):
        if progress:
            progress(i, len(trials), run)
    missing = [trial for trial in trials if trial not in done]
    if not missing:
        return done, {}
    chosen = engine
    if chosen is None:
        slots = cores() if workers is None else workers
        chosen = HereEngine() if workers == 0 else LocalEngine(min(slots, len(missing)))
    try:
        for trial, found in _results(missing, store, source, chosen):
            if isinstance(found, Run):
                store.finish(trial, found)
                done[trial] = found
                count += 1
                if progress:
                    progress(count, len(trials), found)
            else:
                told = "".join(traceback.format_exception(found)).strip()
                store.fail(trial, told)
                failed[trial] = told
                if isinstance(found, RatecraftError) and len(failed) == len(missing):
                    raise found  # nothing worked: the message says it better than a record
    finally:
        if engine is None:
            chosen.close()
    return done, failed


def _results(
    trials: Sequence[Trial], store: Store, source: str | Callable[[], Task], engine: Engine
) -> Iterator[tuple[Trial, Run | BaseException]]:
    """Yield each trial with its run or what it raised; those of other drivers come last."""
    waiting = list(trials)
    others: list[Trial] = []
    tries = dict.fromkeys(trials, 0)
    flying: dict[Future[Run], Trial] = {}
    beaten = time.monotonic()
    while waiting or flying or others:
        while waiting and len(flying) < engine.slots:
            trial = waiting.pop(0)
            if not store.claim(trial):
                others.append(trial)
                continue
            tries[trial] += 1
            told = (trial.schedule, trial.rate, trial.seed, trial.total, trial.optimizer)
            flying[engine.submit(_train, source, *told)] = trial
        if flying:
            ended, _ = wait(flying, timeout=1.0, return_when=FIRST_COMPLETED)
        else:
            ended = set()
            time.sleep(0.5)
        for future in ended:
            trial = flying.pop(future)
            error = None if future.cancelled() else future.exception()
            if future.cancelled() or isinstance(error, BrokenProcessPool | CancelledError):
                if tries[trial] >= TRIES:
                    raise RunFailed(
                        f"a worker process died while training, {TRIES} times on one run (out of "
                        "memory, or killed); try fewer workers, or workers=0 to see it fail here"
                    )
                waiting.insert(0, trial)
                continue
            yield trial, future.result() if error is None else error
        if time.monotonic() - beaten > BEAT:
            store.beat()
            beaten = time.monotonic()
        if others and not (waiting or flying):
            found = store.runs(others)
            yield from found.items()
            gone = store.errors(others)
            yield from ((trial, RunFailed(error)) for trial, error in gone.items())
            # What another driver gave up is ours.
            waiting = [trial for trial in others if trial not in found and trial not in gone]
            others = []


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
    run = train(task, parse(text), rate=rate, seed=seed, total=parse_length(total))
    return replace(run, optimizer=optimizer or "")


def _environment() -> dict[str, str]:
    """Return what could make another machine's numbers differ."""
    told = {
        "ratecraft": ratecraft.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    git = shutil.which("git")
    if git is None:
        return told
    command = [git, "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git
    return told | ({"git commit": commit.stdout.strip()} if commit.returncode == 0 else {})
