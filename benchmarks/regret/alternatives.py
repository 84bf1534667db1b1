"""Three ways to find a learning rate that were measured to be worse than find_lr.

`control_variate_test` is a range test whose curve has no noise between batches. `line_search`
applies Armijo's rule to successive batches. Both train models with one optimizer, on the CPU.
`steepest` reads the curve of a range test. All were part of ratecraft and are kept here, for the
tables of regret.py.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, repeat
from typing import Any, NamedTuple

import torch
from torch import nn

from ratecraft._training._snapshot import preserve_rng
from ratecraft.finder import preserve_state, range_test

CONTROL_BATCHES = 16  # batches that a range test with control variates reuses
IGNORED_STEPS = 10  # the first averages do not count as a divergence
STOP_FACTOR = 4  # the test ends when the smoothed loss exceeds this multiple of its minimum
MIN_DROP_REL = 0.05  # smallest drop of its smoothed loss, relative to the first value
SEARCHED_BATCHES = 20  # batches of a line search
DECREASE_SHARE = 0.1  # c1, the required share of the decrease that the gradient predicts
MAX_HALVINGS = 30  # of the learning rate on one batch
GROWTH_FACTOR = 8  # each line search starts at this multiple of the previous result
MAX_SEARCH_LR = 1e3  # each line search starts at most here
SKIPPED_FRACTION = 0.1  # of the curve of a range test, at its start, is not searched

Loss = Callable[[Any, Any], torch.Tensor]


class Outcome(NamedTuple):
    """A learning rate, or None, and its cost in steps; an evaluation is a third of a step."""

    lr: float | None
    cost: float


def control_variate_test(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Any], loss: Loss
) -> Outcome:
    """Return a quarter of the learning rate at the minimum of a control-variate curve.

    A range test of 100 steps reuses 16 batches. Each loss enters the average as its difference
    from the initial loss of the same batch, plus the mean initial loss, which removes the noise
    between batches. Such a curve needs little smoothing, beta = 0.9, and the minimum counts if it
    is 5 % below the first value.
    """
    with preserve_state(model, optimizer, loader):
        model.train()
        batches = list(islice(endless(loader), CONTROL_BATCHES))
        initial = {id(batch): loss(model, batch).item() for batch in batches}
        level = statistics.fmean(initial.values())
        result = range_test(
            model,
            optimizer,
            batches,
            lambda model, batch: loss(model, batch) - initial[id(batch)] + level,
            steps=100,
            beta=0.9,
            stop=math.inf,  # the differences may be negative, so the end is looked up below
        )
    minima = list(accumulate(result.smoothed[IGNORED_STEPS:], min))
    ends = (
        k + 1
        for k, minimum in enumerate(minima, IGNORED_STEPS)
        if result.smoothed[k] > STOP_FACTOR * minimum
    )
    smoothed = result.smoothed[: next(ends, None)]
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    fell = lowest > 0 and smoothed[0] - smoothed[lowest] >= MIN_DROP_REL * abs(smoothed[0])
    cost = len(smoothed) + CONTROL_BATCHES / 3
    return Outcome(result.lrs[lowest] / 4 if fell else None, cost)


def line_search(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Any], loss: Loss
) -> Outcome:
    """Return the median learning rate that Armijo's rule accepts on successive batches.

    On each batch the optimizer's own step d (at learning rate 1, without momentum) is scaled by a
    large learning rate r, which is halved until
    loss(w + r d) <= loss(w) + c1 r <gradient, d>. The step is taken, and the next batch follows.
    The result is the median of all r, times 1 - momentum.

    Source: Armijo 1966; for stochastic gradients Vaswani et al. 2019, arXiv 1905.09997.
    """
    lrs: list[float] = []
    evaluations, lr = 0, MAX_SEARCH_LR
    with preserve_state(model, optimizer, loader):
        model.train()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        momentum = remove_momentum(optimizer)
        for batch in islice(endless(loader), SEARCHED_BATCHES):
            weights = [p.detach().clone() for p in parameters]
            with preserve_rng():  # the same dropout at every learning rate
                before = step(model, optimizer, batch, loss)
            directions = [p.detach() - w for p, w in zip(parameters, weights, strict=True)]
            predicted = -sum(
                float((p.grad * d).sum()) for p, d in zip(parameters, directions, strict=True)
            )
            if not predicted > 0:  # not a descent direction on this batch
                set_weights(parameters, weights, directions, 0.0)
                continue
            lr = min(lr * GROWTH_FACTOR, MAX_SEARCH_LR)
            for _ in range(MAX_HALVINGS):
                set_weights(parameters, weights, directions, lr)
                with preserve_rng():
                    after = loss(model, batch).item()
                evaluations += 1
                if after <= before - DECREASE_SHARE * lr * predicted:
                    lrs.append(lr * (1 - momentum))
                    break
                lr /= 2
            torch.rand(())  # advances the CPU generator: the next step draws a new dropout mask
    cost = SEARCHED_BATCHES + evaluations / 3
    return Outcome(statistics.median(lrs) if len(lrs) > 1 else None, cost)


def steepest(lrs: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Return the lr, left of the minimum, at which the smoothed loss falls fastest per log(lr).

    Source: Smith 2015, arXiv 1506.01186, as implemented in Ignite. (Lightning, fastai's "steep"
    and torch-lr-finder also search right of the minimum, where a loss can fall after a spike.)
    """
    first = math.ceil(len(smoothed) * SKIPPED_FRACTION)
    if len(smoothed) - first < 2:
        return None
    last = min(range(first, len(smoothed)), key=smoothed.__getitem__)
    slopes = [
        (smoothed[i + 1] - smoothed[i]) / math.log(lrs[i + 1] / lrs[i]) for i in range(first, last)
    ]
    slope = min(slopes, default=0.0)
    return lrs[first + slopes.index(slope)] if slope < 0 else None


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield batches without end."""
    return chain.from_iterable(repeat(loader))


def remove_momentum(optimizer: torch.optim.Optimizer) -> float:
    """Set lr 1 and momentum 0 in every param group; return the momentum there was."""
    momentum = 0.0
    for group in optimizer.param_groups:
        group["lr"] = 1.0
        if "betas" in group:
            momentum = group["betas"][0]
            group["betas"] = (0.0, *group["betas"][1:])
        else:
            momentum = group["momentum"]
            group["momentum"] = 0.0
    return momentum


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, loss: Loss) -> float:
    """Take one step; return the loss before it."""
    optimizer.zero_grad()
    value = loss(model, batch)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.item()


@torch.no_grad()
def set_weights(
    parameters: list[torch.Tensor],
    weights: list[torch.Tensor],
    directions: list[torch.Tensor],
    lr: float,
) -> None:
    """Set the parameters to ``weights + lr * directions``."""
    for parameter, weight, direction in zip(parameters, weights, directions, strict=True):
        parameter.copy_(weight).add_(direction, alpha=lr)
