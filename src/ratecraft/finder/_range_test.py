"""The classical range test: raise the lr every step and watch the loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import torch
from torch import nn

from ratecraft._training._short_runner import Clip, Loss, ShortRunner
from ratecraft._training._snapshot import Batches
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import LRRangeTestResult

LEAST_STEPS: Final = 100
FEW: Final = 10  # steps whose average is of too few losses to be a minimum or an explosion


def range_test(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: Loss,
    *,
    low: float = 1e-8,
    high: float = 10.0,
    steps: int | None = None,
    spacing: Literal["geometric", "linear"] = "geometric",
    beta: float | None = None,
    control: int = 0,
    stop: float = 4.0,
    accumulate: int = 1,
    clip: Clip | None = None,
    scaler: Any = None,
    momentum: tuple[float, float] | None = None,
    reduce: bool | None = None,
    check_every: int | None = None,
    on_disk: bool | str = False,
    progress: Callable[[int, int], None] | None = None,
    task: str = "",
) -> LRRangeTestResult:
    """Train with an lr that grows each step, and leave everything as it was.

    lr_k = low (high / low)^(k / (steps - 1)), or low + (high - low) k / (steps - 1); the
    loss is smoothed as a_k = beta a_(k-1) + (1 - beta) loss_k, s_k = a_k / (1 - beta^(k+1)); the
    test ends when s_k exceeds ``stop`` times its minimum so far, or a loss is not finite. See
    `preserve_state` for what is put back, on a normal end, on an exception and on Ctrl-C. The average
    of the first 10 steps is of too few losses to count as a minimum or as an explosion.

    Args:
        model: the model, or several; trained in the modes its modules are in, and in training
            mode if it is in evaluation mode.
        optimizer: its optimizer, or several; param groups keep the ratios of their lrs, and
            the recorded lr is that of the group with the highest. One that wants a closure,
            such as LBFGS, is given one.
        loader: batches of any structure, iterated again and again; or a function that opens a
            stream of them anew.
        loss: ``loss(model, batch)`` returns the training loss as a tensor; of more than one
            element the mean is taken. Mixed precision is said in there, with ``autocast``.
        low: first lr.
        high: last lr.
        steps: number of steps; default one pass over the loader, or 100 if that is longer.
        spacing: "geometric" or "linear" lrs.
        beta: smoothing, 0 <= beta < 1; default 0.98, or 0.9 with ``control``.
        control: this many batches are used again and again, and of each loss only its distance
            to the one its batch had before training is smoothed: a control variate, without
            which the luck of the batches has to be smoothed away. The suggestion is a quarter of
            the minimum's lr then. 0: every batch is used once.
        stop: how many times its minimum the smoothed loss may reach. Where losses can be <= 0
            the same is asked of the rise above the minimum, relative to the fall before it.
        accumulate: batches a step; their mean gradient and mean loss are taken.
        clip: largest norm of the gradients, or a function that clips those of the parameters.
        scaler: a GradScaler, as the run will use.
        momentum: first and last momentum (of Adam's kind: the first of ``betas``) over the test.
        reduce: whether losses are averaged over the processes of a distributed run, so that all
            see the same and stop together; default: if the model is a DistributedDataParallel.
        check_every: steps between two looks at the losses; default 8 where they lie on a
            device, which is not waited for in between, and 1 otherwise. Up to as many steps
            are made in vain after an explosion.
        on_disk: keep the copies of large tensors in a temporary folder, not in memory.
        progress: called with (steps done, steps planned) after each step.
        task: what is tested, in words, for the result.

    Raises:
        SettingError: a setting is outside its range.
        RunFailed: the very first loss is not finite.
        TaskError: the loader is empty or one-way, nothing is to be trained, or the loss is no
            tensor with a gradient.

    Source: Smith 2015, arXiv 1506.01186; in this form Gugger 2018.

    >>> x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    >>> model = nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> def loss(model, batch):
    ...     return ((model(batch) - 3 * batch - 1) ** 2).mean()
    >>> result = range_test(model, optimizer, x.split(8), loss)
    >>> 0.001 < result.suggestion < 1
    True
    """
    beta = (0.9 if control else 0.98) if beta is None else beta
    _check_range(low, high, spacing, beta, stop)
    if control < 0:
        raise SettingError(f"control={control}: expected a number of batches, or 0 for none")
    if momentum is not None and not all(0 <= value < 1 for value in momentum):
        raise SettingError(f"momentum={momentum}: expected two numbers, 0 <= m < 1")
    bed = ShortRunner(
        model, optimizer, loader, loss, accumulate=accumulate, clip=clip, scaler=scaler,
        reduce=reduce, check_every=check_every, on_disk=on_disk,
    )  # fmt: skip
    planned = bed.least(steps) if steps is not None else planned_steps(bed)
    if planned < 2:
        raise SettingError(f"steps={planned}: a range test needs at least 2")
    started = time.perf_counter()
    stopped = f"all {planned} steps were made"
    waiting: list[tuple[float, torch.Tensor]] = []
    with bed.fresh() as run:
        again = [run.take() for _ in range(control)]
        curve = _Curve(
            beta, stop, torch.stack([run.look(few) for few in again]).tolist() if again else []
        )
        geometric = spacing == "geometric"
        for k in range(planned):
            done = k / (planned - 1)
            lr = low * (high / low) ** done if geometric else low + (high - low) * done
            turned = momentum and momentum[0] + (momentum[1] - momentum[0]) * done
            run.at(lr, turned)
            waiting.append((lr, run.make(again[k % control] if again else None)))
            if progress:
                progress(k + 1, planned)
            if k > 0 and len(waiting) < bed.check_every and k < planned - 1:
                continue
            if end := curve.take(waiting):
                stopped = end
                break
            waiting.clear()
    return LRRangeTestResult.from_curve(
        curve.lrs,
        curve.losses,
        curve.smoothed,
        stopped,
        low=low,
        high=high,
        planned=planned,
        spacing=spacing,
        batches=bed.batches,
        control=control,
        task=task,
        optimizer=bed.optimizer,
        seconds=time.perf_counter() - started,
    )


def _check_range(low: float, high: float, spacing: str, beta: float, stop: float) -> None:
    if not 0 < low < high < math.inf or math.isinf(high / low):
        raise SettingError(f"low={low:g}, high={high:g}: expected 0 < low < high, both finite")
    if not 0 <= beta < 1 or not stop > 1:
        raise SettingError(f"beta={beta:g}, stop={stop:g}: expected 0 <= beta < 1 and stop > 1")
    if spacing not in ("geometric", "linear"):
        raise SettingError(f'spacing={spacing!r} is neither "geometric" nor "linear"')


def planned_steps(bed: ShortRunner) -> int:
    """Return the steps of a test whose length is not said."""
    return max((bed.epoch() or 0) // bed.accumulate, LEAST_STEPS)


class _Curve:
    """The losses so far, smoothed, and the rule that ends the test."""

    def __init__(self, beta: float, stop: float, starts: list[float]) -> None:
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._beta, self._stop, self._starts = beta, stop, starts
        self._level = sum(starts) / len(starts) if starts else 0.0
        self._average, self._best, self._signed = 0.0, math.inf, False

    def take(self, waiting: list[tuple[float, torch.Tensor]]) -> str:
        """Take in some steps up to the one that ends the test; return why it ends there."""
        # One transfer for all of them: a device is waited for once. A single one has a shorter way.
        several = len(waiting) > 1
        losses = [loss for _, loss in waiting]
        values = torch.stack(losses).tolist() if several else [losses[0].item()]
        for (lr, _), value in zip(waiting, values, strict=True):
            if not math.isfinite(value):
                if not self.lrs:
                    raise RunFailed(
                        f"the loss is {value} at the first step, before any training; "
                        "check the data and the loss function"
                    )
                return f"the loss was {value} at lr {lr:.3g}"
            if self._add(lr, value):
                times = f"{self._stop:g} times its minimum"
                return f"the smoothed loss exceeded {times} at lr {lr:.3g}"
        return ""

    def _add(self, lr: float, loss: float) -> bool:
        """Take in one step; return whether the loss has exploded."""
        start = self._starts[len(self.losses) % len(self._starts)] if self._starts else 0.0
        self._average = self._beta * self._average + (1 - self._beta) * (loss - start)
        smooth = self._level + self._average / (1 - self._beta ** (len(self.losses) + 1))
        self.lrs.append(lr)
        self.losses.append(loss)
        self.smoothed.append(smooth)
        self._signed = self._signed or loss <= 0
        if len(self.losses) <= FEW:
            return False
        self._best = min(self._best, smooth)
        if self._signed:
            # A multiple of a number <= 0 is no limit; the rise is measured by the fall instead.
            scale = max(abs(self._best), abs(self.smoothed[0] - self._best))
            return smooth - self._best > (self._stop - 1) * scale
        return smooth > self._stop * self._best
