"""Compare a schedule with a peer's lrs at every step."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from ratecraft import Schedule

# Tolerances relative to the peak. The drift of recursive forms stays far below FLOAT64's.
FLOAT64 = 1e-9
FLOAT32 = 2e-6

Attach = Callable[[torch.optim.Optimizer], LRScheduler]


def lrs(attach: Attach, steps: int, lr: float = 1.0) -> list[float]:
    """Return the lr that each step uses under a torch scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = attach(optimizer)
    used = [optimizer.param_groups[0]["lr"]]
    optimizer.step()  # torch warns unless the optimizer steps before its scheduler
    for _ in range(steps - 1):
        scheduler.step()
        used.append(optimizer.param_groups[0]["lr"])
    return used


def max_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the largest difference at any step, relative to the peak of theirs."""
    assert len(ours) == len(theirs)
    differences = np.abs(np.asarray(ours, float) - np.asarray(theirs, float))
    return float(differences.max() / (np.abs(theirs).max() or 1))


def agree(
    schedule: Schedule,
    theirs: Sequence[float],
    *,
    total_steps: int | None = None,
    offset: int = 0,
    within: float = FLOAT64,
) -> None:
    """Check a schedule against a peer's lrs at steps 0, 1, ..., one by one and as an array.

    Args:
        schedule: the schedule of ratecraft.
        theirs: the peer's lr at each step.
        total_steps: length of the run; default ``len(theirs)``.
        offset: added to the step at which the schedule is evaluated, for peers that count from 1.
        within: largest allowed difference, relative to the peak of theirs.
    """
    curve = schedule.resolve(total_steps=total_steps or len(theirs))
    times = range(offset, offset + len(theirs))
    assert max_difference([curve(t) for t in times], theirs) <= within
    assert max_difference(curve.values(times), theirs) <= within
