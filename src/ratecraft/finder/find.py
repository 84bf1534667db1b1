"""find_lr: the rate for a run, from a handful of runs in miniature."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, Unpack

import torch
from torch import nn

from ratecraft.errors import RunFailed, SettingError
from ratecraft.finder.preserve import Batches
from ratecraft.finder.search import next_place, top
from ratecraft.finder.testbed import How, Loss, Testbed, set_rates
from ratecraft.records import FoundRate, ShortRun

__all__ = ["find_lr"]

UPDATES: Final = 200
RUNS: Final = 10  # a short run has one part in RUNS of the budget
LEAST: Final = 5  # updates in a short run
HELD: Final = 4  # updates' batches that are kept to judge by
FORWARD: Final = 1 / 3  # cost of a loss without gradients, in updates
CLEAR: Final = 3  # standard errors that a gain must have
HORIZON: Final = 7  # what is found is right for runs of so many times a short run's length
SLOPE: Final = 0.35  # longer runs want rates by length ** -SLOPE
START: Final = 1e-3  # where the optimizer has no rate to begin with


def find_lr(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: Loss,
    *,
    total: int | None = None,
    updates: int = UPDATES,
    progress: Callable[[int, int], None] | None = None,
    task: str = "",
    **how: Unpack[How],
) -> FoundRate:
    """Return the rate to train with, its band, and why; and leave everything as it was.

    Each rate that is tried trains a run in miniature: half of it at that rate, then linearly to
    0, always from the same weights, on the same batches, with the same random numbers. What
    counts is the loss on other batches afterwards. The first rate is the optimizer's own; from
    there the search goes downhill in steps of a decade, then half a decade.

    Where g(r) is what a short run at rate r gains, the loss before less the loss after, and r*
    is the top of the parabola through the best three of it over log r, the rate is the geometric
    mean of r* and the smallest r with g(r) >= 0.95 g(r*). For a run of more than 7 times a short
    run's length n it is multiplied by (total / 7 n)^-0.35.

    Args:
        model: the model, or several; see `range_test` for this and for what is not told here.
        optimizer: its optimizer, or several; param groups keep the ratios of their rates, and
            the rate is that of the group with the highest.
        loader: batches of any structure, iterated again and again; or a function that opens a
            stream of them anew.
        loss: ``loss(model, batch)`` returns the training loss as a tensor.
        total: length of the run to come, in updates; longer runs want lower rates. Without it
            the rate is for a run of about 7 times a short run's length.
        updates: what the search may cost: updates, and a third of one for each loss that is
            computed without gradients. A short run has a tenth of them.
        progress: called with (updates done, updates allowed) after each update.
        task: what is tested, in words, for the record.
        how: ``accumulate=``, ``clip=``, ``scaler=``, ``reduce=``, ``check_every=``, ``on_disk=``
            as in `range_test`.

    Raises:
        SettingError: a setting is outside its range.
        RunFailed: the loss is not finite before any training.
        TaskError: the loader is empty or one-way, nothing is to be trained, or the loss is no
            tensor with a gradient.

    >>> x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    >>> model = nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    >>> def loss(model, batch):
    ...     return ((model(batch) - 3 * batch - 1) ** 2).mean()
    >>> found = find_lr(model, optimizer, x.split(8), loss, total=200)
    >>> 0.03 < found.low < found.rate < found.high < 1
    True
    """
    if total is not None and total < 1:
        raise SettingError(f"total={total}: expected the run's length in updates, at least 1")
    length = updates // RUNS
    if length < LEAST:
        raise SettingError(
            f"updates={updates}: expected at least {LEAST * RUNS}, for {RUNS} short runs of {LEAST}"
        )
    length = min(length, total or length)
    bed = Testbed(model, optimizer, loader, loss, **how)
    started = time.perf_counter()
    start = max(set_rates(bed.optimizers)) or START
    before = _held_losses(bed)
    level = statistics.fmean(before)
    if not math.isfinite(level):
        raise RunFailed(
            f"the loss is {level} before any training; check the data and the loss function"
        )
    gains: dict[float, float] = {}
    runs: list[ShortRun] = []
    while (place := next_place(gains, level)) is not None:
        cost = bed.made + bed.looked / bed.accumulate * FORWARD
        if cost + length + HELD * FORWARD > updates:
            break
        run = _short_run(bed, start * 10**place, length, before, progress, updates)
        runs.append(run)
        gains[place] = run.gain
    rate, low, high, reason = _answer(runs, gains, start, level, length, total, place is None)
    return FoundRate(
        rate=rate,
        low=low,
        high=high,
        reason=reason,
        before=level,
        runs=tuple(sorted(runs, key=lambda run: run.rate)),
        length=length,
        total=total,
        allowed=updates,
        updates=bed.made,
        looks=bed.looked,
        batches=bed.batches,
        task=task,
        optimizer=bed.optimizer,
        seconds=time.perf_counter() - started,
    )


def _held_losses(bed: Testbed) -> list[float]:
    """Return the losses of the batches that are kept, before any training."""
    with bed.fresh() as run:
        return torch.stack([run.look(run.take()) for _ in range(HELD)]).tolist()


def _short_run(
    bed: Testbed,
    rate: float,
    length: int,
    before: list[float],
    progress: Callable[[int, int], None] | None,
    allowed: int,
) -> ShortRun:
    """Train from the start at one rate, then cool down, and judge by the batches that are kept."""
    losses: list[torch.Tensor] = []
    with bed.fresh() as run:
        held = [run.take() for _ in range(HELD)]
        steady = length // 2
        for k in range(length):
            run.at(rate * min(1.0, (length - k) / (length - steady + 1)))
            losses.append(run.make())
            if progress:
                progress(bed.made, allowed)
            if (k + 1) % bed.check_every == 0 and not math.isfinite(losses[-1].item()):
                break
        after = torch.stack([run.look(few) for few in held]).tolist()
    values = torch.stack(losses).tolist()
    differences = [b - a for b, a in zip(before, after, strict=True)]
    gain = statistics.fmean(differences)
    if not math.isfinite(gain) or not all(map(math.isfinite, values)):
        return ShortRun(rate, tuple(values), -math.inf, math.inf)
    noise = statistics.stdev(differences) / math.sqrt(HELD)
    return ShortRun(rate, tuple(values), gain, noise)


def _answer(
    runs: Sequence[ShortRun],
    gains: dict[float, float],
    start: float,
    level: float,
    length: int,
    total: int | None,
    enclosed: bool,
) -> tuple[float | None, float | None, float | None, str]:
    """Return the rate, its band and how they follow; or that there is none, why and what to do."""
    tried = sorted(run.rate for run in runs)
    where = (
        f"{len(runs)} short runs of {length} updates at rates from "
        f"{tried[0]:.2g} to {tried[-1]:.2g}"
    )
    best = max(runs, key=lambda run: run.gain)
    found = top(gains)
    if found is None or not best.gain > CLEAR * best.noise:
        gained = (
            "none gained anything"
            if found is None
            else (f"the most that one gained was {best.gain:.2g} ± {best.noise:.2g}")
        )
        return (
            None,
            None,
            None,
            (
                f"no answer: of {where} {gained}, from a loss of {level:.4g}; allow more updates=, "
                "which makes them longer, or look for why nothing is learned"
            ),
        )
    if not enclosed and max(gains, key=gains.__getitem__) in (max(gains), min(gains)):
        return (
            None,
            None,
            None,
            (
                f"no answer: of {where} the last gained most, and no more updates were allowed; "
                f"begin nearer to {best.rate:.2g}, the optimizer's rate, or allow more updates="
            ),
        )
    shift = 1.0
    if total is not None and total > HORIZON * length:
        shift = (total / (HORIZON * length)) ** -SLOPE
    low, rate, high = (start * 10**place * shift for place in found)
    reason = (
        f"the best of {where} is near {best.rate:.2g}, where the loss fell "
        f"from {level:.4g} to {level - best.gain:.4g}"
    )
    if shift < 1:
        reason += f"; for a run of {total} updates times {shift:.2g}"
    return rate, low, high, reason
