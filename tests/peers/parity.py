"""What every parity test does: read both schedules at every step, and compare."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from ratecraft import Schedule

FLOAT64 = 1e-9  # of the peak: the drift of recursive forms stays far below
FLOAT32 = 2e-6

Attach = Callable[[torch.optim.Optimizer], LRScheduler]


def lrs(attach: Attach, steps: int, lr: float = 1.0) -> list[float]:
    """Return the lr that each step uses under a torch scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = attach(optimizer)
    used = [optimizer.param_groups[0]["lr"]]
    optimizer.step()  # changes no lr; torch wants it to have been called once
    for _ in range(steps - 1):
        scheduler.step()
        used.append(optimizer.param_groups[0]["lr"])
    return used


def apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the largest difference at any step, in peaks of theirs."""
    assert len(ours) == len(theirs)
    gaps = np.abs(np.asarray(ours, float) - np.asarray(theirs, float))
    return float(gaps.max() / (np.abs(theirs).max() or 1))


def agree(
    schedule: Schedule,
    theirs: Sequence[float],
    *,
    total: int | None = None,
    later: int = 0,
    within: float = FLOAT64,
) -> None:
    """Check a schedule against a peer's lrs at steps 0, 1, ..., singly and as an array.

    Args:
        schedule: ours.
        theirs: the peer's lr at each step of the run, first and last included.
        total: length of the run, if theirs go on past its end.
        later: how many steps later ours is read, where a peer counts from 1.
        within: largest difference, in peaks of theirs.
    """
    curve = schedule.resolve(total_steps=total or len(theirs))
    times = range(later, later + len(theirs))
    assert apart([curve(t) for t in times], theirs) <= within
    assert apart(curve.values(times), theirs) <= within
