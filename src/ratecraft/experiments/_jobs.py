"""What a worker does: a job's trials, each with its run or the reason why there is none."""

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
from ._source import told
from ._task import Task, build_task, task_as_it_was, with_optimizer
from ._train import Training, train
from ._trials import Job, Trial


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial has no run; plain data, since not every exception can be sent.

    Attributes:
        line: the reason in one line, with the place in the user's own file.
        trace: the traceback.
        expected: it is an error of ours, whose line says all.
    """

    line: str
    trace: str
    expected: bool


def work(source: str | Callable[[], Task], job: Job) -> list[Run | Failure]:
    """Do a job; return for each of its trials, in order, its run or why there is none.

    One torch thread, so that engines and machines of any size give the same numbers.
    """
    do = {"alone": _alone, "branched": _branched, "halved": _halved}[job.how]
    with _one_thread():
        try:
            runs = do(source, job.trials)
        except (Exception, SystemExit) as error:  # a user's task can raise anything
            expected = isinstance(error, RatecraftError)
            line = str(error) if expected else told(error)
            return [Failure(line, traceback.format_exc(), expected)] * len(job.trials)
    return [
        replace(run, optimizer=trial.optimizer or "")
        for run, trial in zip(runs, job.trials, strict=True)
    ]


def _alone(source: str | Callable[[], Task], trials: Sequence[Trial]) -> list[Run]:
    (trial,) = trials
    candidate = parse_candidate(trial.schedule)
    total_steps = parse_length(trial.total_steps)
    return [
        train(
            _task(source, trial), candidate, lr=trial.lr, seed=trial.seed, total_steps=total_steps
        )
    ]


def _branched(source: str | Callable[[], Task], trials: Sequence[Trial]) -> list[Run]:
    first = trials[0]
    branches = [(parse_candidate(one.schedule), parse_length(one.total_steps)) for one in trials]
    return train_branches(_task(source, first), branches, lr=first.lr, seed=first.seed)


def _halved(source: str | Callable[[], Task], trials: Sequence[Trial]) -> list[Run]:
    made = {
        trial: Training(
            _task(source, trial),
            parse_candidate(trial.schedule),
            lr=trial.lr,
            seed=trial.seed,
            total_steps=parse_length(trial.total_steps),
        )
        for trial in trials
    }
    loaders = [one.task.train for one in made.values()]
    if isinstance(loaders[0], DataLoader) and any(one is loaders[0] for one in loaders[1:]):
        raise TaskError(
            "halving trains several runs side by side, and all of them read one DataLoader; make "
            "it inside the function that returns the Task"
        )
    lrs: dict[float, list[Training]] = {}
    for trial, training in made.items():
        lrs.setdefault(trial.lr, []).append(training)
    stopped = halve(lrs)
    return [training.result(stopped[trial.lr]) for trial, training in made.items()]


def _task(source: str | Callable[[], Task], trial: Trial) -> Task:
    """Return the trial's task, built anew, so that no run depends on one before it."""
    if isinstance(source, str):
        task = task_as_it_was(source, trial.source)
    else:
        task = build_task(source, repr(source))
    # A loader at the top of the user's file is not built anew: it goes back to where it was.
    for part, loader in (("train", task.train), ("val", task.val)):
        known, rewind = _loaders.get((source, part), (None, None))
        if loader is known and rewind is not None:
            rewind()
        else:
            _loaders[source, part] = loader, capture_loader_state(loader)
    return task if trial.optimizer is None else with_optimizer(task, trial.optimizer)


def give_back_loaders() -> None:
    """Leave the loaders that were read in this process as they were before, and let them go."""
    for _, rewind in _loaders.values():
        rewind()
    _loaders.clear()


_loaders: dict[tuple[object, str], tuple[object, Callable[[], None]]] = {}
"""By source and part of the task: the loader that was seen last, and the way back to its start."""


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
