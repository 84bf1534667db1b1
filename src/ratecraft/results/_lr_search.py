"""What a search for a rate saw: range tests and short runs."""

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
class RangeTest:
    """What a learning-rate range test saw.

    Attributes:
        rates: the rate of each update, ascending.
        losses: the training loss before each update.
        smoothed: the same, as an exponential moving average with bias correction.
        stopped: why the test ended, in words.
        suggestion: the rate to train with; ``None`` if the curve shows none.
        reason: how the suggestion was chosen, or why there is none.
        task: what was tested, in words.
        optimizer: the class of the optimizer.
        seconds: wall time of the test.
        low: the rate that the test was to begin with.
        high: the rate that it was to end with.
        planned: updates that were to be made.
        spacing: "geometric" or "linear" rates.
        batches: batches that were used up.
        control: how many batches were used again and again as control variates; 0 if none.
        seed: the seed of initial weights and data order, where one was set.
    """

    rates: tuple[float, ...]
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
        rates: Sequence[float],
        losses: Sequence[float],
        smoothed: Sequence[float],
        stopped: str,
        **settings: Any,
    ) -> RangeTest:
        """Return the record of a curve, with what the rule for its kind makes of it.

        Args:
            rates: the rate of each update, ascending.
            losses: the training loss before each update, as many.
            smoothed: the same, smoothed.
            stopped: why the test ended, in words.
            settings: more of the record's attributes, such as ``task=``. With a ``control=`` above
                0 the suggestion is a quarter of the minimum's rate, else a tenth.

        >>> rates = [1e-3 * 10 ** (k / 10) for k in range(31)]
        >>> losses = [2 - rate if rate < 0.5 else 1 + rate for rate in rates]
        >>> record = RangeTest.from_curve(rates, losses, losses, "all updates were made")
        >>> round(record.suggestion, 2)
        0.05
        """
        rule = CONTROLLED if settings.get("control") else next(iter(RULES))
        rate, reason = suggest(rule, rates, losses, smoothed)
        curve = tuple(rates), tuple(losses), tuple(smoothed)
        return cls(*curve, stopped, rate, reason, **settings)

    def suggest(self, rule: str = "minimum/10") -> Suggestion:
        """Return the rate that a known rule reads off this curve, and how; or why it reads none.

        Args:
            rule: "minimum/10", "minimum/4", "steepest", "valley" or "slide", the keys of `RULES`.

        Raises:
            SettingError: there is no such rule.
        """
        return suggest(rule, self.rates, self.losses, self.smoothed)

    @property
    def cost(self) -> str:
        """What the test cost, in words."""
        made = f"{len(self.rates)} updates"
        return f"{made}, {self.batches or len(self.rates)} batches, {self.seconds:.3g} s"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this record as JSON and return its path.

        Args:
            path: the file; folders that are missing are made. `ratecraft.results.load` reads it.
        """
        return save(self, path)


@dataclass(frozen=True, slots=True)
class ShortRun:
    """A run in miniature, by which a rate was tried.

    Attributes:
        rate: its rate, before it cooled down.
        losses: the training loss before each update.
        gain: the loss of the batches that were kept, before less after; -inf if it diverged.
        noise: the standard error of the gain over those batches.
        lot: which batches it was given: 0 the first ones, 1 those after them.
    """

    rate: float
    losses: tuple[float, ...]
    gain: float
    noise: float
    lot: int = 0


@dataclass(frozen=True, slots=True)
class FoundRate:
    """The rate to train with, and how it was found; or why there is none.

    Attributes:
        rate: the rate to train with, the peak of a schedule; ``None`` if there is no answer.
        low: the lowest rate that promises nearly as much.
        high: the highest.
        reason: how they were found, or why not and what to try.
        before: the loss before any training.
        runs: the short runs, by rate.
        length: updates in each of them.
        total: length of the run to come that was reckoned with, in updates.
        allowed: the updates that the search was allowed.
        updates: the updates that it made.
        looks: batches whose loss was computed without an update.
        batches: batches that were read.
        task: what is trained, in words.
        optimizer: the class of the optimizer.
        seconds: wall time.
        seed: the seed of initial weights and data order, where one was set.
    """

    rate: float | None
    low: float | None
    high: float | None
    reason: str
    before: float
    runs: tuple[ShortRun, ...]
    length: int
    total: int | None = None
    allowed: int = 0
    updates: int = 0
    looks: int = 0
    batches: int = 0
    task: str = ""
    optimizer: str = ""
    seconds: float = 0.0
    seed: int | None = None

    @property
    def curve(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The rates, ascending, that did not diverge, and the mean loss after their short runs."""
        gains: dict[float, list[float]] = {}
        for run in self.runs:
            gains.setdefault(run.rate, []).append(run.gain)
        means = {rate: statistics.fmean(some) for rate, some in gains.items()}
        kept = {rate: gain for rate, gain in sorted(means.items()) if math.isfinite(gain)}
        return tuple(kept), tuple(self.before - gain for gain in kept.values())

    @property
    def cost(self) -> str:
        """What the search cost, in words."""
        made = f"{self.updates} of {self.allowed} updates in {len(self.runs)} short runs"
        return f"{made}, {self.looks} losses without gradients, {self.seconds:.3g} s"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this record as JSON and return its path.

        Args:
            path: the file; folders that are missing are made. `ratecraft.results.load` reads it.
        """
        return save(self, path)
