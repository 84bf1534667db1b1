"""compare: train every schedule, learning rate and optimizer with every seed."""

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
from ._jobs import TrialFailure, restore_loaders, run_job
from ._plateau import Candidate, Plateau, parse_candidate
from ._progress import Progress, ProgressReporter
from ._source import hash_source, reference
from ._store import Store
from ._task import Task, build_task, load_task, with_optimizer
from ._train import Training, create_model_and_optimizer, curve_of
from ._trials import Job, Trial, TrialPlan

MAX_JOB_ATTEMPTS: Final = 3  # of a job whose worker dies


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
    """Train every schedule at every learning rate, with every optimizer and seed.

    Runs of one seed share their initial weights and data order. A run that diverges is a result;
    a run that raises is listed in ``failed``, and the other runs continue. With a ``store`` every
    complete run is saved: after an interruption the same call trains only the missing runs. Every
    engine gives the same numbers, to the last bit, on one type of machine.

    Args:
        task: name of a task, as for `load_task`, or a function that returns a `Task`.
        schedules: a dict of schedules by name, or a list, in which the text of a schedule is its
            name. A `Plateau` counts as a schedule.
        lrs: learning rate that each schedule multiplies, or several; 1 if the schedules are
            learning rates themselves.
        optimizers: short name or class path of an optimizer that replaces the one of the task,
            such as "adamw" or "torch.optim.AdamW", or several.
        seeds: number of seeds (0, 1, ...), or a list of them.
        total_steps: length of each run, in steps or ``epochs(n)``, or several; default
            ``epochs(10)``.
        workers: number of worker processes; default one per core. 0 trains in this process.
        engine: "local", "ray" or an engine, instead of ``workers``. An engine object stays open.
        store: SQLite file for the runs; several comparisons may share it.
        halving: stop the worse half of the learning rates of each schedule after a quarter and
            after half of the run. Stopped runs have no final loss.
        branches: train steps that runs of one learning rate, optimizer and seed share at their
            beginning once. The numbers stay the same; one worker trains these runs in sequence.
        shard: (i, n) trains only the i-th of n parts, for job arrays; see `merge`.
        progress: called with a `Progress` for each event.

    Raises:
        TaskError, ScheduleError, SettingError: an argument is invalid; raised before training.
        ResultError: ``store`` is not a store.
        RunFailed: no run gave a result, or a worker process died three times on one run.

    >>> from ratecraft import constant, cosine
    >>> from ratecraft.experiments import compare
    >>> result = compare(
    ...     "digits", [constant(1), cosine(1, 0)], lrs=0.05, seeds=1, total_steps=20, workers=0
    ... )
    >>> [summary.seeds for summary in result.summaries()]
    [1, 1]
    """
    _refuse_starting_worker()
    by_name = _schedules_by_name(schedules)
    seed_list = list(seeds) if isinstance(seeds, Iterable) else range(_integer("seeds", seeds))
    seed_list = [_integer("seed", seed) for seed in seed_list]
    lr_list = [_checked_lr(lr) for lr in _as_list(lrs)]
    if workers is not None and workers < 0:
        raise SettingError(f"workers={workers}: expected a number >= 0")
    optimizer_names = _as_list(optimizers)
    lengths = [_checked_length(length) for length in _as_list(total_steps)]
    if not by_name or not seed_list or not lr_list or not optimizer_names or not lengths:
        raise ScheduleError("compare needs at least one schedule, one lr and one seed")
    _refuse_duplicates(lr=lr_list, optimizer=optimizer_names, seed=seed_list, length=lengths)
    if halving and branches:
        raise SettingError("halving and branches cannot be combined; leave one out")
    if halving and len(lr_list) < 2:
        raise SettingError("halving chooses among lrs; pass several")
    if not 1 <= shard[0] <= shard[1]:
        raise SettingError(f"shard {shard[0]}/{shard[1]}: expected i/n with i from 1 to n")
    first_task = load_task(task) if isinstance(task, str) else build_task(task, repr(task))
    steps_by_length = _resolve_lengths(first_task, by_name, lr_list, lengths)
    _check_task(first_task, by_name, optimizer_names, next(iter(steps_by_length.values())))
    inline = workers == 0 and engine is None
    source = task if inline else reference(task)
    # Without a store, a function in this process needs no identity.
    identified = store is not None or not inline or isinstance(task, str)
    task_name, source_hash = (_task_name(task), hash_source(task)) if identified else ("", "")
    plan = TrialPlan.create(
        task_name,
        source_hash,
        schedules=by_name,
        lrs=lr_list,
        optimizers=optimizer_names,
        seeds=seed_list,
        lengths=steps_by_length,
        mode="branched" if branches else "halved" if halving else "alone",
        shard=shard,
    )
    with Store(":memory:" if store is None else store) as open_store:
        open_store.add(plan.trials)
        done, failed = _run_all(plan, open_store, source, engine, workers, progress)
    if not done and failed:
        raise RunFailed(next(iter(failed.values())).line)
    return Comparison(
        task=first_task.name
        or (task if isinstance(task, str) else getattr(task, "__name__", type(task).__name__)),
        schedules={name: config.schedule for name, config in plan.candidates.items()},
        runs=tuple(done[trial] for trial in plan.trials if trial in done),
        environment=environment(),
        configs=plan.configs,
        failed={plan.trials[trial]: failure.trace for trial, failure in failed.items()},
    )


