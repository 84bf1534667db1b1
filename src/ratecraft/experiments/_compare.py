"""compare: every schedule, lr and optimizer with every seed, as one result."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from operator import index
from typing import Any, Final, SupportsFloat, SupportsIndex

import numpy
import torch

from ratecraft._keywords import explain_arguments
from ratecraft._training._snapshot import preserve_rng
from ratecraft._version import __version__
from ratecraft.errors import RunFailed, ScheduleError, SettingError, TaskError
from ratecraft.results import Comparison, Run
from ratecraft.schedule import Duration, Schedule, epochs

from ._engines import Engine, InlineEngine, LocalEngine, RayEngine, WorkerDied, cores
from ._jobs import Failure, give_back_loaders, work
from ._plateau import Candidate, Plateau, parse_candidate
from ._progress import Progress, ProgressReporter
from ._source import reference, source_of
from ._store import Store
from ._task import Task, build_task, load_task, with_optimizer
from ._train import Training, curve_of, start
from ._trials import Job, JobMode, Trial, TrialPlan

TRIES: Final = 3  # of a job whose worker dies


@explain_arguments(
    "compare() takes a task and its schedules, as a list or a dict of names; write the rest by "
    "name: compare(task, [cosine(1, 0), wsd(500)], lrs=[1e-3, 3e-3])"
)
def compare(
    task: str | Callable[[], Task],
    schedules: Mapping[str, Candidate] | Sequence[Candidate] | Candidate,
    *,
    lrs: float | Sequence[float],
    optimizers: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = 3,
    total_steps: int | Duration | Sequence[int | Duration] | None = None,
    workers: int | None = None,
    engine: Engine | str | None = None,
    store: str | os.PathLike[str] | None = None,
    halving: bool = False,
    branches: bool = False,
    shard: tuple[int, int] = (1, 1),
    progress: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Train every schedule at every lr, with every optimizer and seed; return all side by side.

    Runs of one seed share their initial weights and data order, whatever their schedule. A run
    that diverges is a result; one that raises is told in ``failed``, and the others go on. With a
    ``store`` all that is complete is kept, whatever is killed: the same call does what is missing.
    Every engine gives the same numbers, to the last bit, on one kind of machine.

    Args:
        task: a task's name (see `load_task`) or a function that returns a `Task`.
        schedules: by name, or a list whose texts are the names; a `Plateau` is one, too.
        lrs: what each schedule multiplies, or several of these; 1 if the schedules are lrs
            themselves.
        optimizers: short name or class of one to train with in place of the task's, such as
            "adamw" or "torch.optim.AdamW", or several.
        seeds: how many (0, 1, ...), or which.
        total_steps: length of each run, in steps or ``epochs(n)``, or several; default ``epochs(10)``.
        workers: worker processes; default one a core. 0 trains in this process.
        engine: "local", "ray", or what runs the trials, in place of workers; an engine that is
            given is not closed.
        store: an SQLite file to keep runs in; several comparisons may share it.
        halving: end the worse half of the lrs of each schedule after a quarter and after half of
            the run, as `ratecraft.experiments._halving` says; what they would have come to is not
            known then.
        branches: train once what runs of one lr, optimizer and seed share at their beginning;
            the same numbers for less, one after the other in one worker.
        shard: (i, n) does the i-th of n parts alone, for job arrays; see `merge`.
        progress: called with a `Progress` whenever something happens.

    Raises:
        TaskError, ScheduleError, SettingError: before anything is trained.
        ResultError: the store is none.
        RunFailed: no run gave a result, or a worker process died three times on one.

    >>> from ratecraft import constant, cosine
    >>> result = compare(
    ...     "digits", [constant(1), cosine(1, 0)], lrs=0.05, seeds=1, total_steps=20, workers=0
    ... )
    >>> [summary.seeds for summary in result.summaries()]
    [1, 1]
    """
    _refuse_starting_worker()
    named = _named(schedules)
    wanted = seeds if isinstance(seeds, Iterable) else range(_whole("seeds", seeds))
    chosen = [_whole("seed", one) for one in wanted]
    multiples = [_lr(one) for one in _list(lrs)]
    if workers is not None and workers < 0:
        raise SettingError(f"workers={workers}: expected a number >= 0")
    kinds = _list(optimizers)
    lengths = [_length(one) for one in _list(total_steps)]
    if not named or not chosen or not multiples or not kinds or not lengths:
        raise ScheduleError("compare needs at least one schedule, one lr and one seed")
    _refuse_twice(lr=multiples, optimizer=kinds, seed=chosen, length=lengths)
    if halving and branches:
        raise SettingError("halving and branches cannot be combined; leave one out")
    if halving and len(multiples) < 2:
        raise SettingError("halving chooses among lrs; give several")
    if not 1 <= shard[0] <= shard[1]:
        raise SettingError(f"shard {shard[0]}/{shard[1]}: expected i/n with i from 1 to n")
    first = load_task(task) if isinstance(task, str) else build_task(task, repr(task))
    totals = _totals(first, named, multiples, lengths)
    _try_out(first, named, kinds, next(iter(totals.values())))
    here = workers == 0 and engine is None
    source = task if here else reference(task)
    # Without a store nobody asks later what a function in this very process was.
    known = store is not None or not here or isinstance(task, str)
    place, code = (_place(task), source_of(task)) if known else ("", "")
    how: JobMode = "branched" if branches else "halved" if halving else "alone"
    plan = TrialPlan.of(place, code, named, multiples, kinds, chosen, totals, how, shard)
    with Store(":memory:" if store is None else store) as kept:
        kept.plan(plan.trials)
        done, failed = _run_all(plan, kept, source, engine, workers, progress)
    if not done and failed:
        first_failure = next(iter(failed.values()))
        raise RunFailed(first_failure.line)
    return Comparison(
        task=first.name
        or (task if isinstance(task, str) else getattr(task, "__name__", type(task).__name__)),
        schedules={name: one.schedule for name, one in plan.candidates.items()},
        runs=tuple(done[trial] for trial in plan.trials if trial in done),
        environment=environment(),
        configs=plan.configs,
        failed={plan.trials[trial]: one.trace for trial, one in failed.items()},
    )


