"""find_lr: the lr for a run, from a handful of runs in miniature."""

from __future__ import annotations

import math
import operator
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Unpack

import torch
from torch import nn

from ratecraft._training._short_runner import (
    Loss,
    ShortRunner,
    StepOptions,
    Steps,
    initial_lrs,
    switch,
)
from ratecraft._training._snapshot import Batches
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import LRFinderResult, ShortRun

from ._search import around_best, next_place, top

STEPS: Final = 200
RUNS: Final = 10  # a short run has one part in RUNS of the budget
LEAST: Final = 5  # steps in a short run
LOWEST: Final = 1e-12  # no lr below is tried, unless the optimizer begins there,
HIGHEST: Final = 1e4  # and none above
HELD: Final = 4  # steps' batches that are kept to judge by
FORWARD: Final = 1 / 3  # cost of a loss without gradients, in steps
CLEAR: Final = 3  # standard errors that a gain must have
HORIZON: Final = 7  # what is found is right for runs of so many times a short run's length,
PASSES: Final = 3  # and for so many passes over the data
LONGER: Final = 0.1  # longer runs want lrs by length ** -LONGER,
AGAIN: Final = 0.5  # and those that see the data more often by passes ** -AGAIN
START: Final = 1e-3  # where the optimizer has no lr to begin with


def find_lr(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: Loss,
    *,
    total_steps: int | None = None,
    steps: int = STEPS,
    progress: Callable[[int, int], None] | None = None,
    task: str = "",
    **how: Unpack[StepOptions],
) -> LRFinderResult:
    """Return the lr to train with, its band, and why; and leave everything as it was.

    Each lr that is tried trains a run in miniature: half of it at that lr, then linearly to
    0, always from the same weights, on the same batches, with the same random numbers. What
    counts is the loss on other batches afterwards. The first lr is the optimizer's own; from
    there the search goes downhill in steps of a decade, then half a decade.

    Where g(r) is what a short run at lr r gains, the loss before less the loss after, and r*
    the top of the parabola over log r through the best lr and its neighbours, which are tried
    on other batches, too, the lr is r*^(3/4) s^(1/4) for the smallest s with g(s) >= 0.9 g(r*).
    That is right for a run of 7 times a short run's length n and of 3 passes over the data;
    beyond, it is multiplied by (total / 7 n)^-0.1 and by (passes / 3)^-0.5, as measured on 30
    small tasks (benchmarks/regret).

    Args:
        model: the model, or several; see `range_test` for this and for what is not told here.
        optimizer: its optimizer, or several; param groups keep the ratios of their lrs, and
            the lr is that of the group with the highest.
        loader: batches of any structure, iterated again and again; or a function that opens a
            stream of them anew.
        loss: ``loss(model, batch)`` returns the training loss as a tensor.
        total_steps: length of the run to come, in steps; longer runs want lower lrs, above all
            where they see the same data again and again. Without it nothing is assumed.
        steps: what the search may cost: steps, and a third of one for each loss that is
            computed without gradients. A short run has a tenth of them.
        progress: called with (steps done, steps allowed) after each step.
        task: what is tested, in words, for the result.
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
    >>> found = find_lr(model, optimizer, x.split(8), loss, total_steps=200)
    >>> 0.03 < found.low < found.lr < found.high < 1
    True
    """
    total_steps = None if total_steps is None else operator.index(total_steps)
    steps = operator.index(steps)
    if total_steps is not None and total_steps < 1:
        raise SettingError(
            f"total_steps={total_steps}: expected the run's length in steps, at least 1"
        )
    length = steps // RUNS
    if length < LEAST:
        raise SettingError(
            f"steps={steps}: expected at least {LEAST * RUNS}, for {RUNS} short runs of {LEAST}"
        )
    started = time.perf_counter()
    bed = ShortRunner(model, optimizer, loader, loss, **how)
    start = max(initial_lrs(bed.optimizers)) or START
    tried = _Tried(bed, start, min(length, total_steps or length), steps, progress)
    gains: dict[float, float] = {}
    while (
        (place := next_place(gains, tried.level)) is not None
        and tried.reaches(place)
        and tried.affords(1)
    ):
        gains[place] = tried.run(place).gain
    best, again = max(gains, key=gains.__getitem__), around_best(gains)
    if place is None and gains[best] > 0 and tried.affords(len(again)):
        for one in again:  # on other batches, since luck is not the same there
            gains[one] = (gains[one] + tried.run(one, lot=1).gain) / 2
        best = max(again, key=gains.__getitem__)
    shift, why = _for_longer(total_steps, tried.length, bed)
    lr, low, high, reason = _answer(tried, gains, best, place, shift)
    reason += why if lr is not None else ""
    return LRFinderResult(
        lr=lr,
        low=low,
        high=high,
        reason=reason,
        before=tried.level,
        runs=tuple(sorted(tried.runs, key=lambda run: run.lr)),
        length=tried.length,
        total_steps=total_steps,
        allowed=steps,
        steps=bed.made,
        looks=bed.looked,
        batches=bed.batches,
        task=task,
        optimizer=bed.optimizer,
        seconds=time.perf_counter() - started,
    )


