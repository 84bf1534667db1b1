"""What a search for an lr saw: range tests and short runs."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._files import save
from ._range_test_rules import CONTROLLED, RULES, Suggestion, suggest


@dataclass(frozen=True, slots=True)
class LRRangeTestResult:
    """What a learning-rate range test saw.

    Attributes:
        lrs: the lr of each step, ascending.
        losses: the training loss before each step.
        smoothed: the same, as an exponential moving average with bias correction.
        stopped: why the test ended, in words.
        suggestion: the lr to train with; ``None`` if the curve shows none.
        reason: how the suggestion was chosen, or why there is none.
        task: what was tested, in words.
        optimizer: the class of the optimizer.
        seconds: wall time of the test.
        low: the lr that the test was to begin with.
        high: the lr that it was to end with.
        planned: steps that were to be made.
        spacing: "geometric" or "linear" lrs.
        batches: batches that were used up.
        control: how many batches were used again and again as control variates; 0 if none.
        seed: the seed of initial weights and data order, where one was set.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    stopped: str
    suggestion: float | None
    reason: str
    task: str = ""
    optimizer: str = ""
    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0
    planned: int = 0
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
        stopped: str,
        **settings: Any,
    ) -> LRRangeTestResult:
        """Return the result of a curve, with what the rule for its kind makes of it.

        Args:
            lrs: the lr of each step, ascending.
            losses: the training loss before each step, as many.
            smoothed: the same, smoothed.
            stopped: why the test ended, in words.
            settings: more of the result's attributes, such as ``task=``. With a ``control=`` above
                0 the suggestion is a quarter of the minimum's lr, else a tenth.

        >>> lrs = [1e-3 * 10 ** (k / 10) for k in range(31)]
        >>> losses = [2 - lr if lr < 0.5 else 1 + lr for lr in lrs]
        >>> result = LRRangeTestResult.from_curve(lrs, losses, losses, "all steps were made")
        >>> round(result.suggestion, 2)
        0.05
        """
        rule = CONTROLLED if settings.get("control") else next(iter(RULES))
        lr, reason = suggest(rule, lrs, losses, smoothed)
        curve = tuple(lrs), tuple(losses), tuple(smoothed)
        return cls(*curve, stopped, lr, reason, **settings)

    def suggest(self, rule: str = "minimum/10") -> Suggestion:
        """Return the lr that a known rule reads off this curve, and how; or why it reads none.

        Args:
            rule: "minimum/10", "minimum/4", "steepest", "valley" or "slide", the keys of `RULES`.

        Raises:
            SettingError: there is no such rule.
        """
        return suggest(rule, self.lrs, self.losses, self.smoothed)

    @property
    def cost(self) -> str:
        """What the test cost, in words."""
        made = f"{len(self.lrs)} steps"
        return f"{made}, {self.batches or len(self.lrs)} batches, {self.seconds:.3g} s"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: the file; folders that are missing are made. `ratecraft.results.load` reads it.
        """
        return save(self, path)


@dataclass(frozen=True, slots=True)
class ShortRun:
    """A run in miniature, by which an lr was tried.

    Attributes:
        lr: its lr, before it cooled down.
        losses: the training loss before each step.
        gain: the loss of the batches that were kept, before less after; -inf if it diverged.
        noise: the standard error of the gain over those batches.
        lot: which batches it was given: 0 the first ones, 1 those after them.
    """

    lr: float
    losses: tuple[float, ...]
    gain: float
    noise: float
    lot: int = 0


@dataclass(frozen=True, slots=True)
class LRFinderResult:
    """The lr to train with, and how it was found; or why there is none.

    Attributes:
        lr: the lr to train with, the peak of a schedule; ``None`` if there is no answer.
        low: the lowest lr that promises nearly as much.
        high: the highest.
        reason: how they were found, or why not and what to try.
        before: the loss before any training.
        runs: the short runs, by lr.
        length: steps in each of them.
        total_steps: length of the run to come that was reckoned with, in steps.
        allowed: the steps that the search was allowed.
        steps: the steps that it made.
        looks: batches whose loss was computed without a step.
        batches: batches that were read.
        task: what is trained, in words.
        optimizer: the class of the optimizer.
        seconds: wall time.
        seed: the seed of initial weights and data order, where one was set.
    """

    lr: float | None
    low: float | None
    high: float | None
    reason: str
    before: float
    runs: tuple[ShortRun, ...]
    length: int
    total_steps: int | None = None
    allowed: int = 0
    steps: int = 0
    looks: int = 0
    batches: int = 0
    task: str = ""
    optimizer: str = ""
    seconds: float = 0.0
    seed: int | None = None

    @property
    def curve(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The lrs, ascending, that did not diverge, and the mean loss after their short runs."""
        gains: dict[float, list[float]] = {}
        for run in self.runs:
            gains.setdefault(run.lr, []).append(run.gain)
        means = {lr: statistics.fmean(some) for lr, some in gains.items()}
        kept = {lr: gain for lr, gain in sorted(means.items()) if math.isfinite(gain)}
        return tuple(kept), tuple(self.before - gain for gain in kept.values())

    @property
    def cost(self) -> str:
        """What the search cost, in words."""
        made = f"{self.steps} of {self.allowed} steps in {len(self.runs)} short runs"
        return f"{made}, {self.looks} losses without gradients, {self.seconds:.3g} s"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: the file; folders that are missing are made. `ratecraft.results.load` reads it.
        """
        return save(self, path)
