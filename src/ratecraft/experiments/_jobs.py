"""Execution of a job in a worker: branches of one training, early stopping of learning rates."""

import math
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Final

import numpy
import torch
from torch.utils.data import DataLoader

from ratecraft._training._snapshot import capture_loader_state
from ratecraft.errors import RatecraftError, TaskError
from ratecraft.results import Run
from ratecraft.schedule import Duration, parse_length

from ._plateau import Candidate, Plateau, curve_of, parse_candidate
from ._reports import StepReporter
from ._script import Script
from ._script_run import run_script_job
from ._source import format_error
from ._task import AnyTask, Task, build_task, load_task_version, with_optimizer
from ._train import Training
from ._trainer_task import TrainerRun, TrainerTask
from ._trials import HALVING_POINTS, RANKING_WINDOW, Job, Trial, TrialFailure, better_half

MIN_OWN_STEPS: Final = 1  # that every branch trains itself: its last step has an evaluation


Branch = tuple[Candidate, int | Duration]  # a schedule and the length of its run


def planned_steps(job: Job, lengths: Mapping[str, int], steps_per_epoch: int) -> int:
    """Return the number of steps that a job trains, unless a run of it diverges.

    ``lengths`` holds the numbers of steps by the text of the length.
    """
    if len(job) == 1:
        return lengths[job[0].total_steps]
    if job[0].halving_group:
        total_steps, active = lengths[job[0].total_steps], len({trial.lr for trial in job})
        seeds, steps, last = len(job) // active, 0, 0
        for fraction in HALVING_POINTS:
            end = _steps(fraction, total_steps)
            steps, last = steps + active * (end - last), end
            active = better_half(active)
        return seeds * (steps + active * (total_steps - last))
    branches = [(parse_candidate(trial.schedule), lengths[trial.total_steps]) for trial in job]
    lrs = sorted(_branch_lrs(branches, job[0].lr, steps_per_epoch), key=len, reverse=True)
    return sum(
        len(values) - max([0, *(_common_steps(earlier, values) for earlier in lrs[:i])])
        for i, values in enumerate(lrs)
    )


def run_job(source: str | Callable[[], AnyTask] | Script, job: Job) -> list[Run | TrialFailure]:
    """Return the run or the failure of each trial of a job, in order."""
    train_trials = _train_halved if job[0].halving_group else _train_branched
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that all engines and machines give the same numbers
    try:
        if isinstance(source, Script):
            return run_script_job(source, job)
        runs = train_trials(source, job)
    except (Exception, SystemExit) as error:  # a user's task can raise anything
        line = str(error) if isinstance(error, RatecraftError) else format_error(error)
        return [TrialFailure(line, traceback.format_exc())] * len(job)
    finally:
        torch.set_num_threads(threads)
    return [
        replace(run, optimizer=trial.optimizer or "") for run, trial in zip(runs, job, strict=True)
    ]


def _train_branched(source: str | Callable[[], AnyTask], job: Job) -> list[Run]:
    first = job[0]
    branches = [(parse_candidate(trial.schedule), parse_length(trial.total_steps)) for trial in job]
    report = StepReporter([trial.key for trial in job])
    with _built_task(source, first) as task:
        if isinstance(task, TrainerTask):  # which cannot branch
            ((schedule, total_steps),) = branches
            run = TrainerRun(task, schedule, lr=first.lr, seed=first.seed, total_steps=total_steps)
            run.on_step = partial(report, 0)
            run.advance()
            return [run.result()]
        return train_branches(task, branches, lr=first.lr, seed=first.seed, report=report)