class _Tried:
    """The short runs so far, and how to make one more."""

    def __init__(
        self,
        bed: ShortRunner,
        start: float,
        length: int,
        allowed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.bed, self.start, self.length, self.allowed = bed, start, length, allowed
        self.runs: list[ShortRun] = []
        self._progress = progress
        self._before = [self._losses_of(0)]
        self.level = statistics.fmean(self._before[0])
        if not math.isfinite(self.level):
            raise RunFailed(
                f"the loss is {self.level} before any training; check the data and the loss "
                "function"
            )

    def reaches(self, place: float) -> bool:
        """Return whether an lr is within what is tried at all."""
        return min(self.start, LOWEST) <= self.start * 10**place <= max(self.start, HIGHEST)

    def affords(self, runs: int) -> bool:
        """Return whether so many runs are still allowed."""
        spent = self.bed.made + self.bed.looked / self.bed.accumulate * FORWARD
        looks = HELD * (runs + (runs > 1))
        return spent + runs * self.length + looks * FORWARD <= self.allowed

    def run(self, place: float, lot: int = 0) -> ShortRun:
        """Train from the start at one lr, cool down, and judge by the batches that are kept."""
        if lot == len(self._before):
            self._before.append(self._losses_of(lot))
        # Other batches may be harder as a whole: their gains are said on the first ones' scale.
        level = statistics.fmean(self._before[lot])
        scale = self.level / level if self.level > 0 < level else 1.0
        lr = self.start * 10**place
        losses: list[torch.Tensor] = []
        with self.bed.fresh() as steps:
            held = self._held(steps, lot)
            steady = (self.length + 1) // 2
            for k in range(self.length):
                steps.at(lr * min(1.0, (self.length - k) / (self.length - steady + 1)))
                losses.append(steps.make())
                if self._progress:
                    self._progress(self.bed.made, self.allowed)
                looks = (k + 1) % self.bed.check_every == 0
                if looks and not math.isfinite(losses[-1].item()):
                    break
            for optimizer in self.bed.optimizers:
                switch(optimizer, "eval")
            after = torch.stack([steps.look(few) for few in held]).tolist()
        values = torch.stack(losses).tolist()
        gained = [b - a for b, a in zip(self._before[lot], after, strict=True)]
        gain, noise = -math.inf, math.inf
        if all(map(math.isfinite, [*values, *gained])):
            gain = scale * statistics.fmean(gained)
            noise = scale * statistics.stdev(gained) / math.sqrt(HELD)
        self.runs.append(ShortRun(lr, tuple(values), gain, noise, lot))
        return self.runs[-1]

    def _held(self, steps: Steps, lot: int) -> list[list[Any]]:
        """Return a lot's batches that are kept; the next ones are those of its runs."""
        for _ in range(lot * (self.length + HELD)):
            steps.take()
        return [steps.take() for _ in range(HELD)]

    def _losses_of(self, lot: int) -> list[float]:
        """Return the losses of a lot's batches that are kept, before any training."""
        with self.bed.fresh() as steps:
            return [steps.look(few).item() for few in self._held(steps, lot)]


def _answer(
    tried: _Tried, gains: dict[float, float], best: float, left: float | None, shift: float
) -> tuple[float | None, float | None, float | None, str]:
    """Return the lr, its band and how they follow; or that there is none, why and what to do."""
    lrs = [run.lr for run in tried.runs]
    where = (
        f"{len(lrs)} short runs of {tried.length} steps at lrs from "
        f"{min(lrs):.2g} to {max(lrs):.2g}"
    )
    lr, gain = tried.start * 10**best, gains[best]
    found = top(gains, best)
    clear = any(run.gain > CLEAR * run.noise for run in tried.runs)
    problem = ""
    if math.isinf(gain):
        problem = f"all of {where} diverged; look for what makes the loss or its gradients nan"
    elif found is None or not clear:
        gained = "none gained anything"
        if gain > 0:
            noise = min(run.noise for run in tried.runs if run.lr == lr)
            gained = f"the best gained {gain:.2g} ± {noise:.2g}"
        longer = "allow more steps=, which makes them longer, or "
        if tried.length < tried.allowed // RUNS:  # the run to come is no longer than they are
            longer = ""
        problem = (
            f"of {where} {gained}, from a loss of {tried.level:.4g}; "
            f"{longer}look for why nothing is learned"
        )
    elif left is not None:
        problem = f"of {where} the best was near {lr:.2g}, and "
        if tried.reaches(left):
            problem += (
                "the steps allowed were used up before worse ones were seen on both sides; begin "
                "there, at the optimizer's own lr, or allow more steps="
            )
        else:
            wanted = tried.start * 10**left
            problem += f"lrs as far as {wanted:.2g} are not tried; look for why they are wanted"
    if problem or found is None:
        return None, None, None, f"no answer: {problem}"
    low, place, high = (tried.start * 10**one * shift for one in found)
    fell = f"where the loss fell by {gain:.3g} from {tried.level:.4g}"
    return place, low, high, f"the best of {where} is near {lr:.2g}, {fell}"


def _for_longer(total_steps: int | None, length: int, bed: ShortRunner) -> tuple[float, str]:
    """Return by what the lr of short runs is multiplied for a longer run, and say so."""
    if total_steps is None:
        return 1.0, ""
    longer = max(total_steps / (HORIZON * length), 1.0)
    batches = bed.epoch()
    passes = total_steps * bed.accumulate / batches if batches else 0.0
    shift = longer**-LONGER * max(passes / PASSES, 1.0) ** -AGAIN
    if shift == 1:
        return shift, ""
    often = f" that sees the data {passes:.0f} times" if passes > PASSES else ""
    return shift, f"; times {shift:.2g} for a run of {total_steps} steps{often}"
