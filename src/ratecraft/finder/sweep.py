"""The classical range test: raise the rate every update and watch the loss."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Any, Final, Literal

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.errors import BindingError, RunFailed, SettingError, TaskError
from ratecraft.finder.preserve import Batches, preserved
from ratecraft.records import RangeTest

__all__ = ["range_test"]

LEAST_UPDATES: Final = 100
FEW: Final = 10  # updates whose average is of too few losses to be a minimum or an explosion
CHECK_EVERY: Final = 8  # updates between two looks at losses that lie on a device

Loss = Callable[[Any, Any], torch.Tensor]
Clip = float | Callable[[list[torch.Tensor]], object]


def range_test(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: Loss,
    *,
    low: float = 1e-8,
    high: float = 10.0,
    updates: int | None = None,
    spacing: Literal["geometric", "linear"] = "geometric",
    beta: float = 0.98,
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
) -> RangeTest:
    """Train with a rate that grows each update, and leave everything as it was.

    rate_k = low (high / low)^(k / (updates - 1)), or low + (high - low) k / (updates - 1); the
    loss is smoothed as a_k = beta a_(k-1) + (1 - beta) loss_k, s_k = a_k / (1 - beta^(k+1)); the
    test ends when s_k exceeds ``stop`` times its minimum so far, or a loss is not finite. See
    `preserved` for what is put back, on a normal end, on an exception and on Ctrl-C. The average
    of the first 10 updates is of too few losses to count as a minimum or as an explosion.

    Args:
        model: the model, or several; trained in the modes its modules are in, and in training
            mode if it is in evaluation mode.
        optimizer: its optimizer, or several; param groups keep the ratios of their rates, and
            the recorded rate is that of the group with the highest. One that wants a closure,
            such as LBFGS, is given one.
        loader: batches of any structure, iterated again and again; or a function that opens a
            stream of them anew.
        loss: ``loss(model, batch)`` returns the training loss as a tensor; of more than one
            element the mean is taken. Mixed precision is said in there, with ``autocast``.
        low: first rate.
        high: last rate.
        updates: number of updates; default one pass over the loader, or 100 if that is longer.
        spacing: "geometric" or "linear" rates.
        beta: smoothing, 0 <= beta < 1.
        stop: how many times its minimum the smoothed loss may reach. Where losses can be <= 0
            the same is asked of the rise above the minimum, relative to the fall before it.
        accumulate: batches an update; their mean gradient and mean loss are taken.
        clip: largest norm of the gradients, or a function that clips those of the parameters.
        scaler: a GradScaler, as the run will use.
        momentum: first and last momentum (of Adam's kind: the first of ``betas``) over the test.
        reduce: whether losses are averaged over the processes of a distributed run, so that all
            see the same and stop together; default: if the model is a DistributedDataParallel.
        check_every: updates between two looks at the losses; default 8 where they lie on a
            device, which is not waited for in between, and 1 otherwise. Up to as many updates
            are made in vain after an explosion.
        on_disk: keep the copies of large tensors in a temporary folder, not in memory.
        progress: called with (updates done, updates planned) after each update.
        task: what is tested, in words, for the record.

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
    _check_range(low, high, spacing, beta, stop)
    _check_training(accumulate, check_every, clip, momentum)
    models = [model] if isinstance(model, nn.Module) else list(model)
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    if reduce is None:
        reduce = any(isinstance(one, DistributedDataParallel) for one in models)
    planned = _planned(loader, accumulate) if updates is None else updates
    if reduce:
        planned = _least(planned, optimizers)
    if planned < 2:
        raise SettingError(f"updates={planned}: a range test needs at least 2")
    trainer = _Trainer(model, optimizers, loss, accumulate, clip, scaler)
    started = time.perf_counter()
    curve = _Curve(beta, stop)
    stopped = f"all {planned} updates were made"
    waiting: list[tuple[float, torch.Tensor]] = []
    with (
        preserved(models, optimizers, loader, scaler=scaler, on_disk=on_disk),
        closing(_cycle(loader)) as batches,
    ):
        for one in models:
            if not one.training:
                one.train()
        ratios = _ratios(optimizers)
        geometric, every = spacing == "geometric", 1
        for k in range(planned):
            done = k / (planned - 1)
            rate = low * (high / low) ** done if geometric else low + (high - low) * done
            for group, ratio in ratios:
                _set_rate(group, rate * ratio)
                if momentum is not None:
                    _set_momentum(group, momentum[0] + (momentum[1] - momentum[0]) * done)
            value = trainer.update(batches)
            if reduce:
                distributed.all_reduce(value)
                value /= distributed.get_world_size()
            waiting.append((rate, value))
            if progress:
                progress(k + 1, planned)
            if k == 0:
                every = check_every or (1 if value.device.type == "cpu" else CHECK_EVERY)
            elif len(waiting) < every and k < planned - 1:
                continue
            if end := curve.take(waiting):
                stopped = end
                break
            waiting.clear()
    return RangeTest.from_curve(
        curve.rates,
        curve.losses,
        curve.smoothed,
        stopped,
        low=low,
        high=high,
        planned=planned,
        spacing=spacing,
        batches=trainer.batches,
        task=task,
        optimizer=" and ".join(type(one).__name__ for one in optimizers),
        seconds=time.perf_counter() - started,
    )


def _check_range(low: float, high: float, spacing: str, beta: float, stop: float) -> None:
    if not 0 < low < high < math.inf or math.isinf(high / low):
        raise SettingError(f"low={low:g}, high={high:g}: expected 0 < low < high, both finite")
    if not 0 <= beta < 1 or not stop > 1:
        raise SettingError(f"beta={beta:g}, stop={stop:g}: expected 0 <= beta < 1 and stop > 1")
    if spacing not in ("geometric", "linear"):
        raise SettingError(f'spacing={spacing!r} is neither "geometric" nor "linear"')


def _check_training(
    accumulate: int,
    check_every: int | None,
    clip: Clip | None,
    momentum: tuple[float, float] | None,
) -> None:
    if accumulate < 1 or (check_every is not None and check_every < 1):
        raise SettingError(f"accumulate={accumulate}, check_every={check_every}: expected >= 1")
    if not callable(clip) and clip is not None and not clip > 0:
        raise SettingError(f"clip={clip}: expected a norm above 0, or a function")
    if momentum is not None and not all(0 <= value < 1 for value in momentum):
        raise SettingError(f"momentum={momentum}: expected two numbers, 0 <= m < 1")


class _Curve:
    """The losses so far, smoothed, and the rule that ends the test."""

    def __init__(self, beta: float, stop: float) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._beta, self._stop = beta, stop
        self._average, self._best, self._signed = 0.0, math.inf, False

    def take(self, waiting: list[tuple[float, torch.Tensor]]) -> str:
        """Take in some updates up to the one that ends the test; return why it ends there."""
        # One transfer for all of them: a device is waited for once. A single one has a shorter way.
        several = len(waiting) > 1
        losses = [loss for _, loss in waiting]
        values = torch.stack(losses).tolist() if several else [losses[0].item()]
        for (rate, _), value in zip(waiting, values, strict=True):
            if not math.isfinite(value):
                if not self.rates:
                    raise RunFailed(
                        f"the loss is {value} at the first update, before any training; "
                        "check the data and the loss function"
                    )
                return f"the loss was {value} at rate {rate:.3g}"
            if self._add(rate, value):
                times = f"{self._stop:g} times its minimum"
                return f"the smoothed loss exceeded {times} at rate {rate:.3g}"
        return ""

    def _add(self, rate: float, loss: float) -> bool:
        """Take in one update; return whether the loss has exploded."""
        self._average = self._beta * self._average + (1 - self._beta) * loss
        smooth = self._average / (1 - self._beta ** (len(self.losses) + 1))
        self.rates.append(rate)
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


class _Trainer:
    """One update at a time, as the run is going to make them."""

    def __init__(
        self,
        model: Any,
        optimizers: list[torch.optim.Optimizer],
        loss: Loss,
        accumulate: int,
        clip: Clip | None,
        scaler: Any,
    ) -> None:
        self._model, self._optimizers, self._loss = model, optimizers, loss
        self._accumulate, self._clip, self._scaler = accumulate, clip, scaler
        self.batches = 0
        held = [p for one in optimizers for group in one.param_groups for p in group["params"]]
        self._parameters = [p for p in held if p.requires_grad]
        if not self._parameters:
            raise TaskError("all parameters of the optimizer are frozen: there is nothing to train")
        self._closes = any(_wants_closure(one) for one in optimizers)
        if self._closes and (scaler is not None or len(optimizers) > 1):
            raise TaskError(
                "an optimizer that wants a closure works alone, and without a GradScaler"
            )

    def update(self, batches: Generator[Any]) -> torch.Tensor:
        """Make one update; return the loss before it."""
        few = [next(batches) for _ in range(self._accumulate)]
        self.batches += len(few)
        if self._closes:
            seen: list[torch.Tensor] = []

            def closure() -> torch.Tensor:
                value = self._backward(few)
                seen.append(value)
                return value

            self._optimizers[0].step(closure)  # type: ignore[arg-type]  # LBFGS takes a tensor
            return seen[0]
        value = self._backward(few)
        for optimizer in self._optimizers:
            if self._scaler is None:
                optimizer.step()
            else:
                self._scaler.step(optimizer)
        if self._scaler is not None:
            self._scaler.update()
        return value

    def _backward(self, batches: list[Any]) -> torch.Tensor:
        """Compute the gradients anew, clipped; return the mean loss."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        total = self._share(batches[0], len(batches))
        for batch in batches[1:]:
            total = total + self._share(batch, len(batches))
        if self._clip is not None:
            if self._scaler is not None:
                for optimizer in self._optimizers:
                    self._scaler.unscale_(optimizer)
            if callable(self._clip):
                self._clip(self._parameters)
            else:
                nn.utils.clip_grad_norm_(self._parameters, self._clip)
        return total

    def _share(self, batch: Any, count: int) -> torch.Tensor:
        """Add the gradients of one of several batches; return its share in the loss."""
        loss = self._loss(self._model, batch)
        _check_loss(loss)
        if loss.dim():
            loss = loss.mean()
        if count > 1:
            loss = loss / count
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()
        if loss.is_leaf or loss._base is not None:  # it may share its memory with a parameter
            loss = loss.clone()
        return loss.detach()


def _wants_closure(optimizer: torch.optim.Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _planned(loader: Batches, accumulate: int) -> int:
    try:
        return max(len(loader) // accumulate, LEAST_UPDATES)  # type: ignore[arg-type]  # the TypeError is the check
    except TypeError:
        return LEAST_UPDATES


def _least(planned: int, optimizers: list[torch.optim.Optimizer]) -> int:
    """Return the smallest of the processes' numbers of updates."""
    device = optimizers[0].param_groups[0]["params"][0].device
    number = torch.tensor(planned, device=device)
    distributed.all_reduce(number, distributed.ReduceOp.MIN)
    return int(number)


def _cycle(loader: Batches) -> Generator[Any]:
    """Yield batches for ever, from the beginning each time they end."""
    opens = callable(loader) and not isinstance(loader, Iterable)
    while True:
        empty = True
        for batch in loader() if opens else loader:  # type: ignore[operator, union-attr]
            empty = False
            yield batch
        if empty:
            raise TaskError("the training data gave no batch; a range test needs at least one")


def _ratios(optimizers: list[torch.optim.Optimizer]) -> list[tuple[dict[str, Any], float]]:
    """Return every param group with its rate's ratio to the highest one."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    # A scheduler that begins at 0, as a warm-up does, has left the ratios in initial_lr.
    rates = [float(group["lr"]) for group in groups]
    if max(rates) <= 0:
        rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    highest = max(rates)
    if (highest <= 0 and len(set(rates)) > 1) or min(rates) < 0:
        raise BindingError(f"the optimizer's rates {rates} have no ratios that could be kept")
    return [
        (group, rate / highest if highest > 0 else 1.0)
        for group, rate in zip(groups, rates, strict=True)
    ]


def _check_loss(loss: object) -> None:
    """Raise TaskError unless a loss is a tensor with a gradient."""
    if not isinstance(loss, torch.Tensor) or not loss.numel():
        what = type(loss).__name__ if not isinstance(loss, torch.Tensor) else "an empty tensor"
        raise TaskError(f"loss(model, batch) returned {what}; expected a tensor of numbers")
    if not loss.requires_grad:
        raise TaskError(
            "loss(model, batch) returned a tensor without a gradient; was it detached, or "
            "computed under no_grad, or of a model whose weights are frozen?"
        )


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "momentum" in group:
        group["momentum"] = value
    elif "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        raise SettingError("momentum=: this optimizer has neither momentum nor betas")
