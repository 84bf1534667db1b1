"""The classical range test: raise the rate every update and watch the loss."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import torch
from torch import nn

from ratecraft.errors import BindingError, RunFailed, SettingError, TaskError
from ratecraft.finder.preserve import preserved
from ratecraft.records import RangeTest
from ratecraft.rules import minimum_over_ten

__all__ = ["range_test"]

LEAST_UPDATES: Final = 100


def range_test(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Iterable[Any],
    loss: Callable[[nn.Module, Any], torch.Tensor],
    *,
    low: float = 1e-8,
    high: float = 10.0,
    updates: int | None = None,
    beta: float = 0.98,
    stop: float = 4.0,
    progress: Callable[[int, int], None] | None = None,
    task: str = "",
) -> RangeTest:
    """Train with a rate that grows each update, and leave everything as it was.

    rate_k = low (high / low)^(k / (updates - 1)); the loss is smoothed as
    a_k = beta a_(k-1) + (1 - beta) loss_k, s_k = a_k / (1 - beta^(k+1)); the test ends when s_k
    exceeds ``stop`` times its minimum so far. See `preserved` for what is put back, on a normal
    end, on an exception and on Ctrl-C.

    Args:
        model: the model; it is trained in the modes its modules are in, and in training mode
            if it is in evaluation mode.
        optimizer: its optimizer; param groups keep the ratios of their rates, and the recorded
            rate is that of the group with the highest.
        loader: batches, iterated again and again.
        loss: ``loss(model, batch)`` returns the training loss as a tensor of one element.
        low: first rate.
        high: last rate.
        updates: number of updates; default one pass over the loader, or 100 if that is longer.
        beta: smoothing, 0 <= beta < 1.
        stop: how many times its minimum the smoothed loss may reach. Where losses can be <= 0
            the same is asked of the rise above the minimum, relative to the fall before it.
        progress: called with (updates done, updates planned) after each update.
        task: what is tested, in words, for the record.

    Raises:
        SettingError: a setting is outside its range.
        RunFailed: the very first loss is not finite.
        TaskError: the loader is empty or one-way, or the loss is no tensor of one element.

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
    if not 0 < low < high < math.inf:
        raise SettingError(f"low={low:g}, high={high:g}: expected 0 < low < high, both finite")
    if not 0 <= beta < 1 or stop <= 1:
        raise SettingError(f"beta={beta:g}, stop={stop:g}: expected 0 <= beta < 1 and stop > 1")
    planned = _planned(loader) if updates is None else updates
    if planned < 2:
        raise SettingError(f"updates={planned}: a range test needs at least 2")
    started = time.perf_counter()
    curve = _Curve(beta, stop)
    stopped = f"all {planned} updates were made"
    with (
        preserved(model, optimizer, loader),
        _without_hooks(optimizer),
        closing(_cycle(loader)) as batches,
    ):
        if not model.training:
            model.train()
        ratios = _ratios(optimizer)
        for k in range(planned):
            rate = low * (high / low) ** (k / (planned - 1))
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                _set_rate(group, rate * ratio)
            value = _update(model, optimizer, loss, next(batches))
            if not math.isfinite(value):
                if k == 0:
                    raise RunFailed(
                        f"the loss is {value} at the first update, before any training; "
                        "check the data and the loss function"
                    )
                stopped = f"the loss was {value} at rate {rate:.3g}"
                break
            if curve.add(rate, value):
                stopped = (
                    f"the smoothed loss exceeded {stop:g} times its minimum at rate {rate:.3g}"
                )
                break
            if progress:
                progress(k + 1, planned)
    suggestion, reason = minimum_over_ten(curve.rates, curve.losses, curve.smoothed)
    return RangeTest(
        rates=tuple(curve.rates),
        losses=tuple(curve.losses),
        smoothed=tuple(curve.smoothed),
        stopped=stopped,
        suggestion=suggestion,
        reason=reason,
        task=task,
        optimizer=type(optimizer).__name__,
        seconds=time.perf_counter() - started,
    )


class _Curve:
    """The losses so far, smoothed, and the rule that ends the test."""

    def __init__(self, beta: float, stop: float) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._beta, self._stop = beta, stop
        self._average, self._best, self._signed = 0.0, math.inf, False

    def add(self, rate: float, loss: float) -> bool:
        """Take in one update; return whether the loss has exploded."""
        self._average = self._beta * self._average + (1 - self._beta) * loss
        smooth = self._average / (1 - self._beta ** (len(self.losses) + 1))
        self.rates.append(rate)
        self.losses.append(loss)
        self.smoothed.append(smooth)
        self._best = min(self._best, smooth)
        self._signed = self._signed or loss <= 0
        if self._signed:
            # A multiple of a number <= 0 is no limit; the rise is measured by the fall instead.
            scale = max(abs(self._best), abs(self.smoothed[0] - self._best))
            return smooth - self._best > (self._stop - 1) * scale
        return smooth > self._stop * self._best


@contextmanager
def _without_hooks(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Keep a scheduler that counts the optimizer's updates from counting these."""
    hooks = optimizer._optimizer_step_post_hooks
    optimizer._optimizer_step_post_hooks = OrderedDict()
    try:
        yield
    finally:
        optimizer._optimizer_step_post_hooks = hooks


def _planned(loader: Iterable[Any]) -> int:
    try:
        return max(len(loader), LEAST_UPDATES)  # type: ignore[arg-type]  # the TypeError is the check
    except TypeError:
        return LEAST_UPDATES


def _cycle(loader: Iterable[Any]) -> Generator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise TaskError("the training data gave no batch; a range test needs at least one")


def _ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    highest = max(rates)
    if (highest <= 0 and len(set(rates)) > 1) or min(rates) < 0:
        raise BindingError(f"the optimizer's rates {rates} have no ratios that could be kept")
    return [rate / highest if highest > 0 else 1.0 for rate in rates]


def check_loss(loss: object, name: str = "loss") -> None:
    """Raise TaskError unless a loss or a metric returned a tensor of one element."""
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return
    what = type(loss).__name__
    if isinstance(loss, torch.Tensor):
        what = f"a tensor of shape {tuple(loss.shape)}"
    raise TaskError(f"{name}(model, batch) returned {what}; expected a tensor of one element")


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Any], torch.Tensor],
    batch: Any,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    value = loss(model, batch)
    check_loss(value)
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    return float(value.detach())
