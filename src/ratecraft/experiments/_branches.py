"""Train runs with a common beginning as a tree, in which each common part is trained once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy

from ratecraft.results import Run
from ratecraft.schedule import Duration

from ._plateau import Candidate, Plateau, curve_of
from ._task import Task
from ._train import Training

Branch = tuple[Candidate, int | Duration]

MIN_OWN_STEPS: Final = 1
"""Final steps that every branch trains itself, since the last step is followed by an evaluation."""


def train_branches(task: Task, branches: Sequence[Branch], *, lr: float, seed: int) -> list[Run]:
    """Train several schedules from one start and return their runs, in order.

    Schedules that give the same learning rates for the first steps, as WSD schedules of several
    lengths do, share these steps: the later ones continue from a copy in memory. Each run is
    bit for bit the run of `train`, provided that losses and models draw random numbers only from
    torch, numpy or `random`. A `Plateau` is trained separately, since its learning rates are not
    known in advance.
    """
    lrs = [
        curve_of(schedule, lr, total_steps, task.steps_per_epoch).values()
        for schedule, total_steps in branches
    ]
    runs: dict[int, Run] = {}
    trees: dict[object, list[int]] = {}
    # The longest run is the trunk: no other run can share more steps with the rest.
    for i in sorted(range(len(branches)), key=lambda i: -len(lrs[i])):
        schedule, _ = branches[i]
        trees.setdefault(i if isinstance(schedule, Plateau) else "tree", []).append(i)
    pending: list[tuple[Training | None, list[int]]] = [(None, tree) for tree in trees.values()]
    while pending:
        training, (trunk, *others) = pending.pop()
        schedule, total_steps = branches[trunk]
        if training is None:
            training = Training(task, schedule, lr=lr, seed=seed, total_steps=total_steps)
        else:
            training.continue_with(schedule, total_steps)
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


def _common_steps(first: numpy.ndarray, second: numpy.ndarray) -> int:
    """Return the number of first steps that two runs can share."""
    end = min(len(first), len(second)) - MIN_OWN_STEPS
    differ = numpy.flatnonzero(first[:end] != second[:end])
    return int(differ[0]) if len(differ) else end