def _refuse_starting_worker() -> None:
    """Say what is wrong where a worker runs the user's script instead of importing it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SettingError(
            "compare() was reached while a worker process was starting, which imports your file: "
            'put the call under if __name__ == "__main__":'
        )


def _list(value: Any) -> list[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return list(value) if several else [value]


def _whole(what: str, value: Any) -> int:
    """Return a whole number as Python's own, which is what a trial is known by."""
    if not isinstance(value, SupportsIndex) or isinstance(value, bool):
        raise SettingError(f"{what} {value!r}: expected a whole number")
    return index(value)


def _lr(value: Any) -> float:
    lr = float(value) if isinstance(value, SupportsFloat) and not isinstance(value, bool) else -1
    if not lr >= 0:
        raise SettingError(f"lr {value!r}: expected numbers >= 0")
    return lr


def _length(value: Any) -> int | Duration:
    if value is None:
        return epochs(10)
    if isinstance(value, str):
        raise SettingError(f"total_steps={value!r}: ratecraft.parse_length reads a text")
    return value if isinstance(value, Duration) else _whole("total", value)


def _refuse_twice(**given: Sequence[Any]) -> None:
    for what, some in given.items():
        if len(set(some)) < len(some):
            raise SettingError(f"the same {what} is given twice: {some}")


def _totals(
    task: Task,
    named: Mapping[str, Candidate],
    lrs: Sequence[float],
    lengths: Sequence[int | Duration],
) -> dict[str, int]:
    """Return each length in steps, by its text; every schedule has room in each of them."""
    totals: dict[str, int] = {}
    for length in lengths:
        for schedule in named.values():
            for lr in lrs:
                totals[str(length)] = len(curve_of(schedule, lr, length, task.steps_per_epoch))
    if len(set(totals.values())) < len(lengths):
        raise SettingError(f"the same length is given twice: {', '.join(totals)}")
    return totals


def _try_out(
    task: Task, named: Mapping[str, Candidate], kinds: Sequence[str | None], total_steps: int
) -> None:
    """Build what is going to be trained once, so that a mistake is told before any training."""
    for kind in kinds:
        with preserve_rng():
            start(task if kind is None else with_optimizer(task, kind))
    for schedule in named.values():
        if isinstance(schedule, Plateau):  # its metric must be one of the task's
            Training(task, schedule, total_steps=total_steps)


def _place(task: str | Callable[[], Task]) -> str:
    try:
        return reference(task)
    except TaskError:  # typed into a session; it is trained there, too
        return f"__main__:{getattr(task, '__name__', '')}"


def _named(
    schedules: Mapping[str, Candidate] | Sequence[Candidate] | Candidate | str,
) -> dict[str, Candidate]:
    if isinstance(schedules, str):
        raise TypeError(f"a Schedule was expected, not {schedules!r}; ratecraft.parse reads one")
    if isinstance(schedules, Schedule | Plateau):
        schedules = [schedules]
    named = dict(schedules) if isinstance(schedules, Mapping) else {repr(s): s for s in schedules}
    if len(named) < len(schedules):
        raise ScheduleError("the same schedule is given twice")
    for name, schedule in named.items():
        if not isinstance(schedule, Schedule | Plateau):
            raise TypeError(f"{name}: a Schedule was expected, not {schedule!r}")
        # The text is how a worker gets the schedule, so it must read back.
        if parse_candidate(repr(schedule)) != schedule:
            raise ScheduleError(f"{name}: {schedule!r} cannot be sent to a worker as text")
    if len(set(named.values())) < len(named):
        raise ScheduleError("the same schedule is given twice")
    return named


