"""Execution of a job in a worker: each of its trials gives a run or a failure."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

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
from ._train import Training
from ._trials import Job, Trial


class TrialFailure(NamedTuple):
    """Why a trial has no run, as plain data, since not every exception can be pickled."""

    line: str  # the reason, with the position in the user's own file
    trace: str  # the traceback


def run_job(source: str | Callable[[], Task], job: Job) -> list[Run | TrialFailure]:
    """Return the run or the failure of each trial of a job, in order.

    ``source`` is the function that builds the task, or its name. One torch thread is used, so
    that all engines and machines give the same numbers.
    """
    train_trials = _train_halved if job[0].halving_group else _train_branches
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = train_trials(source, job)
    except (Exception, SystemExit) as error:  # a user's task can raise anything
        line = str(error) if isinstance(error, RatecraftError) else format_error(error)
        return [TrialFailure(line, traceback.format_exc())] * len(job)
    finally:
        torch.set_num_threads(threads)
    return [
        replace(run, optimizer=trial.optimizer or "") for run, trial in zip(runs, job, strict=True)
    ]


def _train_branches(source: str | Callable[[], Task], job: Job) -> list[Run]:
    first = job[0]
    branches = [(parse_candidate(trial.schedule), parse_length(trial.total_steps)) for trial in job]
    with _built_task(source, first) as task:
        return train_branches(task, branches, lr=first.lr, seed=first.seed)


def _train_halved(source: str | Callable[[], Task], job: Job) -> list[Run]:
    with ExitStack() as stack:
        trainings = [
            Training(
                stack.enter_context(_built_task(source, trial)),
                parse_candidate(trial.schedule),
                lr=trial.lr,
                seed=trial.seed,
                total_steps=parse_length(trial.total_steps),
            )
            for trial in job
        ]
        first, *rest = [training.task.train for training in trainings]
        if isinstance(first, DataLoader) and any(loader is first for loader in rest):
            raise TaskError(
                "halving interleaves several runs, and all of them read one DataLoader; create it "
                "inside the function that returns the Task"
            )
        by_lr: dict[float, list[Training]] = {}
        for training in trainings:
            by_lr.setdefault(training.lr, []).append(training)
        stopped = halve(by_lr)
        return [training.result(stopped[training.lr]) for training in trainings]


@contextmanager
def _built_task(source: str | Callable[[], Task], trial: Trial) -> Iterator[Task]:
    """Build a new task for a trial, and restore its loaders at the end of the block.

    A loader at the top level of the user's file is the same object in every task.
    """
    if isinstance(source, str):
        task = load_task_version(source, trial.source_hash)
    else:
        task = build_task(source, repr(source))
    restorers = [capture_loader_state(loader) for loader in (task.train, task.val)]
    try:
        yield task if trial.optimizer is None else with_optimizer(task, trial.optimizer)
    finally:
        for restore in restorers:
            restore()