def _refuse_starting_worker() -> None:
    """Raise SettingError in a worker that imports a script without a __main__ guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SettingError(
            "compare() was called while a worker process imported your file: put the call under "
            'if __name__ == "__main__":'
        )


def _as_list(value: Any) -> list[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return list(value) if several else [value]


def _integer(name: str, value: Any) -> int:
    """Return a whole number as an int, since a trial's key depends on the type."""
    if not isinstance(value, SupportsIndex) or isinstance(value, bool):
        raise SettingError(f"{name} {value!r}: expected a whole number")
    return index(value)


def _checked_lr(value: Any) -> float:
    lr = float(value) if isinstance(value, SupportsFloat) and not isinstance(value, bool) else -1
    if not lr >= 0:
        raise SettingError(f"lr {value!r}: expected numbers >= 0")
    return lr


def _checked_length(value: Any) -> int | Duration:
    if value is None:
        return epochs(10)
    if isinstance(value, str):
        raise SettingError(
            f"total_steps={value!r}: expected a number of steps or a length; "
            "ratecraft.parse_length reads a text"
        )
    return value if isinstance(value, Duration) else _integer("total_steps", value)


def _refuse_duplicates(**arguments: Sequence[Any]) -> None:
    for name, values in arguments.items():
        if len(set(values)) < len(values):
            raise SettingError(f"the same {name} is given twice: {values}")


def _resolve_lengths(
    task: Task,
    schedules: Mapping[str, Candidate],
    lrs: Sequence[float],
    lengths: Sequence[int | Duration],
) -> dict[str, int]:
    """Return the number of steps by the text of each length; every schedule must fit into it."""
    steps: dict[str, int] = {}
    for length in lengths:
        for schedule in schedules.values():
            for lr in lrs:
                steps[str(length)] = len(curve_of(schedule, lr, length, task.steps_per_epoch))
    if len(set(steps.values())) < len(lengths):
        raise SettingError(f"the same length is given twice: {', '.join(steps)}")
    return steps


def _check_task(
    task: Task,
    schedules: Mapping[str, Candidate],
    optimizers: Sequence[str | None],
    total_steps: int,
) -> None:
    """Build the models and optimizers once, so that errors appear before any training."""
    for optimizer in optimizers:
        with preserve_rng():
            create_model_and_optimizer(
                task if optimizer is None else with_optimizer(task, optimizer)
            )
    for schedule in schedules.values():
        if isinstance(schedule, Plateau):  # checks that the task has its metric
            Training(task, schedule, total_steps=total_steps)


def _task_name(task: str | Callable[[], Task]) -> str:
    try:
        return reference(task)
    except TaskError:  # defined in an interactive session, and trained in this process
        return f"__main__:{getattr(task, '__name__', '')}"


def _schedules_by_name(
    schedules: Mapping[str, Candidate] | Sequence[Candidate] | Candidate | str,
) -> dict[str, Candidate]:
    if isinstance(schedules, str):
        raise TypeError(f"a Schedule was expected, not {schedules!r}; ratecraft.parse reads a text")
    if isinstance(schedules, Schedule | Plateau):
        schedules = [schedules]
    by_name = dict(schedules) if isinstance(schedules, Mapping) else {repr(s): s for s in schedules}
    if len(by_name) < len(schedules):
        raise ScheduleError("the same schedule is given twice")
    for name, schedule in by_name.items():
        if not isinstance(schedule, Schedule | Plateau):
            raise TypeError(f"{name}: a Schedule was expected, not {schedule!r}")
        # Workers receive the schedule as text.
        if parse_candidate(repr(schedule)) != schedule:
            raise ScheduleError(f"{name}: {schedule!r} cannot be sent to a worker as text")
    if len(set(by_name.values())) < len(by_name):
        raise ScheduleError("the same schedule is given twice")
    return by_name


