"""Runs that share a beginning, trained as a tree: what they share is trained once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy

from ratecraft.results import Run
from ratecraft.schedule import Duration

from ._plateau import Candidate, Plateau
from ._task import Task
from ._train import Training, TrainingSnapshot, curve_of

Branch = tuple[Candidate, int | Duration]


def train_branches(task: Task, branches: Sequence[Branch], *, lr: float, seed: int) -> list[Run]:
    """Train schedules (with their lengths) from one start; return a run each, in order.

    Where two schedules give the same lrs from the beginning on, as a WSD schedule does for
    several lengths, the later ones branch off a copy of the first in memory. Each run is bit for
    bit the one that was trained alone, as long as what a loss or a model draws comes from the
    random numbers of torch, numpy or `random`. A `Plateau` is trained alone, since its lrs are
    not known before.

    Raises:
        TaskError: the model cannot be copied.
    """
    lines = [
        curve_of(schedule, lr, total_steps, task.steps_per_epoch).values()
        for schedule, total_steps in branches
    ]
    found: dict[int, Run] = {}
    alone = [i for i, (schedule, _) in enumerate(branches) if isinstance(schedule, Plateau)]
    for i in alone:
        schedule, total_steps = branches[i]
        training = Training(task, schedule, lr=lr, seed=seed, total_steps=total_steps)
        training.advance()
        found[i] = training.result()
    rest = [i for i in range(len(branches)) if i not in alone]
    # The longest is the trunk: nothing of it is shared with fewer than with any other.
    rest.sort(key=lambda i: -len(lines[i]))
    todo: list[tuple[TrainingSnapshot | None, list[int]]] = [(None, rest)] if rest else []
    while todo:
        mark, group = todo.pop()
        (schedule, total_steps), others = branches[group[0]], group[1:]
        if mark is None:
            training = Training(
                task, schedule, lr=lr, seed=seed, total_steps=total_steps, marks=True
            )
        else:
            training = Training.resumed(mark, schedule, total_steps)
        forks: dict[int, list[int]] = {}
        for i in others:
            forks.setdefault(_shared(lines[group[0]], lines[i]), []).append(i)
        later = []
        for place in sorted(forks):
            training.advance(place)
            later.append((None if training.diverged is not None else training.mark(), forks[place]))
        training.advance()
        found[group[0]] = training.result()
        # What diverged before a fork would have diverged alone, too: there is nothing to go on
        # from, and the others begin anew.
        todo += later
    return [found[i] for i in range(len(branches))]


LAST: Final = 1  # steps that every branch makes itself, so that its end is its own


def _shared(first: numpy.ndarray, other: numpy.ndarray) -> int:
    """Return for how many steps two runs are one."""
    end = min(len(first), len(other)) - LAST
    differ = numpy.flatnonzero(first[:end] != other[:end])
    return int(differ[0]) if len(differ) else end
