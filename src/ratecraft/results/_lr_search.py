"""Results of learning-rate searches: range tests and short runs."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratecraft.errors import BindingError, RunFailed

from ._files import save
from ._range_test_rules import CONTROLLED_RULE, RANGE_TEST_RULES, LRSuggestion, suggest_lr


@dataclass(frozen=True, slots=True)
class LRRangeTestResult:
    """The curve of a learning-rate range test and the learning rate read off it.

    Attributes:
        lrs: learning rate of each step, ascending.
        losses: training loss before each step.
        smoothed: exponential moving average of ``losses``, with bias correction. With control
            variates it averages the differences from the initial losses of the same batches, and
            the mean initial loss is added.
        stop_reason: why the test ended.
        suggestion: learning rate to train with; ``None`` if the curve shows none.
        reason: how the suggestion was chosen, or why there is none.
        task: description of the task.
        optimizer: class name of the optimizer.
        seconds: wall time of the test.
        low: first learning rate of the planned range.
        high: last learning rate of the planned range.
        planned_steps: planned number of steps.
        spacing: "geometric" or "linear" learning rates.
        batches: number of batches read.
        control: number of batches that were reused as control variates; 0 if none.
        seed: seed of the initial weights and the data order, if one was set.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    stop_reason: str
    suggestion: float | None
    reason: str
    task: str = ""
    optimizer: str = ""
    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0
    planned_steps: int = 0
    spacing: str = "geometric"
    batches: int = 0
    control: int = 0
    seed: int | None = None

    @classmethod
    def from_curve(
        cls,
        lrs: Sequence[float],
        losses: Sequence[float],
        smoothed: Sequence[float],
        stop_reason: str,
        **attributes: Any,
    ) -> LRRangeTestResult:
        """Return the result for a curve, with the suggestion of the default rule.

        Args:
            lrs: learning rate of each step, ascending, shape (steps,).
            losses: training loss before each step, shape (steps,).
            smoothed: smoothed losses, shape (steps,).
            stop_reason: why the test ended.
            attributes: further attributes of the result, such as ``task=``. With ``control=``
                above 0 the suggestion is a quarter of the lr of the minimum, else a tenth.

        >>> from ratecraft.results import LRRangeTestResult
        >>> lrs = [1e-3 * 10 ** (k / 10) for k in range(31)]
        >>> losses = [2 - lr if lr < 0.5 else 1 + lr for lr in lrs]
        >>> result = LRRangeTestResult.from_curve(lrs, losses, losses, "all steps were taken")
        >>> round(result.suggestion, 2)
        0.05
        """
        rule = CONTROLLED_RULE if attributes.get("control") else next(iter(RANGE_TEST_RULES))
        lr, reason = suggest_lr(rule, lrs, losses, smoothed)
        curve = tuple(lrs), tuple(losses), tuple(smoothed)
        return cls(*curve, stop_reason, lr, reason, **attributes)

    def suggest(self, rule: str = "minimum/10") -> LRSuggestion:
        """Return the learning rate that a rule reads off this curve, and why.

        Args:
            rule: "minimum/10", "minimum/4", "steepest", "valley" or "slide", the keys of
                `RANGE_TEST_RULES`.

        Raises:
            SettingError: the rule is unknown.
        """
        return suggest_lr(rule, self.lrs, self.losses, self.smoothed)

    @property
    def cost(self) -> str:
        """Steps, batches and wall time of the test, as text."""
        steps = f"{len(self.lrs)} steps"
        return f"{steps}, {self.batches or len(self.lrs)} batches, {self.seconds:.3g} s"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: the file; missing folders are created. `ratecraft.results.load` reads it.
        """
        return save(self, path)


@dataclass(frozen=True, slots=True)
class ShortRun:
    """One short training run of a learning-rate search.

    Attributes:
        lr: learning rate before the cooldown of the run.
        losses: training loss before each step.
        gain: decrease of the loss on the evaluation batches, by `line_search` on the training
            batch; -inf if the run diverged.
        noise: standard error of the gain over those batches; 0 from `line_search`.
        batch_set: index of the set of batches: 0 for the first, 1 for the next.
    """

    lr: float
    losses: tuple[float, ...]
    gain: float
    noise: float
    batch_set: int = 0


@dataclass(frozen=True, slots=True)
class LRFinderResult:
    """The learning rate that a search suggests, or the reason why it suggests none.

    Attributes:
        lr: learning rate to train with, the peak of a schedule; ``None`` if there is no answer.
        lr_low: lowest learning rate that should do almost as well; from `line_search` the first
            quartile of its learning rates.
        lr_high: highest learning rate that should do almost as well; from `line_search` the third
            quartile.
        reason: how ``lr`` was chosen, or why there is none and what to try.
        initial_loss: loss before any training.
        runs: the short runs, sorted by learning rate.
        run_steps: steps of a short run.
        total_steps: length in steps of the training run, if it was given.
        budget_steps: steps that the search was allowed; from `line_search` the number of batches
            that it searched on.
        steps: optimizer steps taken.
        eval_batches: batches whose loss was computed without a step.
        batches: batches read.
        task: description of the task.
        optimizer: class name of the optimizer.
        seconds: wall time of the search.
        seed: seed of the initial weights and the data order, if one was set.
    """

    lr: float | None
    lr_low: float | None
    lr_high: float | None
    reason: str
    initial_loss: float
    runs: tuple[ShortRun, ...]
    run_steps: int
    total_steps: int | None = None
    budget_steps: int = 0
    steps: int = 0
    eval_batches: int = 0
    batches: int = 0
    task: str = ""
    optimizer: str = ""
    seconds: float = 0.0
    seed: int | None = None

    @property
    def curve(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Ascending learning rates that did not diverge, and the mean loss after their runs."""
        gains: dict[float, list[float]] = {}
        for run in self.runs:
            gains.setdefault(run.lr, []).append(run.gain)
        means = {lr: statistics.fmean(values) for lr, values in gains.items()}
        finite = {lr: gain for lr, gain in sorted(means.items()) if math.isfinite(gain)}
        return tuple(finite), tuple(self.initial_loss - gain for gain in finite.values())

    @property
    def cost(self) -> str:
        """Steps, evaluations and wall time of the search, as text."""
        steps = f"{self.steps} of {self.budget_steps} steps in {len(self.runs)} short runs"
        return f"{steps}, {self.eval_batches} batch evaluations, {self.seconds:.3g} s"

    def apply(self, optimizer: Any) -> None:
        """Set the learning rate of an optimizer to the one that was found.

        The param group with the highest learning rate gets ``lr``; the other groups keep their
        ratio to it. ``initial_lr`` is set too where a group has it, and a tensor learning rate
        is filled in place. Call it before you create a scheduler.

        Args:
            optimizer: a ``torch.optim.Optimizer``, or a sequence of them with ratios kept
                across all their groups.

        Raises:
            RunFailed: ``lr`` is ``None``; the message is ``reason``.
            BindingError: a group has a negative learning rate.

        >>> import torch
        >>> from torch import nn
        >>> from ratecraft.results import LRFinderResult
        >>> body, head = nn.Linear(2, 2), nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(
        ...     [{"params": body.parameters(), "lr": 1e-3}, {"params": head.parameters()}], lr=1e-2
        ... )
        >>> result = LRFinderResult(0.5, 0.2, 0.8, "the best of 7 short runs", 1.0, (), 20)
        >>> result.apply(optimizer)
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.05, 0.5]
        """
        if self.lr is None:
            raise RunFailed(self.reason)
        optimizers = [optimizer] if hasattr(optimizer, "param_groups") else list(optimizer)
        for group, ratio in group_lr_ratios(optimizers):
            write_lr(group, self.lr * ratio)
            if "initial_lr" in group:
                write_lr(group, self.lr * ratio, key="initial_lr")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: the file; missing folders are created. `ratecraft.results.load` reads it.
        """
        return save(self, path)


def group_lr_ratios(optimizers: Sequence[Any]) -> list[tuple[dict[str, Any], float]]:
    """Return every param group with the ratio of its learning rate to the highest one.

    Raises:
        BindingError: a learning rate is negative.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    lrs = current_lrs(optimizers)
    highest = max(lrs)
    if (highest <= 0 and len(set(lrs)) > 1) or min(lrs) < 0:
        raise BindingError(
            f"the learning rates of the param groups, {lrs}, have no ratios that could be kept: "
            "expected values >= 0"
        )
    return [
        (group, lr / highest if highest > 0 else 1.0) for group, lr in zip(groups, lrs, strict=True)
    ]


def current_lrs(optimizers: Sequence[Any]) -> list[float]:
    """Return the current lr of every param group; if all are 0, their ``initial_lr``.

    All are 0 at the start of a warmup from 0.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    lrs = [float(group["lr"]) for group in groups]
    if max(lrs) <= 0:
        lrs = [float(group.get("initial_lr", group["lr"])) for group in groups]
    return lrs


def write_lr(group: dict[str, Any], lr: float, *, key: str = "lr") -> None:
    """Set a learning rate in a param group; fill a tensor in place."""
    if hasattr(group[key], "fill_"):
        group[key].fill_(lr)
    else:
        group[key] = lr