def _run_all(
    plan: TrialPlan,
    store: Store,
    source: str | Callable[[], Task],
    engine: Engine | str | None,
    workers: int | None,
    progress: Callable[[Progress], None] | None,
) -> tuple[dict[Trial, Run], dict[Trial, TrialFailure]]:
    """Train the trials that the store lacks; return all runs and the failures."""
    done, failed = store.runs(list(plan.trials)), dict[Trial, TrialFailure]()
    reporter = ProgressReporter(len(plan.trials), progress)
    for trial, run in done.items():
        reporter.resumed(plan.trials[trial], run)
    missing = [job for job in plan.jobs if any(trial not in done for trial in job.trials)]
    if not missing:
        return done, {}
    open_engine = _open_engine(engine, workers, len(missing))
    try:
        for trial, outcome in _outcomes(missing, plan, store, source, open_engine, reporter):
            if trial in done:
                continue
            if isinstance(outcome, Run):
                done[trial] = outcome
                reporter.done(plan.trials[trial], outcome)
                continue
            failed[trial] = outcome
            reporter.failed(plan.trials[trial], outcome.line)
            if outcome.expected and len(failed) == len(plan.trials):
                # All runs failed, and the message explains it.
                raise RunFailed(outcome.line)
    finally:
        restore_loaders()
        if open_engine is not engine:
            open_engine.close()
    return done, failed


def _open_engine(engine: Engine | str | None, workers: int | None, jobs: int) -> Engine:
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


def _outcomes(
    jobs: Sequence[Job],
    plan: TrialPlan,
    store: Store,
    source: str | Callable[[], Task],
    engine: Engine,
    reporter: ProgressReporter,
) -> Iterator[tuple[Trial, Run | TrialFailure]]:
    """Yield each trial with its run or failure, after storing it.

    Trials that another driver has claimed come last.
    """
    waiting = list(jobs)
    claimed_elsewhere: list[Job] = []
    # A job may be repeated for some of its trials; the others are already complete.
    complete = set(store.runs(list(plan.trials)))
    attempts = dict.fromkeys(jobs, 0)
    running: dict[Future[Any], Job] = {}
    while waiting or running or claimed_elsewhere:
        while waiting and len(running) < engine.slots:
            job = waiting.pop(0)
            if not store.claim(*job.trials):
                claimed_elsewhere.append(job)
                continue
            attempts[job] += 1
            for trial in job.trials:
                if trial not in complete:
                    reporter.started(plan.trials[trial])
            running[engine.submit(run_job, source, job)] = job
        if running:
            ended, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
        else:
            ended = set()
            time.sleep(0.5)
        for future in ended:
            job = running.pop(future)
            error = future.exception()
            if isinstance(error, WorkerDied):
                if attempts[job] >= MAX_JOB_ATTEMPTS:
                    raise RunFailed(
                        f"a worker process died {MAX_JOB_ATTEMPTS} times while training one run "
                        "(out of memory, or killed); try fewer workers, or workers=0 to see the "
                        "error in this process"
                    )
                for trial in job.trials:
                    if trial not in complete:
                        reporter.restarted(plan.trials[trial])
                waiting.insert(0, job)
                continue
            for trial, outcome in zip(job.trials, future.result(), strict=True):
                if isinstance(outcome, Run):
                    store.finish(trial, outcome)
                else:
                    store.fail(trial, outcome.trace)
                complete.add(trial)
                yield trial, outcome
        if claimed_elsewhere and not (waiting or running):
            trials = [trial for job in claimed_elsewhere for trial in job.trials]
            runs = store.runs(trials)
            errors = store.errors(trials)
            for trial in (*runs, *errors):
                if trial in complete:
                    continue
                complete.add(trial)
                reporter.started(plan.trials[trial])
                trace = errors.get(trial, "")
                yield (
                    trial,
                    runs.get(trial)
                    or TrialFailure(trace.strip().splitlines()[-1], trace, expected=False),
                )
            # Jobs that the other driver has not finished are tried again.
            waiting = [
                job
                for job in claimed_elsewhere
                if any(trial not in runs and trial not in errors for trial in job.trials)
            ]
            claimed_elsewhere = []


def environment() -> dict[str, str]:
    """Return the versions and the machine, which can change the numbers."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    facts = {
        "ratecraft": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device,
    }
    git = shutil.which("git")
    if git is None:
        return facts
    command = [git, "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git
    return facts | ({"git commit": commit.stdout.strip()} if commit.returncode == 0 else {})