def _run_all(
    plan: TrialPlan,
    store: Store,
    source: str | Callable[[], Task],
    engine: Engine | str | None,
    workers: int | None,
    progress: Callable[[Progress], None] | None,
) -> tuple[dict[Trial, Run], dict[Trial, Failure]]:
    """Run what the store lacks; return the runs, and why others failed."""
    done, failed = store.runs(list(plan.trials)), dict[Trial, Failure]()
    teller = ProgressReporter(len(plan.trials), progress)
    for trial, run in done.items():
        teller.kept(plan.trials[trial], run)
    missing = [job for job in plan.jobs if any(trial not in done for trial in job.trials)]
    if not missing:
        return done, {}
    chosen = _engine(engine, workers, len(missing))
    try:
        for trial, found in _results(missing, plan, store, source, chosen, teller):
            if trial in done:
                continue
            if isinstance(found, Run):
                done[trial] = found
                teller.done(plan.trials[trial], found)
                continue
            failed[trial] = found
            teller.failed(plan.trials[trial], found.line)
            if found.expected and len(failed) == len(plan.trials):
                # Nothing worked: the message says it better than a result.
                raise RunFailed(found.line)
    finally:
        give_back_loaders()
        if chosen is not engine:
            chosen.close()
    return done, failed


def _engine(engine: Engine | str | None, workers: int | None, jobs: int) -> Engine:
    if engine == "ray":
        return RayEngine()
    if engine is None or engine == "local":
        slots = cores() if workers is None else workers
        return InlineEngine() if slots == 0 else LocalEngine(min(slots, jobs))
    if isinstance(engine, str):
        raise SettingError(f'engine {engine!r}: expected "local", "ray" or an engine')
    if engine.slots < 1:
        raise SettingError(f"{engine!r} has {engine.slots} slots; expected 1 or more")
    return engine


def _results(
    jobs: Sequence[Job],
    plan: TrialPlan,
    store: Store,
    source: str | Callable[[], Task],
    engine: Engine,
    teller: ProgressReporter,
) -> Iterator[tuple[Trial, Run | Failure]]:
    """Yield each trial with its run or why there is none; those of other drivers come last.

    What is yielded is in the store.
    """
    waiting = list(jobs)
    others: list[Job] = []
    kept = set(store.runs(list(plan.trials)))  # of jobs that are done again for others in them
    tries = dict.fromkeys(jobs, 0)
    flying: dict[Future[Any], Job] = {}
    while waiting or flying or others:
        while waiting and len(flying) < engine.slots:
            job = waiting.pop(0)
            if not store.claim(*job.trials):
                others.append(job)
                continue
            tries[job] += 1
            for trial in job.trials:
                if trial not in kept:
                    teller.started(plan.trials[trial])
            flying[engine.submit(work, source, job)] = job
        if flying:
            ended, _ = wait(flying, timeout=1.0, return_when=FIRST_COMPLETED)
        else:
            ended = set()
            time.sleep(0.5)
        for future in ended:
            job = flying.pop(future)
            error = future.exception()
            if isinstance(error, WorkerDied):
                if tries[job] >= TRIES:
                    raise RunFailed(
                        f"a worker process died while training, {TRIES} times on one run (out of "
                        "memory, or killed); try fewer workers, or workers=0 to see it fail here"
                    )
                for trial in job.trials:
                    if trial not in kept:
                        teller.again(plan.trials[trial])
                waiting.insert(0, job)
                continue
            for trial, found in zip(job.trials, future.result(), strict=True):
                if isinstance(found, Run):
                    store.finish(trial, found)
                else:
                    store.fail(trial, found.trace)
                kept.add(trial)
                yield trial, found
        if others and not (waiting or flying):
            mine = [trial for job in others for trial in job.trials]
            there = store.runs(mine)
            gone = store.errors(mine)
            for trial in (*there, *gone):
                if trial in kept:
                    continue
                kept.add(trial)
                teller.started(plan.trials[trial])
                trace = gone.get(trial, "")
                yield (
                    trial,
                    there.get(trial)
                    or Failure(trace.strip().splitlines()[-1], trace, expected=False),
                )
            # What another driver gave up is ours.
            left = [
                job for job in others if any(t not in there and t not in gone for t in job.trials)
            ]
            waiting, others = left, []


def environment() -> dict[str, str]:
    """Return what could make another machine's numbers differ."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    told = {
        "ratecraft": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device,
    }
    git = shutil.which("git")
    if git is None:
        return told
    command = [git, "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git
    return told | ({"git commit": commit.stdout.strip()} if commit.returncode == 0 else {})
