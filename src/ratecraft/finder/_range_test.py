"""range_test: raise the learning rate every step and record the loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import torch
from torch import nn

from ratecraft._keywords import explain_arguments
from ratecraft._training._short_runner import Clip, LossFunction, ShortRunner
from ratecraft._training._snapshot import Batches
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import LRRangeTestResult

MIN_DEFAULT_STEPS: Final = 100  # default steps of a test where the loader is shorter
IGNORED_STEPS: Final = 10  # the first 10 averages count neither as a minimum nor as a divergence


@explain_arguments(
    "range_test() takes model, optimizer, loader and loss by position and the rest by keyword, "
    "such as steps=; it takes no schedule, because low=, high= and spacing= set the learning rates"
)
def range_test(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: LossFunction,
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
    """Train with a learning rate that grows every step, and restore everything afterwards.

    lr_k = low (high / low)^(k / (steps - 1)), or low + (high - low) k / (steps - 1). The loss
    is smoothed as a_k = beta a_(k-1) + (1 - beta) loss_k, s_k = a_k / (1 - beta^(k+1)). The test
    ends when s_k exceeds ``stop`` times its minimum so far, or when a loss is not finite; the
    averages of the first 10 steps count neither as a minimum nor as a divergence. State is
    restored as described in `preserve_state`, also after an exception and after Ctrl-C.

    Args:
        model: the model, or several. Modules keep their modes, except that a model in evaluation
            mode is switched to training mode.
        optimizer: its optimizer, or several. Param groups keep the ratios of their learning
            rates; ``lrs`` holds that of the group with the highest one. An optimizer that needs
            a closure, such as LBFGS, gets one.
        loader: an iterable of batches of any structure that can be iterated repeatedly, or a
            function that returns a new one.
        loss: ``loss(model, batch)`` returns the training loss as a tensor; of several elements
            the mean is used. Use ``autocast`` inside it for mixed precision.
        low: first learning rate.
        high: last learning rate.
        steps: number of steps; default one pass over the loader, but at least 100.
        spacing: "geometric" or "linear" learning rates.
        beta: smoothing, 0 <= beta < 1; default 0.98, or 0.9 with ``control``.
        control: number of batches that are reused as control variates: each loss enters the
            average as its difference from the initial loss of the same batch, which removes the
            noise between batches. The suggestion is then a quarter of the learning rate at the
            minimum. Default 0: read a new batch for every step.
        stop: multiple of its minimum at which the smoothed loss ends the test. Once a loss <= 0
            has been seen, the test ends when the rise above the minimum exceeds (``stop`` - 1)
            times the larger of |minimum| and the fall from the first value.
        accumulate: batches per step; their gradients and losses are averaged.
        clip: largest norm of the gradients, or a function that clips the parameters it gets.
        scaler: a GradScaler, as in the training run.
        momentum: first and last momentum of the test (for Adam the first of ``betas``).
        reduce: average the losses over the processes of a distributed run, so that all of them
            see the same values and stop together; default: if the model is a
            DistributedDataParallel.
        check_every: steps between two checks of the losses; default 8 on an accelerator, where
            each check waits for it, and 1 on the CPU. After a divergence fewer than this many
            steps are wasted.
        on_disk: write the copies of large tensors to a temporary folder, not to memory.
        progress: called as ``progress(steps_done, steps)`` after each step.
        task: description of the task, for the result.

    Raises:
        SettingError: an argument is out of its range.
        RunFailed: the first loss is not finite.
        TaskError: the loader is empty or can be iterated only once, all parameters are frozen, or
            the loss is not a tensor that requires grad.

    Source: Smith 2015, arXiv 1506.01186; in this form Gugger 2018.

    >>> import torch
    >>> from torch import nn
    >>> from ratecraft.finder import range_test
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
    _check_arguments(low, high, spacing, beta, stop, control, momentum)
    runner = ShortRunner(
        model, optimizer, loader, loss, accumulate=accumulate, clip=clip, scaler=scaler,
        reduce=reduce, check_every=check_every, on_disk=on_disk,
    )  # fmt: skip
    planned = default_steps(runner) if steps is None else runner.min_over_processes(steps)
    if planned < 2:
        raise SettingError(f"steps={planned}: a range test needs at least 2")
    started = time.perf_counter()
    stop_reason = f"all {planned} steps were taken"
    unread: list[tuple[float, torch.Tensor]] = []
    with runner.start() as training:
        reused = [training.next_batches() for _ in range(control)]
        initial_losses = [training.evaluate(batches) for batches in reused]
        curve = _Curve(beta, stop, torch.stack(initial_losses).tolist() if reused else [])
        for k in range(planned):
            share = k / (planned - 1)
            geometric = spacing == "geometric"
            lr = low * (high / low) ** share if geometric else low + (high - low) * share
            training.set_lr(lr, momentum and momentum[0] + (momentum[1] - momentum[0]) * share)
            unread.append((lr, training.step(reused[k % control] if reused else None)))
            if progress:
                progress(k + 1, planned)
            if k > 0 and len(unread) < runner.check_every and k < planned - 1:
                continue
            if end := curve.extend(unread):
                stop_reason = end
                break
            unread.clear()
    return LRRangeTestResult.from_curve(
        curve.lrs,
        curve.losses,
        curve.smoothed,
        stop_reason,
        low=low,
        high=high,
        planned_steps=planned,
        spacing=spacing,
        batches=runner.batches_read,
        control=control,
        task=task,
        optimizer=runner.optimizer_name,
        seconds=time.perf_counter() - started,
    )


