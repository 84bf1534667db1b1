"""An lr from line searches: how far the optimizer may go on one batch, again and again."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, Unpack

import torch
from torch import nn

from ratecraft._training._short_runner import Loss, ShortRunner, StepOptions, momentum_of
from ratecraft._training._snapshot import Batches, preserve_rng
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import LRFinderResult, ShortRun

HALVINGS: Final = 30
WIDER: Final = 8  # each search begins at so many times what the last one ended with
LARGEST: Final = 1e3


def line_search(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: Loss,
    *,
    steps: int = 20,
    share: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
    task: str = "",
    **how: Unpack[StepOptions],
) -> LRFinderResult:
    """Return the median of the lrs that Armijo's rule allows on successive batches.

    On each batch the optimizer's own step d (at lr 1, without momentum) is shortened from a
    large lr r by halves until loss(w + r d) <= loss(w) + ``share`` r <gradient, d>; the step
    is made and the next batch follows. The lr is the median of all r, times 1 - momentum. It
    costs about two steps a step and knows nothing of longer runs: `find_lr` is better, and
    says how much in its benchmark.

    Args:
        model: the model, or several.
        optimizer: its optimizer, or several.
        loader: batches, as in `range_test`.
        loss: ``loss(model, batch)`` returns the training loss as a tensor.
        steps: how many batches.
        share: how much of the fall that the gradient promises must come true, 0 < share < 1.
        progress: called with (steps done, steps planned) after each.
        task: what is tested, in words, for the result.
        how: ``accumulate=``, ``clip=``, ``scaler=``, ``reduce=``, ``on_disk=`` as in `range_test`.

    Raises:
        SettingError: a setting is outside its range.
        RunFailed: the loss is not finite before any training.
        TaskError: as in `find_lr`; or the optimizer wants a closure.

    Source: Armijo 1966; for stochastic gradients Vaswani et al. 2019, arXiv 1905.09997.

    >>> x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    >>> model = nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    >>> def loss(model, batch):
    ...     return ((model(batch) - 3 * batch - 1) ** 2).mean()
    >>> found = line_search(model, optimizer, x.split(8), loss)
    >>> 0.03 < found.lr < 1
    True
    """
    if steps < 2 or not 0 < share < 1:
        raise SettingError(f"steps={steps}, share={share:g}: expected >= 2, and between 0 and 1")
    bed = ShortRunner(model, optimizer, loader, loss, **how)
    bed.refuse_closures("line_search")
    started = time.perf_counter()
    momentum = momentum_of(bed.optimizers)
    scale = 1 - (momentum or 0.0)
    found: list[ShortRun] = []
    lr, level = LARGEST, math.nan
    with bed.fresh() as run:
        for k in range(steps):
            few = run.take()
            weights = [p.detach().clone() for p in bed.parameters]
            run.at(1.0, None if momentum is None else 0.0)
            with preserve_rng():  # the same dropout for every length of the step
                before = run.make(few).item()
            if k == 0 and not math.isfinite(before):
                raise RunFailed(
                    f"the loss is {before} before any training; check the data and the loss"
                )
            level = before if k == 0 else level
            ways = [p.detach() - w for p, w in zip(bed.parameters, weights, strict=True)]
            promised = -run.along(ways)
            if progress:
                progress(k + 1, steps)
            if not promised > 0:  # no way down on this batch: it says nothing
                _go(bed.parameters, weights, ways, 0.0)
                continue
            lr = min(lr * WIDER, LARGEST)
            for _ in range(HALVINGS):
                _go(bed.parameters, weights, ways, lr)
                with preserve_rng():
                    after = run.look(few).item()
                if after <= before - share * lr * promised:
                    found.append(ShortRun(lr * scale, (before,), before - after, 0.0))
                    break
                lr /= 2
            torch.rand(())  # and another one for the next step
    lrs = [one.lr for one in found]
    low = middle = high = None
    some = "one way" if lrs else "no way"
    reason = f"no answer: on {steps} batches there was {some} down, and a median needs two"
    if len(lrs) > 1:
        low, middle, high = statistics.quantiles(lrs, n=4)
        reason = f"the median of {len(lrs)} line searches, half of which lie in the band"
    return LRFinderResult(
        lr=middle,
        low=low,
        high=high,
        reason=reason,
        before=level,
        runs=tuple(sorted(found, key=lambda run: run.lr)),
        length=1,
        allowed=steps,
        steps=bed.made,
        looks=bed.looked,
        batches=bed.batches,
        task=task,
        optimizer=bed.optimizer,
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def _go(
    parameters: list[torch.Tensor],
    weights: list[torch.Tensor],
    ways: list[torch.Tensor],
    lr: float,
) -> None:
    """Set the parameters to the weights and a step of some length from there."""
    for parameter, weight, way in zip(parameters, weights, ways, strict=True):
        parameter.copy_(weight).add_(way, alpha=lr)
