"""range_test: raise the learning rate every step and record the loss."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, Unpack

import torch
from torch import nn

from ratecraft._keywords import explain_arguments
from ratecraft._progress import show_steps
from ratecraft._training._processes import Processes
from ratecraft._training._short_runner import LossFunction, ShortRunner, StepOptions
from ratecraft._training._snapshot import Batches, as_list
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import LRRangeTestResult

MIN_DEFAULT_STEPS: Final = 100  # default steps of a test where the loader is shorter
IGNORED_STEPS: Final = 10  # the first 10 averages count neither as a minimum nor as a divergence
SKIPPED_FRACTION: Final = 0.1  # of the curve, at its start, where a minimum is batch noise
PLATEAU_PARTS: Final = 3  # the plateau is the first 1/PLATEAU_PARTS of the curve
CONSTANT_LOSS_REL_TOL: Final = 1e-9  # a range of losses below this is rounding error
MIN_DROP_REL: Final = 0.01  # smallest drop below the plateau, relative to the plateau
MIN_DROP_SIGMAS: Final = 3  # the same, in standard errors of the plateau's mean


@explain_arguments(
    "range_test() takes model, optimizer, loader and loss by position and the rest by keyword, "
    "such as steps=; it takes no schedule, because low=, high= and spacing= set the learning rates",
    options=StepOptions.__annotations__,
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
    beta: float = 0.98,
    stop: float = 4.0,
    momentum: tuple[float, float] | None = None,
    progress: Callable[[int, int], object] | bool | None = None,
    task: str = "",
    **options: Unpack[StepOptions],
) -> LRRangeTestResult:
    """Train with a learning rate that grows every step, and restore everything afterwards.

    lr_k = low (high / low)^(k / (steps - 1)), or low + (high - low) k / (steps - 1). The loss
    is smoothed as a_k = beta a_(k-1) + (1 - beta) loss_k, s_k = a_k / (1 - beta^(k+1)). The test
    ends when s_k exceeds ``stop`` times its minimum so far, or when a loss is not finite; the
    averages of the first 10 steps count neither as a minimum nor as a divergence. State is
    restored as described in `preserve_state`, also after an exception and after Ctrl-C.

    The suggestion is a tenth of the learning rate at the minimum of s_k after the first tenth of
    the curve. The minimum must be below s_k at the end of that tenth and below the mean loss of
    the first third, by 1 % and by three standard errors of that mean.

    Args:
        model: the model, or several. Modules keep their modes, but a model in evaluation mode is
            switched to training mode.
        optimizer: its optimizer, or several. Param groups keep the ratios of their learning
            rates; ``lrs`` holds that of the group with the highest one. An optimizer that needs
            a closure, such as LBFGS, gets one.
        loader: an iterable of batches that can be iterated repeatedly, or a function that returns
            a new one.
        loss: ``loss(model, batch)`` returns the training loss as a tensor; of several elements
            the mean is used. Use ``autocast`` inside it for mixed precision.
        low: first learning rate.
        high: last learning rate.
        steps: number of steps; default one pass over the loader, but at least 100.
        spacing: "geometric" or "linear" learning rates.
        beta: smoothing, 0 <= beta < 1.
        stop: multiple of its minimum at which the smoothed loss ends the test. Once a loss <= 0
            has been seen, the test ends when the rise above the minimum exceeds (``stop`` - 1)
            times the larger of |minimum| and the fall from the first value.
        momentum: first and last momentum of the test (for Adam the first of ``betas``).
        progress: called as ``progress(steps_done, steps)`` after each step, or None, True or False,
            as in `find_lr`.
        task: text for the result.
        options: ``accumulate=``, batches per step, whose gradients and losses are averaged;
            ``clip=``, the largest norm of the gradients, or a function that clips the parameters
            it gets; ``scaler=``, a GradScaler; ``reduce=``, whether to average the losses over
            the processes of a distributed run, so that all stop together (default: if the model
            is in DistributedDataParallel or ``fully_shard``); ``check_every=``, steps between two
            checks of the losses (default 8 on an accelerator, which each check waits for, and 1 on
            the CPU); ``on_disk=``, as in `preserve_state`.

    Raises:
        SettingError: an argument is out of its range; or the processes of a distributed search
            have different settings, which the message names.
        RunFailed: the first loss is not finite.
        TaskError: the loader is empty or can be iterated only once, all parameters are frozen, the
            loss is not a tensor that requires grad, or another process failed.
        BindingError: a param group has a learning rate that is negative, not finite, or an integer
            tensor.

    Source: Smith 2015, arXiv 1506.01186; in this form Gugger 2018, "How do you find a good
    learning rate"; the checks of the suggestion are added.

    >>> import torch
    >>> x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    >>> model = torch.nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> def loss(model, batch):
    ...     return ((model(batch) - 3 * batch - 1) ** 2).mean()
    >>> result = range_test(model, optimizer, x.split(8), loss)
    >>> 0.001 < result.suggestion < 1
    True
    """
    processes = Processes(as_list(model, nn.Module), options.get("reduce"))
    with processes.agreement() as settings:
        _check(beta, stop, momentum)
        settings.update(low=low, high=high, steps=steps, spacing=spacing)
        settings.update(beta=beta, stop=stop, momentum=momentum)
        runner = ShortRunner(model, optimizer, loader, loss, processes, **options)
        settings.update(runner.settings())
    planned = steps
    if planned is None:
        planned = max((runner.batches_per_epoch() or 0) // runner.accumulate, MIN_DEFAULT_STEPS)
    if planned < 2:
        raise SettingError(f"steps={planned}: a range test needs at least 2")
    started = time.perf_counter()
    curve = _Curve(_lrs(low, high, planned, spacing), beta, stop)
    unread: list[torch.Tensor] = []
    with show_steps(progress, "range test") as advance, runner.start():
        for k, lr in enumerate(curve.planned_lrs):
            share = k / (planned - 1)
            runner.set_lr(lr, momentum and momentum[0] + (momentum[1] - momentum[0]) * share)
            unread.append(runner.step())
            if advance is not None:
                advance(k + 1, planned)
            # The first loss is read at once: if it is not finite, no step follows.
            if k == 0 or len(unread) == runner.check_every or k == planned - 1:
                curve.extend(unread)
                unread.clear()
            if curve.end:
                break
    losses, smoothed = tuple(curve.losses), tuple(curve.smoothed)
    lrs = tuple(curve.planned_lrs[: len(losses)])
    return LRRangeTestResult(
        lrs,
        losses,
        smoothed,
        curve.end or f"all {planned} steps were taken",
        *suggest_lr(lrs, losses, smoothed),
        low=low,
        high=high,
        planned_steps=planned,
        spacing=spacing,
        batches=runner.batches_read,
        task=task,
        optimizer=runner.optimizer_name,
        seconds=time.perf_counter() - started,
    )


def _check(beta: float, stop: float, momentum: tuple[float, float] | None) -> None:
    if not 0 <= beta < 1 or not stop > 1:
        raise SettingError(f"beta={beta:g}, stop={stop:g}: expected 0 <= beta < 1 and stop > 1")
    if momentum is not None and not all(0 <= value < 1 for value in momentum):
        raise SettingError(f"momentum={momentum}: expected two numbers, 0 <= m < 1")


def _lrs(low: float, high: float, steps: int, spacing: str) -> list[float]:
    if not 0 < low < high < math.inf or math.isinf(high / low):
        raise SettingError(f"low={low:g}, high={high:g}: expected 0 < low < high, both finite")
    if spacing not in ("geometric", "linear"):
        raise SettingError(f'spacing={spacing!r}: expected "geometric" or "linear"')
    shares = [k / (steps - 1) for k in range(steps)]
    if spacing == "geometric":
        return [low * (high / low) ** share for share in shares]
    return [low + (high - low) * share for share in shares]


class _Curve:
    """The losses so far, smoothed, and the rule that ends the test."""

    def __init__(self, planned_lrs: list[float], beta: float, stop: float) -> None:
        self.planned_lrs, self._beta, self._stop = planned_lrs, beta, stop
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.end = ""  # why the losses ended the test
        self._average, self._minimum, self._signed = 0.0, math.inf, False

    def extend(self, losses: list[torch.Tensor]) -> None:
        """Add losses up to the one that ends the test."""
        # One transfer of several losses waits for an accelerator once; item() is faster for one.
        values = torch.stack(losses).tolist() if len(losses) > 1 else [losses[0].item()]
        for value in values:
            self.end = self.end or self._add(value)

    def _add(self, loss: float) -> str:
        lr = self.planned_lrs[len(self.losses)]
        if not math.isfinite(loss):
            if not self.losses:
                raise RunFailed(
                    f"the loss is {loss} at the first step, before any training; "
                    "check the data and the loss function"
                )
            return f"the loss was {loss} at lr {lr:.3g}"
        self.losses.append(loss)
        self._average = self._beta * self._average + (1 - self._beta) * loss
        smooth = self._average / (1 - self._beta ** len(self.losses))
        self.smoothed.append(smooth)
        self._signed = self._signed or loss <= 0
        if len(self.losses) <= IGNORED_STEPS:
            return ""
        self._minimum = min(self._minimum, smooth)
        if not self._signed:
            rose = smooth > self._stop * self._minimum
            excess = f"exceeded {self._stop:g} times its minimum"
        else:
            # A multiple of a minimum <= 0 is no limit; compare the rise to the fall instead.
            scale = max(abs(self._minimum), abs(self.smoothed[0] - self._minimum))
            rose = smooth - self._minimum > (self._stop - 1) * scale
            excess = "rose too far above its minimum"
        return f"the smoothed loss {excess} at lr {lr:.3g}" if rose else ""


def suggest_lr(
    lrs: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]
) -> tuple[float | None, str]:
    """Return a suggestion and its reason, or None and why there is none."""
    if max(smoothed) - min(smoothed) <= CONSTANT_LOSS_REL_TOL * max(map(abs, smoothed)):
        return None, "no suggestion: the loss is constant"
    first = math.ceil(len(smoothed) * SKIPPED_FRACTION)
    if len(smoothed) - first < 2:
        return None, f"no suggestion: the curve has only {len(smoothed)} steps"
    lowest = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    early = losses[: max(2, len(losses) // PLATEAU_PARTS)]
    plateau, noise = statistics.fmean(early), statistics.stdev(early) / math.sqrt(len(early))
    start = min(plateau, smoothed[first - 1])
    if start - smoothed[lowest] < max(MIN_DROP_REL * abs(plateau), MIN_DROP_SIGMAS * noise):
        return None, (
            f"no suggestion: the smoothed loss never fell clearly (from {start:.4g} ± {noise:.2g} "
            f"to {smoothed[lowest]:.4g}); test with more steps, or an untrained model"
        )
    minimum = f"{smoothed[lowest]:.4g} at {lrs[lowest]:.3g}"
    note = ""
    if lowest == len(smoothed) - 1:
        note = ", where the test ended: the loss was still falling; test up to a higher lr"
    reason = f"a tenth of the lr at the minimum of the smoothed loss, {minimum}{note}"
    return lrs[lowest] / 10, reason