def _check_arguments(
    low: float,
    high: float,
    spacing: str,
    beta: float,
    stop: float,
    control: int,
    momentum: tuple[float, float] | None,
) -> None:
    if not 0 < low < high < math.inf or math.isinf(high / low):
        raise SettingError(f"low={low:g}, high={high:g}: expected 0 < low < high, both finite")
    if not 0 <= beta < 1 or not stop > 1:
        raise SettingError(f"beta={beta:g}, stop={stop:g}: expected 0 <= beta < 1 and stop > 1")
    if spacing not in ("geometric", "linear"):
        raise SettingError(f'spacing={spacing!r}: expected "geometric" or "linear"')
    if control < 0:
        raise SettingError(f"control={control}: expected a number of batches, or 0 for none")
    if momentum is not None and not all(0 <= value < 1 for value in momentum):
        raise SettingError(f"momentum={momentum}: expected two numbers, 0 <= m < 1")


def default_steps(runner: ShortRunner) -> int:
    """Return the steps of one pass over the loader, but at least `MIN_DEFAULT_STEPS`."""
    return max((runner.batches_per_epoch() or 0) // runner.accumulate, MIN_DEFAULT_STEPS)


class _Curve:
    """The losses so far, smoothed, and the rule that ends the test.

    ``initial_losses`` are those of the reused batches; the average is then one of differences
    from them.
    """

    def __init__(self, beta: float, stop: float, initial_losses: list[float]) -> None:
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._beta, self._stop, self._initial = beta, stop, initial_losses
        self._level = sum(initial_losses) / len(initial_losses) if initial_losses else 0.0
        self._average, self._minimum, self._signed = 0.0, math.inf, False

    def extend(self, steps: list[tuple[float, torch.Tensor]]) -> str:
        """Add steps up to the one that ends the test; return why it ends, or an empty text."""
        # Reading several losses in one transfer waits for an accelerator only once; item() is
        # faster for a single one.
        losses = [loss for _, loss in steps]
        values = torch.stack(losses).tolist() if len(steps) > 1 else [losses[0].item()]
        for (lr, _), value in zip(steps, values, strict=True):
            if not math.isfinite(value):
                if not self.lrs:
                    raise RunFailed(
                        f"the loss is {value} at the first step, before any training; "
                        "check the data and the loss function"
                    )
                return f"the loss was {value} at lr {lr:.3g}"
            if self._add(lr, value):
                excess = f"exceeded {self._stop:g} times its minimum"
                if self._signed:
                    excess = "rose too far above its minimum"
                return f"the smoothed loss {excess} at lr {lr:.3g}"
        return ""

    def _add(self, lr: float, loss: float) -> bool:
        """Add one step; return whether the loss has diverged."""
        initial = self._initial[len(self.losses) % len(self._initial)] if self._initial else 0.0
        self._average = self._beta * self._average + (1 - self._beta) * (loss - initial)
        smooth = self._level + self._average / (1 - self._beta ** (len(self.losses) + 1))
        self.lrs.append(lr)
        self.losses.append(loss)
        self.smoothed.append(smooth)
        self._signed = self._signed or loss <= 0
        if len(self.losses) <= IGNORED_STEPS:
            return False
        self._minimum = min(self._minimum, smooth)
        if self._signed:
            # A multiple of a minimum <= 0 is no limit; compare the rise to the fall instead.
            scale = max(abs(self._minimum), abs(self.smoothed[0] - self._minimum))
            return smooth - self._minimum > (self._stop - 1) * scale
        return smooth > self._stop * self._minimum