def train_branches(
    task: Task,
    branches: Sequence[Branch],
    *,
    lr: float,
    seed: int,
    report: Callable[[int, Training], object] | None = None,
) -> list[Run]:
    """Train several schedules from one start and return their runs, in order.

    Steps at the beginning that have the same learning rates are trained once; the other runs
    continue from a copy in memory. Each run is bit for bit the run of `train`, provided that
    losses and models draw random numbers only from torch, numpy or `random`. ``report`` is called
    after each step with the index of the run and its training.
    """
    lrs = _branch_lrs(branches, lr, task.steps_per_epoch)
    runs: dict[int, Run] = {}
    # The longest run is the trunk: no other run can share more steps with the rest.
    tree = sorted(range(len(branches)), key=lambda i: -len(lrs[i]))
    pending: list[tuple[Training | None, list[int]]] = [(None, tree)]
    while pending:
        training, (trunk, *others) = pending.pop()
        schedule, total_steps = branches[trunk]
        if training is None:
            training = Training(task, schedule, lr=lr, seed=seed, total_steps=total_steps)
        else:
            training.continue_with(schedule, total_steps)
        training.on_step = report and partial(report, trunk)
        forks: dict[int, list[int]] = {}
        for i in others:
            forks.setdefault(_common_steps(lrs[trunk], lrs[i]), []).append(i)
        branched: list[tuple[Training | None, list[int]]] = []
        for step in sorted(forks):
            training.advance(step)
            # A trunk that diverged before a fork leaves nothing to continue from. Its branches
            # would diverge alone, too; they are trained from the start.
            diverged = training.diverged is not None
            branched.append((None if diverged else training.snapshot(), forks[step]))
        training.advance()
        runs[trunk] = training.result()
        pending += branched
    return [runs[i] for i in range(len(branches))]


def _branch_lrs(branches: Sequence[Branch], lr: float, steps_per_epoch: int) -> list[numpy.ndarray]:
    lrs = []
    for schedule, total_steps in branches:
        values = curve_of(schedule, lr, total_steps, steps_per_epoch).values()
        # The learning rates of a plateau are not known in advance; nan differs from all others.
        lrs.append(values * math.nan if isinstance(schedule, Plateau) else values)
    return lrs


def _common_steps(first: numpy.ndarray, second: numpy.ndarray) -> int:
    """Return the number of first steps that two runs can share."""
    end = min(len(first), len(second)) - MIN_OWN_STEPS
    differ = numpy.flatnonzero(first[:end] != second[:end])
    return int(differ[0]) if len(differ) else end


def _train_halved(source: str | Callable[[], AnyTask], job: Job) -> list[Run]:
    with ExitStack() as stack:
        trainings = [
            Training(
                stack.enter_context(_built_task(source, trial)),  # type: ignore[arg-type]  # compare refuses a TrainerTask
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
        report = StepReporter([trial.key for trial in job])
        for i, training in enumerate(trainings):
            training.on_step = partial(report, i)
        stopped = halve(trainings)
        return [training.result(stopped.get(training.lr)) for training in trainings]


def halve(trainings: Sequence[Training]) -> dict[float, int]:
    """Train the runs of several learning rates; return the step at which each one was stopped.

    After a quarter and after half of the run the learning rates are ranked by their mean training
    loss over the last tenth of the run and over all seeds; the better half, rounded up,
    continues. This is fair among learning rates of one schedule, since the rest of the run has
    the same shape for all. It is not fair among schedules: in a set of 24, the one that was best
    at the end ranked 18th early on.

    Source: successive halving, Jamieson & Talwalkar 2016, arXiv 1502.07943.
    """
    active: dict[float, list[Training]] = {}
    stopped: dict[float, int] = {}
    for training in trainings:
        active.setdefault(training.lr, []).append(training)
    for fraction in HALVING_POINTS:
        steps = _steps(fraction, trainings[0].total_steps)
        for training in chain.from_iterable(active.values()):
            training.advance(steps)
        ranked = sorted(active, key=lambda lr: _recent_loss(active[lr]))
        half = better_half(len(ranked))
        stopped |= dict.fromkeys(ranked[half:], steps)
        active = {lr: active[lr] for lr in ranked[:half]}
    for training in chain.from_iterable(active.values()):
        training.advance()
    return stopped


def _steps(fraction: float, total_steps: int) -> int:
    return max(round(fraction * total_steps), 1)


def _recent_loss(trainings: Sequence[Training]) -> float:
    """Return the mean of the recent training losses; infinity if a training diverged."""
    if any(training.diverged is not None for training in trainings):
        return math.inf
    return statistics.fmean(
        statistics.fmean(training.losses[-_steps(RANKING_WINDOW, training.total_steps) :])
        for training in trainings
    )


@contextmanager
def _built_task(source: str | Callable[[], AnyTask], trial: Trial) -> Iterator[AnyTask]:
    """Build a new task for a trial, and restore its loaders at the end of the block.

    A loader at the top level of the user's file is the same object in every task.
    """
    if isinstance(source, str):
        task = load_task_version(source, trial.source_hash)
    else:
        task = build_task(source, repr(source))
    with ExitStack() as stack:
        for loader in (task.train, task.val) if isinstance(task, Task) else ():
            stack.callback(capture_loader_state(loader))
        yield with_optimizer(task, trial.optimizer)
