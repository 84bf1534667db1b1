"""Execution of a job in a worker: each of its trials gives a run or a failure."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.utils.data import DataLoader

from ratecraft._training._snapshot import capture_loader_state
from ratecraft.errors import RatecraftError, TaskError
from ratecraft.results import Run
from ratecraft.schedule import parse_length

from ._branches import train_branches
from ._halving import halve
from ._plateau import parse_candidate
from ._source import format_error
from ._task import Task, build_task, load_task_version, with_optimizer
from ._train import Training, train
from ._trials import Job, Trial


@dataclass(frozen=True, slots=True)
class TrialFailure:
    """Why a trial has no run, as plain data, since not every exception can be pickled.

    Attributes:
        line: the reason in one line, with the position in the user's own file.
        trace: the traceback.
        expected: whether it is an error of ratecraft, whose line explains it.
    """

    line: str
    trace: str
    expected: bool


def run_job(source: str | Callable[[], Task], job: Job) -> list[Run | TrialFailure]:
    """Run a job and return the run or the failure of each of its trials, in order.

    It uses one torch thread, so that all engines and machines give the same numbers.

    Args:
        source: the function that builds the task, or its name.
        job: the trials, and how they are trained.
    """
    train_trials = {"alone": _train_alone, "branched": _train_branched, "halved": _train_halved}
    with _single_thread():
        try:
            runs = train_trials[job.mode](source, job.trials)
        except (Exception, SystemExit) as error:  # a user's task can raise anything
            expected = isinstance(error, RatecraftError)
            line = str(error) if expected else format_error(error)
            return [TrialFailure(line, traceback.format_exc(), expected)] * len(job.trials)
    return [
        replace(run, optimizer=trial.optimizer or "")
        for run, trial in zip(runs, job.trials, strict=True)
    ]


def _train_alone(source: str | Callable[[], Task], trials: Sequence[Trial]) -> list[Run]:
    (trial,) = trials
    schedule, total_steps = parse_candidate(trial.schedule), parse_length(trial.total_steps)
    task = _build_task(source, trial)
    return [train(task, schedule, lr=trial.lr, seed=trial.seed, total_steps=total_steps)]


def _train_branched(source: str | Callable[[], Task], trials: Sequence[Trial]) -> list[Run]:
    first = trials[0]
    branches = [
        (parse_candidate(trial.schedule), parse_length(trial.total_steps)) for trial in trials
    ]
    return train_branches(_build_task(source, first), branches, lr=first.lr, seed=first.seed)


def _train_halved(source: str | Callable[[], Task], trials: Sequence[Trial]) -> list[Run]:
    trainings = {
        trial: Training(
            _build_task(source, trial),
            parse_candidate(trial.schedule),
            lr=trial.lr,
            seed=trial.seed,
            total_steps=parse_length(trial.total_steps),
        )
        for trial in trials
    }
    first, *rest = [training.task.train for training in trainings.values()]
    if isinstance(first, DataLoader) and any(loader is first for loader in rest):
        raise TaskError(
            "halving interleaves several runs, and all of them read one DataLoader; create it "
            "inside the function that returns the Task"
        )
    by_lr: dict[float, list[Training]] = {}
    for trial, training in trainings.items():
        by_lr.setdefault(trial.lr, []).append(training)
    stopped = halve(by_lr)
    return [training.result(stopped[trial.lr]) for trial, training in trainings.items()]


def _build_task(source: str | Callable[[], Task], trial: Trial) -> Task:
    """Return a new task for a trial, so that no run depends on an earlier one."""
    if isinstance(source, str):
        task = load_task_version(source, trial.source_hash)
    else:
        task = build_task(source, repr(source))
    # A loader at the top level of the user's file is the same object in every task: rewind it.
    for part, loader in (("train", task.train), ("val", task.val)):
        known, rewind = _loaders.get((source, part), (None, None))
        if loader is known and rewind is not None:
            rewind()
        else:
            _loaders[source, part] = loader, capture_loader_state(loader)
    return task if trial.optimizer is None else with_optimizer(task, trial.optimizer)


def restore_loaders() -> None:
    """Restore the loaders that jobs in this process have read, and release them."""
    for _, rewind in _loaders.values():
        rewind()
    _loaders.clear()


_loaders: dict[tuple[object, str], tuple[object, Callable[[], None]]] = {}
"""By source and part of the task: the last loader, and what restores its initial state."""


@contextmanager
def _single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
