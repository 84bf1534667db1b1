"""line_search: a learning rate from Armijo line searches on successive batches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, Unpack

import torch
from torch import nn

from ratecraft._keywords import explain_arguments
from ratecraft._training._short_runner import (
    LossFunction,
    ShortRunner,
    StepOptions,
    max_momentum,
)
from ratecraft._training._snapshot import Batches, preserve_rng
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import LRFinderResult, ShortRun

MAX_HALVINGS: Final = 30  # of the learning rate on one batch
GROWTH_FACTOR: Final = 8  # each search starts at this multiple of the previous result
MAX_SEARCH_LR: Final = 1e3  # each search starts at most here


@explain_arguments(
    "line_search() takes model, optimizer, loader and loss by position and the rest by keyword",
    options=StepOptions.__annotations__,
)
def line_search(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: LossFunction,
    *,
    steps: int = 20,
    share: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
    task: str = "",
    **options: Unpack[StepOptions],
) -> LRFinderResult:
    """Return the median learning rate that Armijo's rule accepts on successive batches.

    On each batch the optimizer's own step d (at learning rate 1, without momentum) is scaled by
    a large learning rate r, which is halved until
    loss(w + r d) <= loss(w) + c1 r <gradient, d>, with c1 = ``share``. The step is taken, and the
    next batch follows. The result is the median of all r, times 1 - momentum. The search costs
    about two steps per batch and ignores the length of the training run; `find_lr` gives better
    results (benchmarks/regret).

    Args:
        model: the model, or several.
        optimizer: its optimizer, or several.
        loader: batches, as in `range_test`.
        loss: ``loss(model, batch)`` returns the training loss as a tensor.
        steps: number of steps, each with its own line search.
        share: c1, the required share of the decrease that the gradient predicts, 0 < share < 1.
        progress: called as ``progress(steps_done, steps)`` after each step.
        task: description of the task, for the result.
        options: ``accumulate=``, ``clip=``, ``scaler=``, ``reduce=`` and ``on_disk=``, as in
            `range_test`.

    Raises:
        SettingError: an argument is out of its range.
        RunFailed: the loss is not finite before any training.
        TaskError: as in `find_lr`; or the optimizer needs a closure.

    Source: Armijo 1966; for stochastic gradients Vaswani et al. 2019, arXiv 1905.09997.

    >>> import torch
    >>> from torch import nn
    >>> from ratecraft.finder import line_search
    >>> x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    >>> model = nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    >>> def loss(model, batch):
    ...     return ((model(batch) - 3 * batch - 1) ** 2).mean()
    >>> result = line_search(model, optimizer, x.split(8), loss)
    >>> 0.03 < result.lr < 1
    True
    """
    if steps < 2 or not 0 < share < 1:
        raise SettingError(f"steps={steps}, share={share:g}: expected steps >= 2 and 0 < share < 1")
    runner = ShortRunner(model, optimizer, loader, loss, **options)
    runner.refuse_closures("line_search")
    started = time.perf_counter()
    runs, initial_loss = _search(runner, steps, share, progress)
    lrs = [run.lr for run in runs]
    low = median = high = None
    count = "one" if lrs else "none"
    reason = f"no answer: of {steps} line searches {count} succeeded, and a median needs two"
    if len(lrs) > 1:
        low, median, high = statistics.quantiles(lrs, n=4)
        reason = f"the median of {len(lrs)} line searches, half of which lie in the band"
    return LRFinderResult(
        lr=median,
        lr_low=low,
        lr_high=high,
        reason=reason,
        initial_loss=initial_loss,
        runs=tuple(sorted(runs, key=lambda run: run.lr)),
        run_steps=1,
        budget_steps=steps,
        steps=runner.steps_done,
        eval_batches=runner.batches_evaluated,
        batches=runner.batches_read,
        task=task,
        optimizer=runner.optimizer_name,
        seconds=time.perf_counter() - started,
    )


def _search(
    runner: ShortRunner,
    steps: int,
    share: float,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[ShortRun], float]:
    """Return a run of one step for each successful line search, and the initial loss."""
    momentum = max_momentum(runner.optimizers)
    scale = 1 - (momentum or 0.0)
    runs: list[ShortRun] = []
    lr, initial_loss = MAX_SEARCH_LR, math.nan
    with runner.start() as training:
        for k in range(steps):
            batches = training.next_batches()
            weights = [p.detach().clone() for p in runner.parameters]
            training.set_lr(1.0, None if momentum is None else 0.0)
            with preserve_rng():  # the same dropout at every learning rate
                before = training.step(batches).item()
            if k == 0 and not math.isfinite(before):
                raise RunFailed(
                    f"the loss is {before} before any training; check the data and the loss "
                    "function"
                )
            initial_loss = before if k == 0 else initial_loss
            directions = [p.detach() - w for p, w in zip(runner.parameters, weights, strict=True)]
            predicted = -training.directional_derivative(directions)
            if progress:
                progress(k + 1, steps)
            if not predicted > 0:  # not a descent direction on this batch
                _set_weights(runner.parameters, weights, directions, 0.0)
                continue
            lr = min(lr * GROWTH_FACTOR, MAX_SEARCH_LR)
            for _ in range(MAX_HALVINGS):
                _set_weights(runner.parameters, weights, directions, lr)
                with preserve_rng():
                    after = training.evaluate(batches).item()
                if after <= before - share * lr * predicted:
                    runs.append(ShortRun(lr * scale, (before,), before - after, 0.0))
                    break
                lr /= 2
            torch.rand(())  # advances the CPU generator: the next step draws a new dropout mask
    return runs, initial_loss


@torch.no_grad()
def _set_weights(
    parameters: list[torch.Tensor],
    weights: list[torch.Tensor],
    directions: list[torch.Tensor],
    lr: float,
) -> None:
    """Set the parameters to ``weights + lr * directions``."""
    for parameter, weight, direction in zip(parameters, weights, directions, strict=True):
        parameter.copy_(weight).add_(direction, alpha=lr)
